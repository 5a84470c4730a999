"""Hard matrices by name: functions of n, and of a generator where they are random, that return float64 (n, n)."""

import numpy as np
from scipy import linalg


def _prescribed(n, rng, singular_values):
    Q1, Q2 = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
    return (Q1 * singular_values) @ Q2


def _condition(n, rng, kappa):
    return _prescribed(n, rng, np.geomspace(1, 1 / kappa, n))


def _kahan(n, angle=1.2):
    s, c = np.sin(angle), np.cos(angle)
    return np.diag(s ** np.arange(n)) @ (np.eye(n) - c * np.triu(np.ones((n, n)), 1))


def _frank(n):
    i, j = np.indices((n, n))
    return np.where(j >= i - 1, n - np.maximum(i, j), 0.0)


def _growth(n):
    """Gaussian elimination with partial pivoting grows its last column to 2^(n - 1)."""
    A = np.tril(-np.ones((n, n)), -1) + np.eye(n)
    A[:, -1] = 1
    return A


def _graded(n, rng, span):
    scale = np.geomspace(1, span, n)
    return scale[:, None] * rng.uniform(0.5, 1.5, (n, n)) * scale[::-1]


EPS = np.finfo(np.float32).eps
MATRICES = {
    "random": lambda n, rng: rng.standard_normal((n, n)),
    "uniform": lambda n, rng: rng.uniform(size=(n, n)),
    "diagonal": lambda n, rng: np.diag(rng.uniform(0.5, 2, n)),
    "upper": lambda n, rng: np.triu(rng.uniform(0.5, 1.5, (n, n))),
    "lower": lambda n, rng: np.tril(rng.uniform(0.5, 1.5, (n, n))),
    "permutation": lambda n, rng: np.eye(n)[rng.permutation(n)],
    "antidiagonal": lambda n, rng: np.eye(n)[::-1] + 0,
    "condition 1e2": lambda n, rng: _condition(n, rng, 1e2),
    "condition sqrt(0.1/eps)": lambda n, rng: _condition(n, rng, np.sqrt(0.1 / EPS)),
    "condition 0.1/eps": lambda n, rng: _condition(n, rng, 0.1 / EPS),
    "near rank 1": lambda n, rng: _prescribed(n, rng, np.r_[1, np.full(n - 1, 1e-4)]),
    "one small singular value": lambda n, rng: _prescribed(n, rng, np.r_[np.ones(n - 1), 1e-4]),
    "graded rows and columns": lambda n, rng: _graded(n, rng, 1e6),
    "near overflow": lambda n, rng: 1e30 * rng.standard_normal((n, n)),
    "near underflow": lambda n, rng: 1e-30 * rng.standard_normal((n, n)),
    "badly scaled rows": lambda n, rng: np.geomspace(1e-15, 1e15, n)[:, None] * rng.standard_normal((n, n)),
    "badly scaled columns": lambda n, rng: np.geomspace(1e-15, 1e15, n) * rng.standard_normal((n, n)),
    "hilbert": lambda n, rng: linalg.hilbert(n),
    "pascal": lambda n, rng: linalg.pascal(n).astype(float),
    "kahan": lambda n, rng: _kahan(n),
    "frank": lambda n, rng: _frank(n),
    "wilkinson": lambda n, rng: (
        np.diag(np.abs(np.arange(n) - (n - 1) / 2)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    ),
    "pivot growth": lambda n, rng: _growth(n),
}


def batch_of(name, n, batch, rng):
    """A batch (batch, n, n) of the named matrix, random ones drawn anew for each place."""
    return np.stack([MATRICES[name](n, rng) for _ in range(batch)])
