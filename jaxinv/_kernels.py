"""Kernels: functions of validated arrays (..., n, n) that know no derivative."""

import jax
import jax.numpy as jnp
from jax import lax

SMALL = 16


def inverse_kernel(X):
    if 0 in X.shape:
        return X
    return _lu_inverse(X) if X.ndim == 2 else lax.map(_lu_inverse, X.reshape(-1, *X.shape[-2:])).reshape(X.shape)


def _lu_inverse(X):
    """LU with partial pivoting, then L Z = P and U Y = Z."""
    n = X.shape[-1]
    LU, _, perm = lax.linalg.lu(X)
    P = (perm[..., None] == lax.broadcasted_iota(perm.dtype, (n, n), 1)).astype(X.dtype)
    Z = lax.linalg.triangular_solve(LU, P, left_side=True, lower=True, unit_diagonal=True)
    return lax.linalg.triangular_solve(LU, Z, left_side=True, lower=False)


def matmul_product(ops, A, B, C, precision):
    A, B, C = (Z.mT if op == "T" else Z for op, Z in zip(ops, (A, B, C), strict=True))
    return jnp.matmul(A, jnp.matmul(B, C, precision=precision), precision=precision)


def product_kernel(A, B, C, *, ops, precision):
    return matmul_product(ops, A, B, C, precision)
