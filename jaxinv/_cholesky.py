"""The inverses of larger positive definite matrices: X = L L^H by Cholesky, N = L^-H, Y = N N^H.

Small blocks are factorised in a fused loop or by a library; the rest is matrix products, by halves:

    X = [P  Q^H]    M = Q N(P), which stands below the diagonal of L; the rest of X is S = R - M M^H
        [Q  R  ]

    N = [N(P)  -V N(S)]    Y = [Y(P) + V Y(S) V^H  -V Y(S)]    with V = N(P) M^H
        [0       N(S) ]        [(-V Y(S))^H          Y(S) ]

M by the inverse of a triangle in place of substitution has a larger bound for its error; the errors found on hard
matrices are those of LAPACK's potrf and potri (`tests/test_structured_kernels.py`).

Source: J. J. Du Croz and N. J. Higham, "Stability of methods for matrix inversion", IMA J. Numer. Anal. 12, 1992,
https://doi.org/10.1093/imanum/12.1.1
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._lapack import over_batch, triangular_inverse_in_one_thread
from jaxinv._structure import projection
from jaxinv._triangular import matmul, solved_triangular


def cholesky_inverse(
    inverse_factor: Callable[[Array], Array], largest: int | None, X: Array, with_factors: bool = False
) -> tuple[Array, ...]:
    """The inverse of each positive definite matrix of X, shape (..., n, n), exactly Hermitian; nan for any other.

    `inverse_factor` gives N of blocks of up to `largest` rows, None for any number. If asked for, n factors of the
    determinant too.
    """

    def inverse(X, N_is_needed):
        """Y, N and the diagonal of N."""
        n = X.shape[-1]
        if largest is None or n <= largest:
            N = inverse_factor(X)
            return _hermitian(N, N), N, jnp.diagonal(N, axis1=-2, axis2=-1)
        h = n // 2
        Y1, N1, d1 = inverse(X[..., :h, :h], True)
        M = matmul(X[..., h:, :h], N1)
        Y2, N2, d2 = inverse(X[..., h:, h:] - matmul(M, _adjoint(M)), N_is_needed)
        V = matmul(N1, _adjoint(M))
        Y12 = -matmul(V, Y2)
        Y = jnp.block([[Y1 - _hermitian(Y12, V), Y12], [_adjoint(Y12), Y2]])
        whole = jnp.block([[N1, -matmul(V, N2)], [jnp.zeros_like(M), N2]]) if N_is_needed else None
        return Y, whole, jnp.concatenate([d1, d2], axis=-1)

    Y, _, diagonal = inverse(X, False)
    return (Y, 1 / diagonal**2)[: 1 + with_factors]


def library_inverse_factor(X: Array) -> Array:
    """N by LAPACK, or the library of the platform."""
    return over_batch(partial(_inverse_factor, partial(solved_triangular, False)), X)


def inverse_factor_in_one_thread(X: Array) -> Array:
    """N by LAPACK in the thread that calls it, of up to 192 rows."""
    return over_batch(partial(_inverse_factor, partial(triangular_inverse_in_one_thread, lower=False)), X)


def _inverse_factor(inverse_of_upper, X):
    return inverse_of_upper(_adjoint(lax.linalg.cholesky(X, symmetrize_input=False)))


def _hermitian(A, B):
    """A B^H, which is Hermitian up to rounding, without rounding."""
    return projection(matmul(A, _adjoint(B)), "hermitian")


def _adjoint(A):
    return A.mT.conj()
