"""The inverses of one small triangular or positive definite matrix, unrolled into scalar operations.

As the LU of general matrices is, but on one triangle, and without pivots: neither of the two needs them.

    triangular             substitution, row by row: L Y = I
    positive definite      X = L D L^H with a unit triangle L, Cholesky without roots; M = L^-1; Y = M^H D^-1 M

Matrices come as the rows of their lower triangle.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._scalars import Pair, reciprocal


def triangular_entries(a: list[list]) -> list[list]:
    """The rows of the inverse of a lower triangular matrix: with inf or nan where that is singular."""
    y: list[list] = []
    for i, row in enumerate(a):
        over_diagonal = reciprocal(row[i])
        left = [_dot(row[j:i], [y[k][j] for k in range(j, i)]) for j in range(i)]
        y.append([*(-(s * over_diagonal) for s in left), over_diagonal])
    return y


def positive_definite_entries(x: list[list]) -> tuple[list[list], list]:
    """The rows of the lower triangle of the inverse of a Hermitian matrix, and the n factors of its determinant.

    All are nan where the matrix is not positive definite.
    """
    m, r, factors = _unit_factor(x)
    n = len(x)
    w = [[conjugate(z) * r[k] for z in row] for k, row in enumerate(m)]  # M^H D^-1 below its diagonal
    y = []
    for i in range(n):
        below = range(i + 1, n)
        column = [w[k][i] for k in below]
        row = [_dot(column, [m[k][j] for k in below], start=r[i] * m[i][j]) for j in range(i)]
        y.append([*row, _as(r[i], _real(_dot(column, [m[k][i] for k in below], start=r[i])))])
    return y, factors


def inverse_factor_entries(x: list[list]) -> list[list]:
    """The rows of D^-1/2 M, the inverse of the Cholesky factor of a Hermitian matrix; nan if not positive definite."""
    m, r, _ = _unit_factor(x)
    roots = [_as(z, lax.sqrt(_real(z))) for z in r]
    return [[*(root * z for z in row), root] for row, root in zip(m, roots, strict=True)]


def _unit_factor(x):
    """M below its diagonal, the diagonal of D^-1, and that of D."""
    n = len(x)
    a = [list(row) for row in x]
    one, nan = lax.full_like(_real(a[0][0]), 1), lax.full_like(_real(a[0][0]), jnp.nan)
    factors, r = [], []
    for k in range(n):
        d = _real(a[k][k])
        d = lax.select(d > lax.full_like(d, 0), d, nan)
        factors.append(_as(a[k][k], d))
        r.append(_as(a[k][k], one / d))
        column = [conjugate(a[i][k]) for i in range(k, n)]
        for i in range(k + 1, n):
            a[i][k] = a[i][k] * r[k]
            for j in range(k + 1, i + 1):
                a[i][j] = a[i][j] - a[i][k] * column[j - k]
    m: list[list] = []
    for i in range(n):
        left = [_dot(a[i][j + 1 : i], [m[k][j] for k in range(j + 1, i)], start=a[i][j]) for j in range(i)]
        m.append([-s for s in left])
    return m, r, factors


def _dot(p, q, start=None):
    """The sum of the products."""
    for u, v in zip(p, q, strict=True):
        start = u * v if start is None else start + u * v
    return start


def conjugate(z: Any) -> Any:
    """The complex conjugate of a scalar of any kind."""
    if isinstance(z, Pair):
        return Pair(z.re, -z.im)
    return lax.conj(z) if jnp.iscomplexobj(z) else z


def _real(z: Any) -> Array:
    if isinstance(z, Pair):
        return z.re
    return lax.real(z) if jnp.iscomplexobj(z) else z


def _as(z, real):
    """`real` in the type of z."""
    if isinstance(z, Pair):
        return Pair(real, lax.full_like(real, 0))
    return lax.complex(real, lax.full_like(real, 0)) if jnp.iscomplexobj(z) else real
