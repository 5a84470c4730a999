"""Larger triangular matrices, inverted and solved with: small blocks on the diagonal first, then by matrix products.

    [A  0]^-1    [    A^-1           0  ]
    [C  B]     = [-B^-1 C A^-1     B^-1 ]

The blocks on the diagonal are inverted together, as one batch, and joined two by two, all of a level as one batch
again, with twice the size at each level.

And T Y = B by substitution in halves, given the inverses of the blocks on the diagonal of T:

    [A  0] [Y1]   [B1]      Y1 = A^-1 B1
    [C  D] [Y2] = [B2]      Y2 = D^-1 (B2 - C Y1)      and alike, from below, for upper triangles

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 8.4 and 14.2.2, SIAM 2002,
https://doi.org/10.1137/1.9780898718027
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array, lax


def blocked_triangular(
    inverses: Callable[[Array], Array],
    largest: int,
    lower: bool,
    X: Array,
    product: Callable[[Array, Array], Array],
) -> Array:
    """The inverse of each triangular matrix of X, shape (..., n, n).

    `inverses` gives those of the blocks on the diagonal, of up to `largest` rows; `product` multiplies blocks.
    """
    n = X.shape[-1]
    levels = max(0, (-(-n // largest) - 1).bit_length())
    size = -(-n // 2**levels)
    X = padded(X, size * 2**levels)
    Y = inverses(_blocks(X, size, 0, 0, size))
    for _ in range(levels):
        C = _blocks(X, size, size * lower, size * (not lower), 2 * size)
        Y = _joined(product, Y[..., 0::2, :, :], C, Y[..., 1::2, :, :], lower)
        size *= 2
    return Y[..., 0, :n, :n]


def matmul(A: Array, B: Array) -> Array:
    """A B at full precision."""
    return jnp.matmul(A, B, precision=lax.Precision.HIGHEST)


def padded(X: Array, size: int) -> Array:
    """diag(X, I), of `size` rows: it has the inverse diag(Y, I)."""
    n = X.shape[-1]
    if size == n:
        return X
    identity = jnp.diag(jnp.arange(size) >= n).astype(X.dtype)
    X = jnp.pad(X, (*((0, 0),) * (X.ndim - 2), (0, size - n), (0, size - n)))
    return X + identity[(None,) * (X.ndim - 2)]


def _blocks(X, size, row, column, step):
    """The blocks of X from the one at (row, column) on, each `step` further down the diagonal; shape (..., k, s, s)."""
    starts = range(0, X.shape[-1], step)
    blocks = [X[..., row + k : row + k + size, column + k : column + k + size] for k in starts]
    return jnp.stack(blocks, axis=-3)


def _joined(product, A, C, B, lower):
    """The inverse of [A^-1 0; C B^-1], or of [A^-1 C; 0 B^-1]."""
    D, Z = -(product(B, product(C, A)) if lower else product(A, product(C, B))), jnp.zeros_like(C)
    return jnp.block([[A, Z], [D, B]] if lower else [[A, D], [Z, B]])


def solved_triangular(lower: bool, X: Array) -> Array:
    """The inverse of each triangular matrix of X by LAPACK, or the library of the platform."""
    identity = jnp.zeros_like(X) + jnp.eye(X.shape[-1], dtype=X.dtype)[(None,) * (X.ndim - 2)]
    return lax.linalg.triangular_solve(X, identity, left_side=True, lower=lower)


def even_blocks(n: int, largest: int, multiple: int = 1) -> list[slice]:
    """The rows of the blocks on a diagonal, a `multiple` in each, alike but for the last one."""
    size = -(-n // -(-n // largest))
    size += -size % multiple
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def diagonal_blocks(T: Array, blocks: Sequence[slice]) -> Array:
    """The blocks on the diagonal of T, shape (..., k, size, size), the last one as diag(D, I)."""
    size = blocks[0].stop
    return jnp.stack([padded(T[..., block, block], size) for block in blocks], axis=-3)


def with_unit_diagonal(T: Array) -> Array:
    """T with ones on the diagonal."""
    return jnp.where(jnp.eye(T.shape[-1], dtype=bool)[(None,) * (T.ndim - 2)], 1, T)


def substituted(T: Array, over: Array, lower: bool, blocks: Sequence[slice], B: Array) -> Array:
    """T^-1 B for the triangle of T in the rows of `blocks`, with the inverses `over` of these on the diagonal."""
    if len(blocks) == 1:
        (block,) = blocks
        rows = block.stop - block.start
        return matmul(over[..., 0, :rows, :rows], B)
    middle = len(blocks) // 2
    upper_part, lower_part = blocks[:middle], blocks[middle:]
    over_upper, over_lower = over[..., :middle, :, :], over[..., middle:, :, :]
    h = lower_part[0].start - upper_part[0].start
    above, below = B[..., :h, :], B[..., h:, :]
    if lower:
        above = substituted(T, over_upper, lower, upper_part, above)
        rest = below - matmul(_between(T, lower_part, upper_part), above)
        below = substituted(T, over_lower, lower, lower_part, rest)
    else:
        below = substituted(T, over_lower, lower, lower_part, below)
        rest = above - matmul(_between(T, upper_part, lower_part), below)
        above = substituted(T, over_upper, lower, upper_part, rest)
    return jnp.concatenate([above, below], axis=-2)


def _between(T, rows, columns):
    return T[..., rows[0].start : rows[-1].stop, columns[0].start : columns[-1].stop]
