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
from math import gcd

import jax.numpy as jnp
from jax import Array, lax

# Matrices transposed together: 64 8x8 float32 matrices are half of a 32 KiB L1 cache.
TILE = 64
# Matrices a chunk: 4096 8x8 float32 matrices are 1 MiB, the L2 caches of two cores.
CHUNK = 4096
# A chunk comes from this many places of the batch at once, so that a sharded batch is cut within its shards.
LANES = 64
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
    if n < CHUNKED_FROM or not isinstance(batch, int) or batch <= CHUNK:
        return _one_pass(entries, flat).reshape(shape)
    lanes = gcd(batch, LANES)
    length, step = batch // lanes, CHUNK // lanes
    flat = [X.reshape(lanes, length, n * n) for X in flat]
    passes = -(-length // step)

    def body(i, Y):
        # The sort keeps XLA from compiling a loop over small chunks as one single-threaded kernel.
        start = lax.sort(jnp.stack([i, jnp.full_like(i, passes)]))[0] * step
        chunk = [lax.dynamic_slice_in_dim(X, start, step, 1).reshape(lanes * step, n * n) for X in flat]
        return lax.dynamic_update_slice_in_dim(Y, _one_pass(entries, chunk).reshape(lanes, step, n * n), start, 1)

    # The last chunk is moved back to end with the batch; what it holds twice it computes twice, alike.
    return lax.fori_loop(0, passes, body, jnp.zeros_like(flat[0])).reshape(shape)


def _one_pass(entries, operands):
    """`entries` over operands of shape (batch, entries)."""
    batch, m = operands[0].shape
    if m < CHUNKED_FROM**2 or not isinstance(batch, int) or batch % TILE:
        vectors = [X[:, k] for X in operands for k in range(m)]
        return jnp.stack(one_loop(entries, *vectors)[:m], axis=1)
    tiles = [materialised(X.reshape(-1, TILE, m).swapaxes(1, 2)) for X in operands]
    results = one_loop(entries, *[X[:, k] for X in tiles for k in range(m)])[:m]
    return materialised(jnp.stack(results, axis=1)).swapaxes(1, 2).reshape(batch, m)


def one_loop(f: Callable[..., Sequence], *vectors: Array) -> Sequence[Array]:
    """`f` on the scalars at each index of arrays of one shape, as one loop; results beyond those of `f` hold zeros."""

    def reducer(_, scalars):  # closes over no array: JAX keeps it in a cache
        out = tuple(f(*scalars))
        return out + (lax.full_like(scalars[0], 0),) * (len(scalars) - len(out))

    start = (jnp.zeros((), vectors[0].dtype),) * len(vectors)
    ones = (1,) * vectors[0].ndim
    return lax.reduce_window(tuple(vectors), start, reducer, ones, ones, "VALID")


def materialised(X: Array) -> Array:
    """`X`, written to memory: XLA:CPU fuses through `optimization_barrier`, but not through this."""
    return one_loop(lambda x: (x,), X)[0]
