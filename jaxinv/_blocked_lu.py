"""The inverses of many matrices of middle size: LAPACK's LU, then substitution by halves, in matrix products.

    P X = L U,    L W = P,    U Y = W

The blocks on the diagonals of L and U, of up to `BLOCK` rows, are inverted first, all together.

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
from jaxinv._triangular import diagonal_blocks, even_blocks, substituted, with_unit_diagonal

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
    blocks = even_blocks(n, BLOCK if n < LARGE_FROM else LARGE_BLOCK)
    D = diagonal_blocks(LU, blocks)
    over_L, over_U = triangles(True, with_unit_diagonal(D)), triangles(False, D)
    Y = substituted(LU, over_U, False, blocks, substituted(LU, over_L, True, blocks, P))
    if not with_factors:
        return (Y,)
    swaps = pivots != lax.broadcasted_iota(pivots.dtype, pivots.shape, pivots.ndim - 1)
    return Y, jnp.where(swaps, -1, 1).astype(X.dtype) * jnp.diagonal(LU, axis1=-2, axis2=-1)
