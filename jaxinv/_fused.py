"""Many small matrices at once: a function of scalars, run over a batch as one vectorised loop on CPU.

XLA:CPU fuses an unrolled elimination by computing it anew for every entry of the result. A variadic `reduce` stops
that: over an axis of length 2 that repeats each entry, its reducer ignores the accumulator and maps the entries of one
matrix to the entries of its result. XLA compiles it to one loop over the batch, which LLVM vectorises (the first of the
two calls is dead code) and which is split over the cores. The slices that pick the entries are fused into it, so the
loop reads the matrices as they lie. (Over an axis of length 1 the algebraic simplifier would remove the reduction.)

The results are vectors over the batch, one for each entry; stacking them is a transposition, cheap in cache: large
batches go through in chunks. No two vectors may lie a multiple of `PAGE` bytes apart, or they share the same sets of
the cache (n = 8: 105 ns, or 210). At n = 2 there are no vectors, see `_two_by_two`.

On GPU and TPU the same is said by a `reduce_window` whose window is one entry. XLA:GPU makes one kernel of it, a thread
for each matrix, and another of the stacking. Four real entries are what one thread reads and writes at once: left to be
fused, they are one kernel with the stacking. `tests/test_compiled_for_gpu.py` reads these kernels.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._chunks import LANES, SHORTEST_AXIS, batch_axes, in_chunks, lanes, most_lanes
from jaxinv._scalars import numbers, parts
from jaxinv._two_by_two import map_in_place

# Measured on AMD EPYC 9004 (2 cores, AVX-512), 2026-11-25.
# Matrices a chunk, at most: 4096 .. 16384 are even at n = 4 .. 8.
CHUNK = 8192
# For these loops, of 2 .. 64 the best at n = 4 .. 8: n = 6 36 against 43 ns with 64, n = 8 81 against 93.
LANES_OF_ONE_DEVICE = 8
# Smaller matrices are faster in one pass, n = 3 7 against 12 ns, although its vectors are as large as the result: where
# the allocator gives such memory back after each call, its pages are new in the next (n = 4: 11 ns, or 25 to 40).
CHUNKED_FROM = 4
PAGE = 4096  # bytes in one way of a 32 or 48 KiB L1 cache


def map_matrices(
    f: Callable[..., Sequence],
    sizes: Sequence[int],
    X: Array,
    reads: Sequence[int] | None = None,
    places: Sequence[int | None] | None = None,
    at_once: bool = False,
) -> tuple[Array, ...]:
    """`f` of the n^2 entries of each matrix of X, row by row.

    Args:
        f: takes a scalar for each of `reads`; its results are numbered from 0.
        sizes: of the arrays into which the results are gathered.
        X: shape (..., n, n).
        reads: the entries that f takes, by default all.
        places: for each place in the arrays the result that goes there, None for a zero; by default one for each.
        at_once: for GPU and TPU, without chunks, and with the axes of the batch as they are.

    Returns:
        Arrays of shapes (..., size).
    """
    *shape, n, _ = X.shape
    reads, places = reads or range(n * n), places or range(sum(sizes))
    if n == 2 and not at_once:
        return map_in_place(f, sizes, reads, places, X)
    if at_once:
        out = _at_once(f, sizes, reads, places, X.reshape(*(shape or [1]), n * n))
        return tuple(Y.reshape(*shape, size) for Y, size in zip(out, sizes, strict=True))
    batch = batch_axes(shape)
    X = X.reshape(*batch, n * n)
    one_pass = partial(_one_pass, one_loop, f, sizes, reads, places)
    if n < CHUNKED_FROM or not isinstance(batch[0], int):
        out = one_pass(X)
    else:
        most = most_lanes(LANES_OF_ONE_DEVICE)
        out = in_chunks(one_pass, batch, fused_step(batch, X.dtype.itemsize, most), X, most)
    return tuple(Y.reshape(*shape, size) for Y, size in zip(out, sizes, strict=True))


map_at_once = partial(map_matrices, at_once=True)


def fused_step(batch: Sequence[int], itemsize: int, most: int = LANES) -> int:
    """Matrices of a lane in a chunk: as few chunks as `CHUNK` allows, and vectors over a chunk that spread in cache."""
    axis, count, length = lanes(batch, most)
    total = math.prod(batch)
    step = -(-length // -(-total // CHUNK))
    if len(batch) > 1 and axis == len(batch) - 1:
        step = max(step, SHORTEST_AXIS)
    if total // length * step * itemsize % PAGE == 0:
        step = (step if step < length else step // 2) + max(1, LANES // 4 // count)
    return min(step, length)


def _one_pass(run, f, sizes, reads, places, X):
    """`f` of the entries of X, shape (..., entries), in the loop that `run` makes."""
    is_complex = jnp.iscomplexobj(X)
    vectors = parts(X[..., k] for k in reads)
    count = (1 + max(k for k in places if k is not None)) * (1 + is_complex)
    operands = len(vectors)
    spare = [jnp.zeros_like(vectors[0])] * (count - operands)  # there are as many results as operands

    def f_of_parts(*scalars):  # closes over no array, see `one_loop`
        return parts(f(*numbers(scalars[:operands], of_complex=is_complex)))[:count]

    results = list(run(f_of_parts, *vectors, *spare))
    if is_complex:
        results = [lax.complex(*pair) for pair in zip(results[::2], results[1::2], strict=True)]
    placed = iter([jnp.zeros_like(X[..., 0]) if k is None else results[k] for k in places])
    return tuple(jnp.stack([next(placed) for _ in range(size)], axis=-1) for size in sizes)


def _at_once(f, sizes, reads, places, X):
    if X.shape[-1] != 4 or jnp.iscomplexobj(X):
        return _one_pass(one_kernel, f, sizes, reads, places, X)
    out = _one_pass(lambda f, *vectors: f(*vectors), f, sizes, reads, places, X)
    return lax.optimization_barrier(out)  # so that what uses it does not compute it anew


def one_loop(f: Callable[..., Sequence], *vectors: Array) -> Sequence[Array]:
    """`f` on the scalars at each index of arrays of one shape, as one loop, with what computes them fused into it.

    Results have the dtypes of the `vectors` in their order, and are as many: beyond those of `f` they hold zeros.
    """
    axis = vectors[0].ndim
    twice = tuple(jnp.broadcast_to(X[..., None], (*X.shape, 2)) for X in vectors)
    return lax.reduce(twice, _zeros(vectors), partial(_last, f), (axis,))


def one_kernel(f: Callable[..., Sequence], *vectors: Array) -> Sequence[Array]:
    """As `one_loop`, on GPU and TPU."""
    ones = (1,) * vectors[0].ndim
    return lax.reduce_window(vectors, _zeros(vectors), partial(_last, f), ones, ones, "VALID")


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
