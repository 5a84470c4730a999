"""The inverse of one small matrix, unrolled into scalar operations.

    P X = L U,    Y = U^-1 L^-1 P

LU with partial pivoting, then one forward and one backward substitution for each column of the permutation P. Written
on scalars (or arrays that act as scalars), without a branch, so that a batch becomes straight vector code. Rows are
exchanged by selects, since a register has no index. Adjugates are cheaper but lose the square of the condition number
from n = 3 on.
"""

from typing import Any, NamedTuple

from jax import Array, lax

from jaxinv._scalars import index_like, number_like, pivot_size, quotient, reciprocal, select


class _Factors(NamedTuple):
    """P X = L U of one matrix."""

    rows: list[list]  # U, and below it L without its diagonal
    over_pivot: list  # 1 / U_kk
    row_of: list  # row i of the factors is row row_of[i] of X
    sign: Any  # of P


def lu_inverse_entries(x: list[list]) -> tuple[list[list], list]:
    """The entries of the inverse from the n x n entries `x`, and the n factors of their determinant.

    The inverse has inf or nan where the matrix is singular. The factors are the pivots, the first with the sign of P.
    """
    factors = _factors(x)
    columns = [_solution(factors, index_like(x[0][0], j)) for j in range(len(x))]
    return [list(row) for row in zip(*columns, strict=True)], _factors_of_determinant(factors)


def lu_inverse_row(x: list[list], i: Array) -> list:
    """Row i of the inverse: column i of the inverse of the transposed matrix."""
    return _solution(_factors([list(column) for column in zip(*x, strict=True)]), i)


def lu_determinant_factors(x: list[list]) -> list:
    """The n factors of the determinant, of the factorisation of `lu_inverse_row`."""
    return _factors_of_determinant(_factors([list(column) for column in zip(*x, strict=True)]))


def _factors_of_determinant(factors):
    pivots = [row[k] for k, row in enumerate(factors.rows)]
    return [factors.sign * pivots[0], *pivots[1:]]


def _factors(x):
    n = len(x)
    a = [list(row) for row in x]
    index = [index_like(a[0][0], i) for i in range(n)]
    row_of = [[i] for i in index]
    sign, over_pivot = number_like(a[0][0], 1), []
    for k in range(n):
        p = row_of_largest(a, k)
        sign = select(p == index[k], sign, -sign)
        exchange_rows(a, k, p)
        exchange_rows(row_of, k, p)
        over_pivot.append(reciprocal(a[k][k]))
        for i in range(k + 1, n):
            a[i][k] = quotient(a[i][k], a[k][k], over_pivot[k])
            for j in range(k + 1, n):
                a[i][j] = a[i][j] - a[i][k] * a[k][j]
    return _Factors(a, over_pivot, [i for (i,) in row_of], sign)


def row_of_largest(a: list[list], k: int) -> Array:
    """The row, from k on, of the largest entry of column k."""
    row, largest = index_like(a[k][k], k), pivot_size(a[k][k])
    for i in range(k + 1, len(a)):
        size = pivot_size(a[i][k])
        larger = size > largest
        largest, row = select(larger, size, largest), select(larger, index_like(a[i][k], i), row)
    return row


def exchange_rows(a: list[list], k: int, p: Array) -> None:
    """Rows k and p of `a`, p not before k, change places."""
    for i in range(k + 1, len(a)):
        is_p = p == lax.full_like(p, i)
        for j, (upper, lower) in enumerate(zip(a[k], a[i], strict=True)):
            a[k][j], a[i][j] = select(is_p, lower, upper), select(is_p, upper, lower)


def _solution(factors, j):
    """Column j of the inverse, from L U y = P e_j."""
    a, over_pivot, row_of, _ = factors
    n = len(a)
    one, zero = number_like(a[0][0], 1), number_like(a[0][0], 0)
    z: list = []
    for i in range(n):
        v = select(row_of[i] == j, one, zero)
        for k in range(i):
            v = v - a[i][k] * z[k]
        z.append(v)
    y: list[Any] = [zero] * n
    for i in reversed(range(n)):
        for k in range(i + 1, n):
            z[i] = z[i] - a[i][k] * y[k]
        y[i] = z[i] * over_pivot[i]
    return y
