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


def map_matrices(entries: Callable[..., Sequence], *operands: Array) -> Array:
    """The n x n results of `entries` on n x n `operands` of one shape (..., n, n).

    Args:
        entries: takes the entries of all operands, row by row, and returns the n^2 entries of the result.
        operands: arrays of one shape and dtype.
    """
    shape = operands[0].shape
    n, batch = shape[-1], 1
    for size in shape[:-2]:
        batch = batch * size
    flat = [X.reshape(batch, n * n) for X in operands]
    if n < CHUNKED_FROM or not isinstance(batch, int):
        return _one_pass(entries, *flat).reshape(shape)
    return in_chunks(partial(_one_pass, entries), CHUNK, *flat).reshape(shape)


def in_chunks(f: Callable[..., Array], chunk: int, *operands: Array) -> Array:
    """`f`, of operands of one shape (batch, ...), `chunk` of the batch at a time: LANES * LEAST_STEP or a multiple."""
    batch, *shape = operands[0].shape
    if batch <= chunk:
        return f(*operands)
    lanes = gcd(batch, LANES)
    length, unit = batch // lanes, max(LEAST_STEP, TILE // lanes)
    passes = -(-length // (chunk // (lanes * unit) * unit))
    step = -(-length // (passes * unit)) * unit
    passes = -(-length // step)
    operands = tuple(X.reshape(lanes, length, *shape) for X in operands)

    def body(i, Y):
        start = many(i, passes) * step
        places = [lax.dynamic_slice_in_dim(X, start, step, 1).reshape(lanes * step, *shape) for X in operands]
        return lax.dynamic_update_slice_in_dim(Y, f(*places).reshape(lanes, step, *shape), start, 1)

    # The last chunk is moved back to end with the batch; what it holds twice it computes twice, alike.
    return lax.fori_loop(0, passes, body, jnp.zeros_like(operands[0])).reshape(batch, *shape)


def many(i: Array, passes: int) -> Array:
    """`i`, the index of a loop, by way of a sort: XLA compiles no loop with a sort as one single-threaded kernel."""
    return lax.sort(jnp.stack([i, jnp.full_like(i, passes)]))[0]


def _one_pass(entries, *operands):
    """`entries` over operands of shape (batch, entries)."""
    batch, m = operands[0].shape
    if m < CHUNKED_FROM**2 or not isinstance(batch, int) or batch % TILE:
        vectors = [X[:, k] for X in operands for k in range(m)]
        return jnp.stack(one_loop(entries, *vectors)[:m], axis=1)
    tiles = [materialised(X.reshape(-1, TILE, m).swapaxes(1, 2)) for X in operands]
    results = one_loop(entries, *[X[:, k] for X in tiles for k in range(m)])[:m]
    return materialised(jnp.stack(results, axis=1)).swapaxes(1, 2).reshape(batch, m)


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
