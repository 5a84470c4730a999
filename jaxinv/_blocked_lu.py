"""The inverses of many matrices of middle size: LAPACK's LU, then substitution by halves, in matrix products.

    P X = L U,    L W = P,    U Y = W

    [A  0] [Y1]   [B1]                  Y1 = A^-1 B1
    [C  D] [Y2] = [B2]                  Y2 = D^-1 (B2 - C Y1)      and alike, from below, for U

down to blocks on the diagonal of up to `BLOCK` rows, whose inverses are computed first, all together.

LAPACK's own substitution takes more than half of the time of an inverse, at a tenth of the speed of a matrix product,
and two calls of it disturb each other: each takes all cores, however small its matrices are. Two calls of the
factorisation do not, so the batch goes through in `PARTS`, which XLA runs side by side.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 8.4 and 14.3, SIAM 2002,
https://doi.org/10.1137/1.9780898718027
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxinv._fused import batch_axes, in_chunks, lanes, materialised
from jaxinv._lapack import over_batch
from jaxinv._triangular import matmul, padded

# Measured on AMD EPYC 9004 (2 cores, AVX-512), float32, JAX 0.12.0.1, 2026-11-24.
# Rows of a block, at most: n = 32 9 us with 16 and 11 with 32, n = 64 and 128 even, n = 256 726 and 640.
BLOCK = 16
LARGE_BLOCK = 32
LARGE_FROM = 129
# Even with 4 and 8 on two cores; not tried on more.
PARTS = 2
# Bytes of a chunk of the batch, at most: 5000 of n = 64 50 us, 63 in one; smaller chunks are slower at n = 128 and 256.
CHUNK_BYTES = 2**24


def blocked_lu_inverse(
    triangles: Callable[[bool, Array], Array], X: Array, with_factors: bool = False
) -> tuple[Array, ...]:
    """The inverse of each matrix of X, shape (..., n, n), the batch of a known size; inf or nan where it is singular.

    `triangles(lower, D)` gives the inverses of small triangular matrices. If asked for, n factors of the determinant
    too, shape (..., n).
    """
    *shape, n, _ = X.shape
    batch = batch_axes(shape)
    f = partial(_inverse_in_parts, partial(_inverse, triangles, with_factors))
    out = in_chunks(f, batch, blocked_step(batch, n, X.dtype.itemsize), X.reshape(*batch, n, n))
    return tuple(Y.reshape(*shape, *Y.shape[len(batch) :]) for Y in out)


def blocked_step(batch: Sequence[int], n: int, itemsize: int) -> int:
    """Matrices of a lane in a chunk: as few chunks as `CHUNK_BYTES` allows, alike."""
    _, _, length = lanes(batch)
    chunks = min(-(-math.prod(batch) * n * n * itemsize // CHUNK_BYTES), length)
    return -(-length // chunks)


def _inverse_in_parts(inverse, X):
    """`inverse` of X in `PARTS`; in one where there are several devices, over which X may be spread."""
    *batch, n, _ = X.shape
    count = math.prod(batch)
    if jax.device_count() > 1 or count < PARTS:
        return inverse(X)
    X = X.reshape(count, n, n)
    bounds = pairwise(count * k // PARTS for k in range(PARTS + 1))
    parts = [inverse(X[start:stop]) for start, stop in bounds]
    wholes = (jnp.concatenate(pieces) for pieces in zip(*parts, strict=True))
    return tuple(whole.reshape(*batch, *whole.shape[1:]) for whole in wholes)


def _inverse(triangles, with_factors, X):
    n = X.shape[-1]
    LU, pivots = over_batch(lambda X: lax.linalg.lu(X)[:2], X)
    LU = materialised(LU)  # which comes by columns
    row_of = lax.linalg.lu_pivots_to_permutation(pivots, n)
    P = (row_of[..., None] == lax.broadcasted_iota(row_of.dtype, LU.shape, LU.ndim - 1)).astype(X.dtype)
    size = -(-n // -(-n // (BLOCK if n < LARGE_FROM else LARGE_BLOCK)))
    blocks = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    D = jnp.stack([padded(LU[..., block, block], size) for block in blocks], axis=-3)
    is_diagonal = jnp.eye(size, dtype=bool)[(None,) * (D.ndim - 2)]
    over_L, over_U = triangles(True, jnp.where(is_diagonal, 1, D)), triangles(False, D)
    Y = _substitute(LU, over_U, False, blocks, _substitute(LU, over_L, True, blocks, P))
    if not with_factors:
        return (Y,)
    swaps = pivots != lax.broadcasted_iota(pivots.dtype, pivots.shape, pivots.ndim - 1)
    return Y, jnp.where(swaps, -1, 1).astype(X.dtype) * jnp.diagonal(LU, axis1=-2, axis2=-1)


def _substitute(T, over, lower, blocks, B):
    """T^-1 B for the triangle of T in the rows of `blocks`, with the inverses `over` of all blocks on the diagonal."""
    if len(blocks) == 1:
        (block,) = blocks
        rows = block.stop - block.start
        return matmul(over[..., block.start // over.shape[-1], :rows, :rows], B)
    middle = len(blocks) // 2
    upper_part, lower_part = blocks[:middle], blocks[middle:]
    h = lower_part[0].start - upper_part[0].start
    above, below = B[..., :h, :], B[..., h:, :]
    if lower:
        above = _substitute(T, over, lower, upper_part, above)
        below = _substitute(T, over, lower, lower_part, below - matmul(_between(T, lower_part, upper_part), above))
    else:
        below = _substitute(T, over, lower, lower_part, below)
        above = _substitute(T, over, lower, upper_part, above - matmul(_between(T, upper_part, lower_part), below))
    return jnp.concatenate([above, below], axis=-2)


def _between(T, rows, columns):
    return T[..., rows[0].start : rows[-1].stop, columns[0].start : columns[-1].stop]
