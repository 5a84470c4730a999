"""The inverses of many matrices of middle size: LAPACK's LU, then substitution by halves, in matrix products.

    P X = L U,    L W = P,    U Y = W

The blocks on the diagonals of L and U, of `BLOCKS` rows, are inverted first, all together.

LAPACK's own substitution takes more than half of the time of an inverse, at a tenth of the speed of a matrix product,
and two calls of it disturb each other: each takes all cores, however small its matrices are. Calls of the factorisation
do not, but one call factorises a batch in one thread; so it is called for `PARTS` of the batch, which XLA runs side by
side. A larger matrix would take all cores as well, and such calls too disturb each other: LAPACK is given halves of its
columns, or halves of these.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 8.4 and 14.3, SIAM 2002,
https://doi.org/10.1137/1.9780898718027
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._chunks import batch_axes, in_chunks, lanes, most_lanes
from jaxinv._lapack import ENTRIES_OF_MANY_THREADS, LAPACK_BATCH_IS_SERIAL, is_one_thread, over_batch
from jaxinv._lowering import device_count
from jaxinv._lu import permutation_by_places
from jaxinv._one_loop import materialised
from jaxinv._triangular import diagonal_blocks, even_blocks, matmul, substituted, with_unit_diagonal

# Rows of a block, at most, and the n from which on, on an Intel Xeon of the fourth generation, 2026-11-26, float64: n =
# 24 6.3 us with 8 and 8.0 with 16, n = 40 17.6 and 20.4, n = 64 48 and 45, n = 128 250 with 16 to 32, n = 192 715, and
# 670 with 32, 760 with 64, n = 256 1590, 1510, 1475; float32 n = 40 12.1 with 8 and 12.7 with 16, n = 192 385, and 370
# with 32, n = 256 750, 715 and 695 with 64; on the EPYC n = 192 159 and 184, n = 256 even. They are inverted as a
# whole, so larger ones would cost accuracy.
BLOCKS = ((0, 8), (57, 16), (192, 32), (240, 64))
# The rest was measured on AMD EPYC 9004 (2 cores, AVX-512), float32, JAX 0.12.0.1, 2026-11-25, unless said.
# Products of blocks of other heights are slow: n = 40 8.8 us with blocks of 16, 16 and 8, and 12.4 with 14, 14 and 12.
ROWS_OF_VECTORS = 8
# XLA keeps up to 8 calls that are ready in one thread, and gives half of more to another: n = 64 14.5 us for the
# factorisation in 1 to 9 parts, 10.8 in 10 to 18, 8.5 in 24 to 64.
PARTS = 32
# Bytes of a chunk of the batch, at most. What is computed from it stays below 32 MiB, beyond which the allocator gives
# memory back after each call, and its pages are new in the next: n = 64 17.5 us, and 25 with 2**24.
CHUNK_BYTES = 2**22
FEWEST = 16  # for as many parts


def blocked_lu_inverse(
    triangles: Callable[[bool, Array], Array], X: Array, with_factors: bool = False
) -> tuple[Array, ...]:
    """The inverse of each matrix of X, shape (..., n, n), the batch of a known size; inf or nan where it is singular.

    `triangles(lower, D)` gives the inverses of small triangular matrices. If asked for, n factors of the determinant
    too, shape (..., n).
    """
    *shape, n, _ = X.shape
    batch = batch_axes(shape)
    f = _of_merged_batch(partial(_inverse, triangles, with_factors))
    out = in_chunks(f, batch, blocked_step(batch, n, X.dtype.itemsize), X.reshape(*batch, n, n), most_lanes())
    return tuple(Y.reshape(*shape, *Y.shape[len(batch) :]) for Y in out)


def blocked_step(batch: Sequence[int], n: int, itemsize: int) -> int:
    """Matrices of a lane in a chunk: as few chunks as `CHUNK_BYTES` allows, alike, of `FEWEST` matrices or more."""
    _, _, length = lanes(batch, most_lanes())
    largest = max(CHUNK_BYTES // (n * n * itemsize), FEWEST)
    chunks = min(-(-math.prod(batch) // largest), length)
    return -(-length // chunks)


def _of_merged_batch(inverse):
    """`inverse` with the axes of the batch merged, which is faster, where it cannot be spread over devices."""
    if device_count() > 1:
        return inverse

    def merged(X):
        *batch, n, _ = X.shape
        return tuple(Y.reshape(*batch, *Y.shape[1:]) for Y in inverse(X.reshape(-1, n, n)))

    return merged


def _factorised(triangles, X):
    """LU and the pivots of each matrix of X, shape (..., m, k) with m >= k; of large ones by halves of the columns."""
    m, k = X.shape[-2:]
    if is_one_thread(m, k, X.dtype) or k < 2 * ROWS_OF_VECTORS:
        return _factorised_in_parts(X)
    most = ENTRIES_OF_MANY_THREADS[X.dtype.name] - 1
    half, widest = (columns // ROWS_OF_VECTORS * ROWS_OF_VECTORS for columns in (k // 2, most // m))
    h = min(half, widest) if (m - widest) * (k - widest) <= most else half  # the fewest pieces
    left, left_pivots = _factorised(triangles, X[..., :h])
    right = _exchanged(X[..., h:], left_pivots)
    blocks = _blocks(h)
    over = triangles(True, with_unit_diagonal(diagonal_blocks(left[..., :h, :], blocks)))
    above = substituted(left, over, True, blocks, right[..., :h, :])
    below, below_pivots = _factorised(triangles, right[..., h:, :] - matmul(left[..., h:, :], above))
    left = jnp.concatenate([left[..., :h, :], _exchanged(left[..., h:, :], below_pivots)], axis=-2)
    LU = jnp.concatenate([left, jnp.concatenate([above, below], axis=-2)], axis=-1)
    return LU, jnp.concatenate([left_pivots, below_pivots + h], axis=-1)


def _exchanged(X, pivots):
    row_of = lax.linalg.lu_pivots_to_permutation(pivots, X.shape[-2])
    return jnp.take_along_axis(X, row_of[..., None], axis=-2, mode="promise_in_bounds")


def _blocks(n):
    return even_blocks(n, max(rows for start, rows in BLOCKS if n >= start), ROWS_OF_VECTORS)


def _factorised_in_parts(X):
    parts = min(len(X), PARTS) if LAPACK_BATCH_IS_SERIAL and device_count() == 1 else 1
    if parts == 1:
        LU, pivots = over_batch(lambda X: lax.linalg.lu(X)[:2], X)
        return materialised(LU), pivots  # which comes by columns
    bounds = pairwise(len(X) * k // parts for k in range(parts + 1))
    pieces = (lax.linalg.lu(X[start:stop])[:2] for start, stop in bounds)
    LU, pivots = (jnp.concatenate(piece) for piece in zip(*pieces, strict=True))
    return LU, pivots


def _inverse(triangles, with_factors, X):
    n = X.shape[-1]
    LU, pivots = _factorised(triangles, X)
    P = permutation_by_places(pivots, X.dtype)
    blocks = _blocks(n)
    D = diagonal_blocks(LU, blocks)
    over_L, over_U = triangles(True, with_unit_diagonal(D)), triangles(False, D)
    # Joined once: XLA would look up the block of each entry as it puts the chunk in place, n = 40 8.3 us, and 0.8 so.
    Y = materialised(substituted(LU, over_U, False, blocks, substituted(LU, over_L, True, blocks, P)))
    if not with_factors:
        return (Y,)
    swaps = pivots != lax.broadcasted_iota(pivots.dtype, pivots.shape, pivots.ndim - 1)
    return Y, jnp.where(swaps, -1, 1).astype(X.dtype) * jnp.diagonal(LU, axis1=-2, axis2=-1)
