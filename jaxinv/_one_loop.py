"""Many scalars at once by one loop on CPU, by one kernel on GPU: XLA is kept from computing anew for each result.

On CPU a variadic `reduce` does so: over an axis of length 2 that repeats each entry, its reducer ignores the
accumulator and maps the entries at one place to the results. XLA compiles it to one loop over the vectors, which LLVM
vectorises (the first of the two calls is dead code) and which is split over the cores. What computes the entries is
fused into it. (Over an axis of length 1 the algebraic simplifier would remove the reduction.)

On GPU and TPU a `reduce_window` whose window is one entry says the same. XLA:GPU makes one kernel of it.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._lowering import device_count


def one_loop(f: Callable[..., Sequence], *vectors: Array) -> Sequence[Array]:
    """`f` on the scalars at each index of arrays of one shape, as one loop, with what computes them fused into it.

    Results have the dtypes of the `vectors` in their order, and are as many: beyond those of `f` they hold zeros.
    """
    axis = vectors[0].ndim
    twice = tuple(jnp.broadcast_to(X[..., None], (*X.shape, 2)) for X in vectors)
    return lax.reduce(twice, _zeros(vectors), partial(_last, f), (axis,))


def one_kernel(f: Callable[..., Sequence], *vectors: Array) -> Sequence[Array]:
    """As `one_loop`, on GPU and TPU."""
    length = vectors[0].shape[-1]
    return [x[..., :length] for x in one_kernel_of_odd_length(f, *vectors)]


def one_kernel_of_odd_length(f: Callable[..., Sequence], *vectors: Array) -> Sequence[Array]:
    """As `one_kernel`; where vectors are of even length, on one device, results have an entry more at the end.

    XLA:GPU gives a thread four or two entries where their number is a multiple, and four matrices do not fit into its
    registers: on an NVIDIA H200, with JAX 0.11.2, float32 n = 8 0.84 in place of 0.35 ns, float64 1.50 and 0.59,
    complex64 n = 6 1.06 and 0.40; to n = 5 0 to 9 %. Several devices would exchange entries for the one that is added.
    """
    axes, length = vectors[0].ndim, vectors[0].shape[-1]
    more = isinstance(length, int) and length % 2 == 0 and device_count() == 1
    padding = [*((0, 0),) * (axes - 1), (0, int(more))]
    return lax.reduce_window(vectors, _zeros(vectors), partial(_last, f), (1,) * axes, (1,) * axes, padding)


def computed(X: Array) -> Array:
    """`X`, computed in a loop of its own, once: XLA:CPU fuses through `optimization_barrier`, not through `reduce`."""
    return one_loop(lambda x: (x,), X)[0]


def _last(f, _, scalars):
    """A reducer that takes the last entries for all; it closes over no array, since JAX keeps it in a cache."""
    out = tuple(f(*scalars))
    return out + tuple(lax.full_like(x, 0) for x in scalars[len(out) :])


def _zeros(vectors):
    return tuple(jnp.zeros((), X.dtype) for X in vectors)


def materialised(X: Array) -> Array:
    """`X`, written to memory: XLA:CPU fuses through `optimization_barrier`, but not through a `reduce_window`."""
    ones = (1,) * X.ndim
    return lax.reduce_window((X,), (jnp.zeros((), X.dtype),), lambda _, x: x, ones, ones, "VALID")[0]
