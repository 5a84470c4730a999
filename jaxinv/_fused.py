"""Many small matrices at once: a function of scalars, run over a batch as one vectorised loop on CPU.

XLA:CPU fuses an unrolled elimination by computing it anew for every entry of the result. A variadic `reduce_window`
of window 1 stops that: its reducer ignores the accumulator and maps the entries of one matrix to the entries of its
result, and XLA compiles it to one loop over the batch, vectorised by LLVM and split over the cores. (A `reduce` over
an axis of length 1 would be removed by the algebraic simplifier.)

The loop reads each entry (i, j) as a vector over the batch, so the batch is turned from array of matrices to matrix
of arrays and back. That is a transposition, cheap only in cache: tiles of `TILE` matrices are transposed at a time,
and batches larger than `CHUNK` go through in chunks.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import gcd

import jax
import jax.numpy as jnp
from jax import Array, lax

# Matrices transposed together: 64 8x8 float32 matrices are half of a 32 KiB L1 cache.
TILE = 64
# Matrices a chunk: 4096 8x8 float32 matrices are 1 MiB, the L2 caches of two cores.
CHUNK = 4096
# A chunk comes from this many places of the batch at once, so that a sharded batch is cut within its shards.
LANES = 64
# Of so many, or a multiple, from each place: tiles lie within shards then.
LEAST_STEP = 16
# Smaller matrices are faster in one pass: n = 4 41 against 47 ns (AMD EPYC 7003, 2 cores, 2026-11-22).
CHUNKED_FROM = 5


def map_matrices(f: Callable[..., Sequence], sizes: Sequence[int], X: Array) -> tuple[Array, ...]:
    """`f` of the n^2 entries of each matrix of X, row by row.

    Args:
        f: takes n^2 scalars and returns sum(sizes) of them, n^2 or more.
        sizes: of the arrays into which the results are gathered.
        X: shape (..., n, n).

    Returns:
        Arrays of shapes (..., size).
    """
    *shape, n, _ = X.shape
    batch = 1
    for size in shape:
        batch = batch * size
    X = X.reshape(batch, n * n)
    one_pass = partial(_one_pass, f, sizes)
    out = one_pass(X) if n < CHUNKED_FROM or not isinstance(batch, int) else in_chunks(one_pass, CHUNK, X)
    return tuple(Y.reshape(*shape, size) for Y, size in zip(out, sizes, strict=True))


def in_chunks(f: Callable[[Array], tuple[Array, ...]], chunk: int, X: Array) -> tuple[Array, ...]:
    """`f` of X, shape (batch, ...), `chunk` of the batch at a time: LANES * LEAST_STEP or a multiple."""
    batch = X.shape[0]
    if batch <= chunk:
        return f(X)
    lanes = gcd(batch, LANES)
    length, unit = batch // lanes, max(LEAST_STEP, TILE // lanes)
    passes = -(-length // (chunk // (lanes * unit) * unit))
    step = -(-length // (passes * unit)) * unit
    passes = -(-length // step)
    X = X.reshape(lanes, length, *X.shape[1:])

    def places(start):
        return f(lax.dynamic_slice_in_dim(X, start, step, 1).reshape(lanes * step, *X.shape[2:]))

    def body(i, Ys):
        start = many(i, passes) * step
        out = (Y.reshape(lanes, step, *Y.shape[1:]) for Y in places(start))
        return tuple(lax.dynamic_update_slice_in_dim(Y, new, start, 1) for Y, new in zip(Ys, out, strict=True))

    zero = jnp.zeros_like(X.reshape(lanes, length, -1)[:, :, 0])
    shapes = [zero.shape + Y.shape[1:] for Y in jax.eval_shape(places, 0)]
    start = tuple(jnp.broadcast_to(zero.reshape(zero.shape + (1,) * (len(shape) - 2)), shape) for shape in shapes)
    # The last chunk is moved back to end with the batch; what it holds twice it computes twice, alike.
    return tuple(Y.reshape(batch, *Y.shape[2:]) for Y in lax.fori_loop(0, passes, body, start))


def many(i: Array, passes: int) -> Array:
    """`i`, the index of a loop, by way of a sort: XLA compiles no loop with a sort as one single-threaded kernel."""
    return lax.sort(jnp.stack([i, jnp.full_like(i, passes)]))[0]


def _one_pass(f, sizes, X):
    """`f` of the entries of X, shape (batch, entries)."""
    batch, m = X.shape
    in_tiles = m >= CHUNKED_FROM**2 and isinstance(batch, int) and batch % TILE == 0
    X = materialised(X.reshape(-1, TILE, m).swapaxes(1, 2)) if in_tiles else X
    vectors = [X[:, k] for k in range(m)]
    spare = [jnp.zeros_like(vectors[0])] * (sum(sizes) - m)  # there are as many results as operands
    results = iter(one_loop(lambda *scalars: f(*scalars[:m]), *vectors, *spare))
    out = tuple(jnp.stack([next(results) for _ in range(size)], axis=1) for size in sizes)
    return tuple(materialised(Y).swapaxes(1, 2).reshape(batch, -1) for Y in out) if in_tiles else out


def one_loop(f: Callable[..., Sequence], *vectors: Array) -> Sequence[Array]:
    """`f` on the scalars at each index of arrays of one shape, as one loop.

    Results have the dtypes of the `vectors` in their order, and are as many: beyond those of `f` they hold zeros.
    """

    def reducer(_, scalars):  # closes over no array: JAX keeps it in a cache
        out = tuple(f(*scalars))
        return out + tuple(lax.full_like(x, 0) for x in scalars[len(out) :])

    start = tuple(jnp.zeros((), X.dtype) for X in vectors)
    ones = (1,) * vectors[0].ndim
    return lax.reduce_window(tuple(vectors), start, reducer, ones, ones, "VALID")


def materialised(X: Array) -> Array:
    """`X`, written to memory: XLA:CPU fuses through `optimization_barrier`, but not through this."""
    return one_loop(lambda x: (x,), X)[0]
