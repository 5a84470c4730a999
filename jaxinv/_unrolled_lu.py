"""The inverse of one small matrix, unrolled into scalar operations.

    P X = L U,    Y = U^-1 L^-1 P

LU with partial pivoting, then one forward and one backward substitution for each column of the permutation P. Written
on scalars (or arrays that act as scalars), without a branch, so that a batch becomes straight vector code. Rows are
exchanged by selects, since a register has no index. Adjugates are cheaper but lose the square of the condition number
from n = 3 on.
"""

from typing import Any

from jaxinv._scalars import index_like, number_like, pivot_size, quotient, reciprocal, select


def lu_inverse_entries(x: list[list]) -> tuple[list[list], list]:
    """The entries of the inverse from the n x n entries `x`, and the n factors of their determinant.

    The inverse has inf or nan where the matrix is singular. The factors are the pivots, the first with the sign of P.
    """
    n = len(x)
    a = [list(row) for row in x]
    one, zero = number_like(a[0][0], 1), number_like(a[0][0], 0)
    index = [index_like(a[0][0], i) for i in range(n)]
    row_of = list(index)  # row i of the factors is row row_of[i] of x
    sign, over_pivot = one, []
    for k in range(n):
        pivot, largest = index[k], pivot_size(a[k][k])
        for i in range(k + 1, n):
            size = pivot_size(a[i][k])
            larger = size > largest
            largest, pivot = select(larger, size, largest), select(larger, index[i], pivot)
        sign = select(pivot == index[k], sign, -sign)
        for i in range(k + 1, n):
            chosen = pivot == index[i]
            for j in range(n):
                a[k][j], a[i][j] = _swap_if(chosen, a[k][j], a[i][j])
            row_of[k], row_of[i] = _swap_if(chosen, row_of[k], row_of[i])
        over_pivot.append(reciprocal(a[k][k]))
        for i in range(k + 1, n):
            a[i][k] = quotient(a[i][k], a[k][k], over_pivot[k])
            for j in range(k + 1, n):
                a[i][j] = a[i][j] - a[i][k] * a[k][j]
    y: list[list[Any]] = [[zero] * n for _ in range(n)]
    for j in range(n):
        z: list = []
        for i in range(n):
            v = select(row_of[i] == index[j], one, zero)
            for k in range(i):
                v = v - a[i][k] * z[k]
            z.append(v)
        for i in reversed(range(n)):
            for k in range(i + 1, n):
                z[i] = z[i] - a[i][k] * y[k][j]
            y[i][j] = z[i] * over_pivot[i]
    return y, [sign * a[0][0], *(a[k][k] for k in range(1, n))]


def _swap_if(swap, p, q):
    return select(swap, q, p), select(swap, p, q)
