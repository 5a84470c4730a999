"""The inverses of larger triangular matrices: small blocks on the diagonal first, then by matrix products.

    [A  0]^-1    [    A^-1           0  ]
    [C  B]     = [-B^-1 C A^-1     B^-1 ]

The blocks on the diagonal are inverted together, as one batch, and joined two by two, all of a level as one batch
again, with twice the size at each level.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 14.2.2, SIAM 2002,
https://doi.org/10.1137/1.9780898718027
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax


def blocked_triangular(inverses: Callable[[Array], Array], largest: int, lower: bool, X: Array) -> Array:
    """The inverse of each triangular matrix of X, shape (..., n, n).

    `inverses` gives those of the blocks on the diagonal, of up to `largest` rows.
    """
    n = X.shape[-1]
    levels = max(0, (-(-n // largest) - 1).bit_length())
    size = -(-n // 2**levels)
    X = padded(X, size * 2**levels)
    Y = inverses(_blocks(X, size, 0, 0, size))
    for _ in range(levels):
        C = _blocks(X, size, size * lower, size * (not lower), 2 * size)
        Y = _joined(Y[..., 0::2, :, :], C, Y[..., 1::2, :, :], lower)
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


def _joined(A, C, B, lower):
    """The inverse of [A^-1 0; C B^-1], or of [A^-1 C; 0 B^-1]."""
    D, Z = -(matmul(B, matmul(C, A)) if lower else matmul(A, matmul(C, B))), jnp.zeros_like(C)
    return jnp.block([[A, Z], [D, B]] if lower else [[A, D], [Z, B]])


def solved_triangular(lower: bool, X: Array) -> Array:
    """The inverse of each triangular matrix of X by LAPACK, or the library of the platform."""
    identity = jnp.zeros_like(X) + jnp.eye(X.shape[-1], dtype=X.dtype)[(None,) * (X.ndim - 2)]
    return lax.linalg.triangular_solve(X, identity, left_side=True, lower=lower)
