"""The inverse by LAPACK's LU factorisation, or that of the platform."""

from jax import Array, lax


def lu_inverse(X: Array) -> Array:
    """P X = L U with partial pivoting, then L Z = P and U Y = Z."""
    LU, _, row_of = lax.linalg.lu(X)
    P = (row_of[..., None] == lax.broadcasted_iota(row_of.dtype, X.shape, X.ndim - 1)).astype(X.dtype)
    Z = lax.linalg.triangular_solve(LU, P, left_side=True, lower=True, unit_diagonal=True)
    return lax.linalg.triangular_solve(LU, Z, left_side=True, lower=False)
