"""The inverse of one small matrix, unrolled into scalar operations.

    P X = L U,    Y = U^-1 L^-1 P

LU with partial pivoting, then one forward and one backward substitution for each column of the permutation P. Written
on scalars (or arrays that act as scalars), without a branch, so that a batch becomes straight vector code. Rows are
exchanged by selects, since a register has no index. Adjugates are cheaper but lose the square of the condition number
from n = 3 on.
"""

import jax.numpy as jnp
from jax import lax


def lu_inverse_entries(x: list[list]) -> tuple[list[list], list]:
    """The entries of the inverse from the n x n entries `x`, and the n factors of their determinant.

    The inverse has inf or nan where the matrix is singular. The factors are the pivots, the first with the sign of P.
    """
    n = len(x)
    a = [list(row) for row in x]
    one, zero = lax.full_like(a[0][0], 1), lax.full_like(a[0][0], 0)
    row_of = [lax.full_like(a[0][0], i, jnp.int32) for i in range(n)]  # row i of the factors is row row_of[i] of x
    sign, reciprocal = one, []
    for k in range(n):
        pivot, largest = lax.full_like(row_of[0], k), pivot_size(a[k][k])
        for i in range(k + 1, n):
            size = pivot_size(a[i][k])
            larger = size > largest
            largest, pivot = lax.select(larger, size, largest), lax.select(larger, lax.full_like(pivot, i), pivot)
        sign = lax.select(pivot == lax.full_like(pivot, k), sign, -sign)
        for i in range(k + 1, n):
            chosen = pivot == lax.full_like(pivot, i)
            for j in range(n):
                a[k][j], a[i][j] = _swap_if(chosen, a[k][j], a[i][j])
            row_of[k], row_of[i] = _swap_if(chosen, row_of[k], row_of[i])
        for i in range(k + 1, n):
            a[i][k] = a[i][k] / a[k][k]
            for j in range(k + 1, n):
                a[i][j] = a[i][j] - a[i][k] * a[k][j]
        reciprocal.append(one / a[k][k])
    y = [[zero] * n for _ in range(n)]
    for j in range(n):
        z: list = []
        for i in range(n):
            v = lax.select(row_of[i] == lax.full_like(row_of[i], j), one, zero)
            for k in range(i):
                v = v - a[i][k] * z[k]
            z.append(v)
        for i in reversed(range(n)):
            for k in range(i + 1, n):
                z[i] = z[i] - a[i][k] * y[k][j]
            y[i][j] = z[i] * reciprocal[i]
    return y, [sign * a[0][0], *(a[k][k] for k in range(1, n))]


def _swap_if(swap, p, q):
    return lax.select(swap, q, p), lax.select(swap, p, q)


def pivot_size(z):
    """The size that chooses a pivot: |z|, for complex numbers |Re z| + |Im z| as in LAPACK."""
    return lax.abs(lax.real(z)) + lax.abs(lax.imag(z)) if jnp.iscomplexobj(z) else lax.abs(z)
