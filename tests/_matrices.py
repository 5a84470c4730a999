"""Hard matrices by name, of any size and float dtype, and exact inverses.

Sources: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., chapter 28, SIAM 2002, for those with
names; the types of LAPACK's tests of general matrices (xDRVGE, xCHKGE), numbered as in its xLATB4, with the singular
values 1, .., 1 / condition in equal ratios.
"""

from fractions import Fraction
from math import gcd, lcm

import numpy as np
from scipy import linalg


class Draw:
    """Where a matrix of the catalogue gets its random numbers from, real or complex as its dtype is."""

    def __init__(self, rng, dtype):
        info = np.finfo(dtype)
        self.rng, self.is_complex = rng, np.dtype(dtype).kind == "c"
        self.eps, self.max, self.small = float(info.eps), float(info.max), float(info.tiny) / float(info.eps) / 4

    def normal(self, n):
        Z = self.rng.standard_normal((n, n))
        return Z + 1j * self.rng.standard_normal((n, n)) if self.is_complex else Z

    def uniform(self, low, high, *shape):
        return self.rng.uniform(low, high, shape)

    def singular_values(self, values):
        n = len(values)
        return (np.linalg.qr(self.normal(n))[0] * values) @ np.linalg.qr(self.normal(n))[0]

    def condition(self, n, kappa):
        return self.singular_values(np.geomspace(1, 1 / kappa, n))

    def phases(self, *shape):
        return np.exp(2j * np.pi * self.rng.uniform(size=shape))


def hilbert_in_integers(n):
    """The Hilbert matrix times the least common multiple of its denominators."""
    return linalg.hilbert(n) * lcm(*range(1, 2 * n))


def _lotkin(n):
    A = linalg.hilbert(n)
    A[0] = 1
    return A


def _kahan(n, angle=1.2):
    s, c = np.sin(angle), np.cos(angle)
    return np.diag(s ** np.arange(n)) @ (np.eye(n) - c * np.triu(np.ones((n, n)), 1))


def _frank(n):
    i, j = np.indices((n, n))
    return np.where(j >= i - 1, n - np.maximum(i, j), 0.0)


def _wilkinson(n):
    return np.diag(np.abs(np.arange(n) - (n - 1) / 2)) + np.eye(n, k=1) + np.eye(n, k=-1)


def _dramadah(n):
    """Zeros and ones, and an inverse of integers that grow like 1.75^n."""
    column = np.resize([1.0, 0.0, 0.0, 1.0], n)
    row = np.r_[1.0, 1.0, 0.0, 1.0, np.zeros(n)][:n]
    return linalg.toeplitz(column, row)


def _gfpp(n):
    """Gaussian elimination with partial pivoting grows its last column to 2^(n - 1)."""
    A = np.tril(-np.ones((n, n)), -1) + np.eye(n)
    A[:, -1] = 1
    return A


def _graded(n, draw, span):
    scale = np.geomspace(1, span, n)
    return scale[:, None] * draw.uniform(0.5, 1.5, n, n) * scale[::-1]


MATRICES = {
    "lapack 1: diagonal": lambda n, draw: np.diag(np.geomspace(1, 0.5, n)),
    "lapack 2: upper": lambda n, draw: np.linalg.qr(draw.condition(n, 2))[1],
    "lapack 3: lower": lambda n, draw: np.linalg.qr(draw.condition(n, 2))[1].T,
    "lapack 4: condition 2": lambda n, draw: draw.condition(n, 2),
    "lapack 8: condition sqrt(0.1/eps)": lambda n, draw: draw.condition(n, np.sqrt(0.1 / draw.eps)),
    "lapack 9: condition 0.1/eps": lambda n, draw: draw.condition(n, 0.1 / draw.eps),
    "lapack 10: near underflow": lambda n, draw: draw.small * draw.condition(n, 2),
    "lapack 11: near overflow": lambda n, draw: draw.condition(n, 2) / draw.small,
    "random": lambda n, draw: draw.normal(n),
    "uniform": lambda n, draw: draw.uniform(0, 1, n, n),
    "diagonal": lambda n, draw: np.diag(draw.uniform(0.5, 2, n)),
    "upper": lambda n, draw: np.triu(draw.uniform(0.5, 1.5, n, n)),
    "lower": lambda n, draw: np.tril(draw.uniform(0.5, 1.5, n, n)),
    "permutation": lambda n, draw: np.eye(n)[draw.rng.permutation(n)],
    "antidiagonal": lambda n, draw: np.eye(n)[::-1] + 0,
    "condition 1": lambda n, draw: draw.condition(n, 1),
    "condition 1e2": lambda n, draw: draw.condition(n, 1e2),
    "condition 1/eps": lambda n, draw: draw.condition(n, 1 / draw.eps),
    "near rank 1": lambda n, draw: draw.singular_values(np.r_[1, np.full(n - 1, draw.eps**0.6)]),
    "one small singular value": lambda n, draw: draw.singular_values(np.r_[np.ones(n - 1), draw.eps**0.6]),
    "graded": lambda n, draw: np.geomspace(1, 1e-3, n)[:, None] * draw.normal(n) * np.geomspace(1, 1e-3, n),
    "graded rows and columns": lambda n, draw: _graded(n, draw, 1e6),
    "badly scaled rows": lambda n, draw: np.geomspace(1e-15, 1e15, n)[:, None] * draw.normal(n),
    "badly scaled columns": lambda n, draw: np.geomspace(1e-15, 1e15, n) * draw.normal(n),
    "huge": lambda n, draw: draw.max**0.78 * draw.normal(n),
    "tiny": lambda n, draw: draw.max**-0.78 * draw.normal(n),
    "hilbert": lambda n, draw: linalg.hilbert(n),
    "hilbert in integers": lambda n, draw: hilbert_in_integers(n),
    "lotkin": lambda n, draw: _lotkin(n),
    "pascal": lambda n, draw: linalg.pascal(n).astype(float),
    "kahan": lambda n, draw: _kahan(n),
    "frank": lambda n, draw: _frank(n),
    "wilkinson": lambda n, draw: _wilkinson(n) if n > 1 else np.eye(1),
    "dramadah": lambda n, draw: _dramadah(n),
    "vandermonde": lambda n, draw: np.vander(np.linspace(-1, 1, n), increasing=True),
    "gfpp": lambda n, draw: _gfpp(n),
}
# Rows or columns of very different size: no LU bounds both residuals.
BADLY_SCALED = [name for name in MATRICES if "graded" in name or "badly scaled" in name]


# What is zero in a singular matrix, whatever the rest is.
SINGULAR = {
    "lapack 5: first column zero": lambda n: np.s_[:, 0],
    "lapack 6: last column zero": lambda n: np.s_[:, -1],
    "lapack 7: last n/2 columns zero": lambda n: np.s_[:, n // 2 :],
    "last row zero": lambda n: np.s_[-1],
    "zero": lambda n: np.s_[:],
}


def batch_of(name, n, batch, rng, dtype):
    """A batch (batch, n, n) of the named matrix, random ones drawn anew for each place.

    Of a complex dtype, what is real has its rows and columns multiplied by random phases.
    """
    draw = Draw(rng, dtype)
    A = np.stack([MATRICES[name](n, draw) for _ in range(batch)])
    if draw.is_complex and not np.iscomplexobj(A):
        A = A * draw.phases(batch, n, 1) * draw.phases(batch, 1, n)
    return A.astype(dtype)


def exact_inverse(A):
    """The inverse of a matrix of floating-point numbers, exact until it is rounded to float64 or complex128.

    Every such number is an integer times a power of two, and elimination without fractions (Bareiss) stays among
    integers. A complex matrix is the real one of twice its size.
    """
    if np.iscomplexobj(A):
        Y = exact_inverse(np.block([[A.real, -A.imag], [A.imag, A.real]]))
        return Y[: len(A), : len(A)] + 1j * Y[len(A) :, : len(A)]
    n = len(A)
    entries = [[Fraction(float(x)) for x in row] for row in A]
    scale = lcm(*(x.denominator for row in entries for x in row))
    scale /= Fraction(gcd(*(int(x * scale) for row in entries for x in row)))
    rows = [[int(x * scale) for x in row] + [int(i == j) for j in range(n)] for i, row in enumerate(entries)]
    previous = 1
    for k in range(n):
        p = next(i for i in range(k, n) if rows[i][k])
        rows[k], rows[p] = rows[p], rows[k]
        pivot_row, pivot = rows[k], rows[k][k]
        for i in range(n):
            if i != k:
                multiple = rows[i][k]
                rows[i] = [(pivot * x - multiple * r) // previous for x, r in zip(rows[i], pivot_row, strict=True)]
        previous = pivot
    return np.array([[float(row[n + j] * scale / row[k]) for j in range(n)] for k, row in enumerate(rows)])
