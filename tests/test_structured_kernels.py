"""The kernels of structured matrices on hard matrices, against float64 and against LAPACK's potri and trtri."""

from functools import partial

import jax
import numpy as np
import pytest
from _accuracy import lapack_ratios, relative_error
from _limits import MEASURED
from _matrices import MATRICES
from scipy import linalg
from scipy.linalg import lapack

from jaxinv import _kernels
from jaxinv._structured_kernels import FUSED_UP_TO, STRUCTURED_KERNELS, structured_kernel_name

EPS = np.finfo(np.float32).eps
BATCH = 64
# Sizes of each kernel: its ends, and where blocks do not fit n.
FORMS = {
    "elementwise": (1, 2, 8),
    "fused": (2, 5, 12),
    "fused blocks": (13, 23, 50),
    "elementwise blocks": (9, 21),
    "library": (9, 64),
    "library blocks": (70,),
    "single-thread blocks": (70,),
    "small library blocks": (25, 50),
}
TRIANGULAR = [
    (f"{form} {side} triangular", n) for form, sizes in FORMS.items() for n in sizes for side in ("lower", "upper")
    if not form.startswith("small")
]  # fmt: skip
DEFINITE = [(f"{form} positive definite", n) for form, sizes in FORMS.items() for n in sizes]
DEFINITE.remove(("fused blocks positive definite", 50))
# For time, one side of the blocks at each of the larger sizes.
LONG = [(kernel, n) for kernel, n in TRIANGULAR if n > 20 and "upper" in kernel]


# Where the error is more than twice that of LAPACK; this kernel is not used on CPU.
ABOVE_TWICE = {("elementwise blocks lower triangular", 9, "pascal"): 2.5}


def _definite(n, rng, kappa):
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (Q * np.geomspace(1, 1 / kappa, n)) @ Q.T


def _scaled(n, rng, span):
    d = np.geomspace(1, span, n)
    return d[:, None] * (_definite(n, rng, 10) + np.eye(n)) * d


HARD_DEFINITE = {
    "diagonal": lambda n, rng: np.diag(rng.uniform(0.5, 2, n)),
    "Wishart": lambda n, rng: (lambda Z: Z @ Z.T / n)(rng.standard_normal((n, 2 * n))),
    "condition 1e2": lambda n, rng: _definite(n, rng, 1e2),
    "condition sqrt(0.1/eps)": lambda n, rng: _definite(n, rng, np.sqrt(0.1 / EPS)),
    "condition 0.01/eps": lambda n, rng: _definite(n, rng, 0.01 / EPS),
    "one small eigenvalue": lambda n, rng: np.eye(n) - (1 - 1e-4) * np.ones((n, n)) / n,
    "hilbert": lambda n, rng: linalg.hilbert(n),
    "pascal": lambda n, rng: linalg.pascal(n).astype(float),
    "minij": lambda n, rng: 1.0 + np.minimum(*np.indices((n, n))),
    "lehmer": lambda n, rng: (lambda i, j: (1 + np.minimum(i, j)) / (1.0 + np.maximum(i, j)))(*np.indices((n, n))),
    "wilkinson": lambda n, rng: MATRICES["wilkinson"](n, rng) + 1.2 * np.eye(n),
    "second difference": lambda n, rng: 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1),
    "scaled up": lambda n, rng: _scaled(n, rng, 1e6),
    "scaled down": lambda n, rng: _scaled(n, rng, 1e-6),
    "near overflow": lambda n, rng: 1e30 * (_definite(n, rng, 10)),
    "near underflow": lambda n, rng: 1e-30 * (_definite(n, rng, 10)),
}
HARD_TRIANGULAR = {
    "diagonal": lambda n, rng: np.diag(rng.uniform(0.5, 2, n)),
    "uniform": lambda n, rng: np.triu(rng.uniform(0.5, 1.5, (n, n))),
    "random": lambda n, rng: np.triu(rng.standard_normal((n, n))),
    "factor": lambda n, rng: np.linalg.qr(rng.standard_normal((n, n)))[1],
    "factor of condition 1e4": lambda n, rng: np.linalg.cholesky(_definite(n, rng, 1e8)).T,
    "kahan": lambda n, rng: MATRICES["kahan"](n, rng),
    "pascal": lambda n, rng: linalg.pascal(n, kind="upper").astype(float),
    "growth": lambda n, rng: np.eye(n) - np.triu(np.ones((n, n)), 1),
    "graded": lambda n, rng: np.triu(rng.uniform(0.5, 1.5, (n, n))) * np.geomspace(1, 1e6, n)[:, None],
    "graded down": lambda n, rng: np.triu(rng.uniform(0.5, 1.5, (n, n))) * np.geomspace(1, 1e-6, n)[:, None],
    "near overflow": lambda n, rng: 1e30 * np.linalg.qr(rng.standard_normal((n, n)))[1],
    "near underflow": lambda n, rng: 1e-30 * np.linalg.qr(rng.standard_normal((n, n)))[1],
}


def inverse(kernel, X):
    return computed(kernel, X)[0]


def computed(kernel, X, with_factors=False):
    """By a kernel of the CPU there, also where JAX has a GPU."""
    with jax.default_device(None if kernel.startswith("elementwise") else jax.devices("cpu")[0]):
        return compiled(kernel, with_factors, X)


@partial(jax.jit, static_argnums=(0, 1))
def compiled(kernel, with_factors, X):
    return _kernels.KERNELS[kernel](X, with_factors)


def hard(kernel, n, rng, dtype=np.float32):
    """Name and batch of each hard matrix of a kernel's structure that the dtype can invert; rows scaled at random."""
    batch = BATCH if n < 64 else 16
    definite = "positive" in kernel
    for name, make in (HARD_DEFINITE if definite else HARD_TRIANGULAR).items():
        A = np.stack([make(n, rng) for _ in range(batch)])
        d = rng.uniform(0.7, 1.4, (batch, n, 1))
        if np.dtype(dtype).kind == "c":
            d = d * np.exp(1j * rng.uniform(0, 2 * np.pi, d.shape))
        A = d * A * (d.conj().swapaxes(-1, -2) if definite else 1)
        A = A.swapaxes(-1, -2) if "lower" in kernel else A
        if np.abs(A).max() > np.finfo(dtype).max:
            continue
        A = A.astype(dtype)
        if definite:
            A = (A + A.conj().swapaxes(-1, -2)) / 2
        limit = 0.01 / np.finfo(dtype).eps
        if name not in ("near overflow", "near underflow") and "scaled" not in name:
            A = A[np.linalg.cond(A.astype(np.complex128), 1) < min(limit, 1e14)]
        if len(A) == batch:
            yield name, A


def by_lapack(A, definite, lower):
    if definite:
        Y = lapack.spotri(lapack.spotrf(A, lower=1)[0], lower=1)[0]
        return np.tril(Y) + np.tril(Y, -1).T
    return lapack.strtri(A, lower=int(lower))[0]


@pytest.mark.parametrize(
    ("kernel", "n"),
    [pytest.param(*case, marks=[pytest.mark.long] if case in LONG else []) for case in TRIANGULAR + DEFINITE],
)
def test_ratio_below_30_and_forward_error_within_twice_lapacks(kernel, n):
    rng = np.random.default_rng(n)
    compared = 0
    for name, A in hard(kernel, n, rng):
        compared += 1
        definite, lower = "positive" in kernel, "lower" in kernel
        Y = np.asarray(inverse(kernel, A))
        assert np.isfinite(Y).all(), name
        left, right = lapack_ratios(A, Y)
        assert min(left.max(), right.max()) <= 30, (name, left.max(), right.max())
        exact = np.linalg.inv(A.astype(np.float64))
        ours = relative_error(Y.astype(np.float64), exact)
        theirs = relative_error(np.stack([by_lapack(M, definite, lower) for M in A]), exact)
        for quantile in (0.5, 0.9):
            a, b = np.quantile(ours, quantile), np.quantile(theirs, quantile)
            assert a <= ABOVE_TWICE.get((kernel, n, name), 2) * b + 4 * EPS, (name, a, b)
    assert compared >= (7 if n < 30 else 3)  # of larger triangles, float32 inverts few


IN_OTHER_DTYPES = [
    *(("fused positive definite", 4), ("fused blocks positive definite", 11), ("elementwise positive definite", 3)),
    *(("fused upper triangular", 5), ("fused blocks lower triangular", 20)),
]
LARGE_IN_OTHER_DTYPES = [
    ("fused positive definite", 5),
    *(("library blocks positive definite", 70), ("library blocks upper triangular", 70)),
    *(("single-thread blocks positive definite", 70), ("single-thread blocks lower triangular", 70)),
]


LATER = [pytest.param(dtype, marks=pytest.mark.later) for dtype in (np.float64, np.complex64)]


@pytest.mark.parametrize("dtype", [*LATER, np.complex128])
@pytest.mark.parametrize(
    ("kernel", "n"),
    [*IN_OTHER_DTYPES, *(pytest.param(*case, marks=pytest.mark.long) for case in LARGE_IN_OTHER_DTYPES)],
)
def test_ratio_below_30_in_other_dtypes(kernel, n, dtype):
    rng = np.random.default_rng(n)
    for name, A in hard(kernel, n, rng, dtype):
        Y = np.asarray(inverse(kernel, A))
        left, right = lapack_ratios(A, Y)
        assert min(left.max(), right.max()) <= 30, (name, left.max(), right.max())
        if "definite" in kernel:
            np.testing.assert_array_equal(Y, Y.conj().swapaxes(-1, -2))


def test_every_kernel_is_measured():
    assert {kernel for kernel, _ in TRIANGULAR + DEFINITE} | {"reciprocals"} == set(STRUCTURED_KERNELS)


def test_ratio_and_comparison_refuse_a_slightly_wrong_inverse():
    name, A = next(iter(hard("fused positive definite", 5, np.random.default_rng(0))))
    Y = np.asarray(inverse("fused positive definite", A)) * np.float32(1 + 1e-3)
    assert name == "diagonal"
    assert min(r.min() for r in lapack_ratios(A, Y)) > 30


@pytest.mark.parametrize(
    ("kernel", "n"),
    [
        *(("fused positive definite", 6), ("fused blocks positive definite", 14), ("library positive definite", 9)),
        *(("small library blocks positive definite", 40), ("elementwise positive definite", 1)),
        *(("elementwise positive definite", 4), ("library blocks positive definite", 70)),
        ("single-thread blocks positive definite", 70),
    ],
)
def test_matrix_that_is_not_positive_definite_is_nan_alone(kernel, n):
    A = np.stack([_definite(n, np.random.default_rng(k), 10) for k in range(64)]).astype(np.float32)
    clean = np.asarray(inverse(kernel, A))
    A[3] = -np.eye(n)
    A[4] = 0
    A[5, -1, -1] = -1
    A[6, 0, 0] = -1
    A[7, n // 2, n // 2] = np.nan
    Y, factors = computed(kernel, A, with_factors=True)
    assert np.isnan(Y[3:8]).all()
    assert np.isnan(np.prod(factors[3:8], -1)).all()
    np.testing.assert_array_equal(np.delete(Y, range(3, 8), 0), np.delete(clean, range(3, 8), 0))


@pytest.mark.parametrize(
    ("kernel", "n"), [("fused lower triangular", 6), ("fused blocks upper triangular", 14), ("reciprocals", 5)]
)
def test_singular_matrix_leaves_batch_mates_bit_identical(kernel, n):
    A = (np.random.default_rng(n).uniform(0.5, 1, (64, n, n)) * np.eye(n)).astype(np.float32)
    clean = np.asarray(inverse(kernel, A))
    A[3] = 0
    A[4, -1, -1] = 0
    A[5, 0, 0] = np.nan
    Y = np.asarray(inverse(kernel, A))
    assert not np.isfinite(Y[3:6]).all((-2, -1)).any()
    np.testing.assert_array_equal(np.delete(Y, [3, 4, 5], 0), np.delete(clean, [3, 4, 5], 0))


def test_the_table_gives_each_kernel_its_sizes(monkeypatch):
    name = lambda n, batch, dtype="float32", platform="cpu": [
        structured_kernel_name(n, batch, dtype, platform, structure).removesuffix(f" {structure}")
        for structure in ("lower triangular", "positive definite")
    ]
    assert FUSED_UP_TO == 12
    assert [name(n, 16) for n in (1, 2, 12)] == [["elementwise"] * 2, ["fused"] * 2, ["fused"] * 2]
    assert [name(n, 16) for n in (13, 24)] == [["fused blocks"] * 2] * 2
    assert name(25, 16) == ["fused blocks", "small library blocks"]
    assert [name(n, 1) for n in (2, 32)] == [["library"] * 2] * 2
    assert [name(n, 15) for n in (64, 65)] == [["library"] * 2, ["library", "library blocks"]]
    assert [name(n, 15) for n in (129, 511)] == [["library blocks"] * 2] * 2
    assert name(512, 15) == ["single-thread blocks"] * 2
    assert [name(n, 16, "complex64") for n in (6, 7)] == [["fused"] * 2, ["fused blocks"] * 2]
    assert [name(n, 16, platform="gpu") for n in (8, 9)] == [["elementwise"] * 2, ["elementwise blocks"] * 2]
    for limit in MEASURED:
        monkeypatch.setattr(*limit)
    assert [name(12, batch) for batch in (215, 216, 575, 576)] == [
        ["library"] * 2, ["fused", "library"], ["fused", "library"], ["fused"] * 2,
    ]  # fmt: skip
    assert [name(48, batch) for batch in (15, 16, 53, 54)] == [
        ["library", "library"], ["library", "small library blocks"], ["library", "small library blocks"],
        ["fused blocks", "small library blocks"],
    ]  # fmt: skip
