"""Each kernel on the catalogue of hard matrices, against exact inverses and against LAPACK's getrf and getri."""

from math import comb

import numpy as np
import pytest
from _accuracy import AS_THEY_ARE, CASES, KERNELS, Measured, has_exact_inverse, lapack_ratios, relative_error
from _matrices import BADLY_SCALED, MATRICES, SINGULAR, batch_of, exact_inverse, hilbert_in_integers
from scipy import linalg
from scipy.linalg import lapack

import jaxinv
from jaxinv import _kernels
from jaxinv._structured_kernels import STRUCTURED_KERNELS


def name_of(case):
    return f"{case[0]}-{case[1]}-{np.dtype(case[2]).name}"


ALSO_LONG = (
    *(("panel Gauss-Jordan", n) for n in (13, 24)),
    ("elementwise Gauss-Jordan", 13),
    ("LU and product", 32),
    ("LU and blocks", 40),
)


LATER = [("elementwise Gauss-Jordan", 7, dtype) for dtype in (np.float32, np.float64)]
LATER += [("elementwise Gauss-Jordan", 9, np.float64), ("elementwise Gauss-Jordan", 7, np.complex128)]
LATER += [("LU and product", 16, np.float32), ("LU and blocks", 33, np.float32)]
LATER += [("panel Gauss-Jordan", n, np.float32) for n in (28, 36, 44)]


def is_long(kernel, n, dtype):
    """The larger sizes in other types than single precision compile and compute for minutes; the fused loop is given
    double precision of more than n = 3 only where there are several devices or the batch is symbolic.
    """
    of_single, is_complex = np.dtype(dtype) == np.float32, np.dtype(dtype).kind == "c"
    in_many_loops = "panel" in kernel or "Gauss" in kernel
    if (kernel, n) in ALSO_LONG or (n > 9 and not of_single) or (n > 7 and is_complex and in_many_loops):
        return True
    return kernel == "fused LU" and ((n > 3 and np.finfo(dtype).bits == 64) or (n > 5 and is_complex))


def params(cases):
    marks = lambda case: [pytest.mark.long] if is_long(*case) else [pytest.mark.later] if case in LATER else []
    return [pytest.param(case, id=name_of(case), marks=marks(case)) for case in cases]


@pytest.fixture(scope="module", params=params(CASES))
def measured(request):
    return Measured(*request.param)


def test_lapack_ratio_below_30(measured):
    """The left residual is what LAPACK bounds. Beyond a condition number of 0.1 / eps, LU bounds one of the two; beyond
    1 / eps, where blocks of it may be as good as singular, ours is to be no larger than LAPACK's larger one.
    """
    for name in MATRICES:
        finite = np.isfinite(measured.Y[name]).all((-2, -1))
        assert finite[measured.is_invertible(name, margin=1)].all(), name
        if not finite.all():
            continue
        left, right = measured.ratios(name)
        if not measured.is_invertible(name).all():
            A = measured.A[name][:1]
            most = 30 if measured.is_invertible(name, margin=1).all() else max(30, *lapack_ratios(A, getri(A)))
            assert min(left, right) <= most, (name, left, right, most)
            continue
        assert left <= 30, (name, left)
        # Of badly scaled matrices the right one is not bounded for any inverse by columns, in LAPACK neither.
        assert right <= 30 or name in BADLY_SCALED, (name, right)


@pytest.mark.parametrize("measured", params(case for case in CASES if has_exact_inverse(*case)), indirect=True)
def test_error_against_exact_inverse(measured):
    """At most twice n eps cond: LU stays well below, one complex division comes near to one."""
    for name in MATRICES:
        if np.isfinite(measured.Y[name][0]).all():
            assert measured.error(name) <= 2, (name, measured.error(name))


def test_error_within_twice_that_of_lapack(measured):
    """On what the dtype can invert: in single precision the median of the draws, and nine in ten, of each name; in
    double precision, where only the first draw has an exact inverse, the median over the names.
    """
    floor = 4 * measured.eps  # rounding of the last operation: below it, ratios mean nothing
    ratios = []
    for name in MATRICES:
        use = measured.is_invertible(name)
        if measured.whole.real.dtype == np.float64:
            if measured.has_exact_inverse and use[0]:
                exact = measured.exact(name)
                ours, theirs = (relative_error(Z, exact) for Z in (measured.Y[name][0], getri(measured.A[name][:1])[0]))
                ratios.append((ours + floor) / (theirs + floor))
            continue
        use[:AS_THEY_ARE] = False
        if use.sum() >= 8:  # fewer have no quantiles
            A = measured.A[name][use]
            exact = np.linalg.inv(A.astype(np.result_type(A, np.float64)))
            ours, theirs = (relative_error(Z, exact) for Z in (measured.Y[name][use], getri(A)))
            for quantile in (0.5, 0.9):
                assert np.quantile(ours, quantile) <= 2 * np.quantile(theirs, quantile) + floor, name
            ratios.append(1)
    if measured.has_exact_inverse:
        assert len(ratios) >= 20
        assert np.median(ratios) <= 2


def getri(A):
    getrf, getri = lapack.get_lapack_funcs(("getrf", "getri"), (A,))
    return np.stack([getri(*getrf(M)[:2])[0] for M in A])


def test_singular_and_non_finite_leave_batch_mates_bit_identical(measured):
    A = measured.whole.copy()
    for place, zero in enumerate(SINGULAR.values()):
        A[place][zero(measured.n)] = 0
    nan, one_nan, inf = range(len(SINGULAR), len(SINGULAR) + 3)
    A[nan] = np.nan
    A[one_nan] = np.eye(measured.n) + 1 / 8
    A[one_nan, -1, -1] = np.nan  # the last pivot, of which no other row has a number to offer
    A[inf, 0, 0] = np.inf
    Y = np.asarray(measured.inverse(A))
    assert not np.isfinite(Y[:nan]).all((-2, -1)).any()
    assert np.isnan(Y[[nan, one_nan]]).any((-2, -1)).all()
    np.testing.assert_array_equal(Y[inf + 1 :], np.concatenate(list(measured.Y.values()))[inf + 1 :])


def test_every_kernel_is_measured():
    assert set(KERNELS) == set(_kernels.KERNELS) - set(STRUCTURED_KERNELS)


def test_control_ratio_and_error_refuse_a_slightly_wrong_inverse():
    A = batch_of("permutation", 4, 64, np.random.default_rng(0), np.float32)
    Y = np.asarray(jaxinv.inv(A)) * np.float32(1 + 1e-4)
    assert min(r.min() for r in lapack_ratios(A, Y)) > 30
    measured = Measured("fused LU", 3, np.float32)
    measured.Y["random"] = measured.Y["random"] * np.float32(1 + 1e-4)
    assert measured.error("random") > 2


def test_control_error_of_an_adjugate_fails_at_n_3():
    """The cheap formula loses what partial pivoting keeps."""
    A = batch_of("near rank 1", 3, 64, np.random.default_rng(0), np.float32)
    exact = np.linalg.inv(A.astype(np.float64))
    rows = [np.cross(A[:, (i + 1) % 3], A[:, (i + 2) % 3]) for i in range(3)]
    adjugate = np.stack(rows, -1) / np.einsum("bi,bi->b", A[:, 0], rows[0])[:, None, None]
    error = lambda Y: np.median(relative_error(Y, exact))
    assert error(adjugate) > 5 * error(np.asarray(jaxinv.inv(A)))


def pascal_inverse(n):
    """From P = L L^T, with binomials in L: those of L^-1 alternate in sign."""
    L = np.array([[(-1.0) ** (i + j) * comb(i, j) for j in range(n)] for i in range(n)])
    return L.T @ L


CLOSED_FORMS = {
    "hilbert in integers": lambda n: linalg.invhilbert(n) / hilbert_in_integers(n)[0, 0],
    "pascal": pascal_inverse,
    "antidiagonal": lambda n: np.eye(n)[::-1],
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
@pytest.mark.parametrize("n", [1, 2, 5, 9, 13])
def test_exact_inverse_equals_the_closed_form(name, n):
    A = MATRICES[name](n, None)
    np.testing.assert_allclose(exact_inverse(A), CLOSED_FORMS[name](n), rtol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
def test_exact_inverse_times_the_matrix_is_the_identity(dtype):
    A = batch_of("random", 5, 1, np.random.default_rng(0), dtype)[0]
    np.testing.assert_allclose(exact_inverse(A) @ A.astype(np.complex128), np.eye(5), atol=1e-14)


@pytest.mark.parametrize("n", range(1, 21))
def test_dramadah_has_determinant_one_and_an_integer_inverse(n):
    Y = exact_inverse(MATRICES["dramadah"](n, None))
    np.testing.assert_array_equal(Y, np.round(Y))
