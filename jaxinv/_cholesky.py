"""The inverses of larger positive definite matrices: X = L L^H, N = (L^H)^-1, Y = N N^H.

Large matrices are factorised by blocks, so that most of the work is matrix products:

    [P  Q^H]   [L11    ] [L11^H  L21^H]      L21 = Q L11^-H,    L22 L22^H = R - L21 L21^H
    [Q  R  ] = [L21 L22] [       L22^H]

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 10.1 and 14.3, SIAM 2002,
https://doi.org/10.1137/1.9780898718027
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._lapack import over_batch
from jaxinv._structure import projection

FACTORISED_UP_TO = 128  # rows, by one call of LAPACK
SPLIT_FROM = 256  # rows of N, whose zeros are then left out of the product


def cholesky_inverse(
    triangular: Callable[[Array], Array], X: Array, with_factors: bool = False
) -> tuple[Array, ...]:
    """The inverse of each positive definite matrix of X, shape (..., n, n), exactly Hermitian; nan for any other.

    `triangular` gives the inverses of upper triangular matrices. If asked for, n factors of the determinant too.
    """
    L = over_batch(_cholesky, X)
    Y = projection(_outer(triangular(_adjoint(L))), "positive definite")
    return (Y, jnp.diagonal(L, axis1=-2, axis2=-1) ** 2)[: 1 + with_factors]


def _cholesky(X):
    n = X.shape[-1]
    if not isinstance(n, int) or n <= FACTORISED_UP_TO:
        return lax.linalg.cholesky(X, symmetrize_input=False)
    h = n // 2
    L11 = _cholesky(X[..., :h, :h])
    L21 = lax.linalg.triangular_solve(L11, X[..., h:, :h], lower=True, transpose_a=True, conjugate_a=True)
    L22 = _cholesky(X[..., h:, h:] - _times_adjoint(L21, L21))
    return jnp.block([[L11, jnp.zeros_like(_adjoint(L21))], [L21, L22]])


def _outer(N):
    """N N^H of upper triangular matrices."""
    n = N.shape[-1]
    if not isinstance(n, int) or n < SPLIT_FROM:
        return _times_adjoint(N, N)
    h = n // 2
    A, C, B = N[..., :h, :h], N[..., :h, h:], N[..., h:, h:]
    Y12 = _times_adjoint(C, B)
    return jnp.block([[_outer(A) + _times_adjoint(C, C), Y12], [_adjoint(Y12), _outer(B)]])


def _times_adjoint(A, B):
    return jnp.matmul(A, _adjoint(B), precision=lax.Precision.HIGHEST)


def _adjoint(A):
    return A.mT.conj()
