"""The kernels on hard matrices and large batches, against float64 and against LAPACK's getrf and getri."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _matrices import EPS, MATRICES, batch_of
from scipy.linalg import lapack

import jaxinv
from jaxinv import _fused, _kernels

FUSED = _fused.TILE  # a whole tile, and more than _kernels.FUSED_FROM_BATCH
SIZES = (2, 3, 4, 5, 8, 9)  # each kernel, and both sides of each of its limits
DTYPES = (np.float32, np.float64, np.complex64, np.complex128)


@jax.jit
def inverse(X):
    return jaxinv.inv(X)


def relative_error(Y, exact):
    return np.abs(Y - exact).max((-2, -1)) / np.abs(exact).max((-2, -1))


def norms(M):
    return np.linalg.norm(M, axis=(-2, -1), keepdims=True)


def lapack_ratios(A, Y, eps):
    """LAPACK's test ratios of an inverse, left and right: ||I - Y A|| / (n ||A|| ||Y|| eps), in the 1-norm."""
    n = A.shape[-1]
    wide = np.clongdouble if np.iscomplexobj(A) else np.longdouble
    A, Y = A.astype(wide), Y.astype(wide)
    norm = lambda M: np.abs(M).sum(-2).max(-1)
    scale = n * norm(A) * norm(Y) * eps
    return [norm(np.eye(n) - R) / scale for R in (Y @ A, A @ Y)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", SIZES)
def test_lapack_ratio_below_30_on_hard_matrices(n, dtype):
    rng = np.random.default_rng(n)
    worst = 0.0
    for name in MATRICES:
        A = batch_of(name, n, FUSED, rng)
        if np.iscomplexobj(np.empty(0, dtype)):
            A = A * np.exp(1j * rng.uniform(0, 2 * np.pi, (FUSED, n, 1)))
        A = A.astype(dtype)
        Y = np.asarray(inverse(A))
        assert np.isfinite(Y).all(), name
        left, right = lapack_ratios(A, Y, np.finfo(dtype).eps)
        # The left residual is what LAPACK bounds; on matrices that are badly scaled by rows the right one is not, for
        # any inverse by columns, in LAPACK neither: there it is only compared with LAPACK's in the next test.
        assert left.max() <= 30, (name, left.max())
        if "scaled" not in name and "graded" not in name:
            assert right.max() <= 30, (name, right.max())
        worst = max(worst, left.max())
    assert worst > 0  # the ratio measures something


def test_lapack_ratio_refuses_a_slightly_wrong_inverse():
    A = batch_of("permutation", 4, FUSED, np.random.default_rng(0)).astype(np.float32)
    Y = np.asarray(inverse(A)) * np.float32(1 + 1e-4)
    assert min(r.min() for r in lapack_ratios(A, Y, np.finfo(np.float32).eps)) > 30


@pytest.mark.parametrize("n", SIZES)
def test_forward_error_within_twice_lapacks(n):
    """Over all that float32 can invert: the median of 64 draws, and nine in ten. Rows are scaled at random, so that a
    fixed matrix is drawn anew too: of a single one, either inverse may happen to be nearly exact.
    """
    rng = np.random.default_rng(100 + n)
    compared = 0
    for name in MATRICES:
        A = (batch_of(name, n, 64, rng) * rng.uniform(0.5, 2, (64, n, 1))).astype(np.float32)
        A = A[np.linalg.cond(A.astype(np.float64), 1) < 0.1 / EPS]
        if len(A) == 0:
            continue
        compared += 1
        exact = np.linalg.inv(A.astype(np.float64))
        ours = relative_error(np.asarray(inverse(A), np.float64), exact)
        theirs = relative_error(np.stack([lapack.sgetri(*lapack.sgetrf(M)[:2])[0] for M in A]), exact)
        floor = 4 * EPS  # rounding of the last operation: below it, ratios mean nothing
        for quantile in (0.5, 0.9):
            assert np.quantile(ours, quantile) <= 2 * np.quantile(theirs, quantile) + floor, name
    assert compared >= 15


def test_forward_error_of_an_adjugate_would_fail_at_n_3():
    """The control of the test above: the cheap formula loses what partial pivoting keeps."""
    A = batch_of("near rank 1", 3, 64, np.random.default_rng(0)).astype(np.float32)
    exact = np.linalg.inv(A.astype(np.float64))
    rows = [np.cross(A[:, (i + 1) % 3], A[:, (i + 2) % 3]) for i in range(3)]
    adjugate = np.stack(rows, -1) / np.einsum("bi,bi->b", A[:, 0], rows[0])[:, None, None]
    error = lambda Y: np.median(relative_error(Y, exact))
    assert error(adjugate) > 5 * error(np.asarray(inverse(A)))


@pytest.mark.parametrize("n", SIZES)
def test_singular_matrix_leaves_batch_mates_bit_identical(n):
    rng = np.random.default_rng(n)
    A = batch_of("random", n, 3 * FUSED, rng).astype(np.float32)
    clean = np.asarray(inverse(A))
    A[5] = 0
    A[6, :, 0] = 0
    A[7, -1] = A[7, 0]
    A[8] = np.nan
    A[9, 0, 0] = np.inf
    Y = np.asarray(inverse(A))
    for place in (5, 6, 8):  # two equal rows may be told apart by rounding: LAPACK's are
        assert not np.isfinite(Y[place]).all()
    others = np.r_[0:5, 10 : 3 * FUSED]
    np.testing.assert_array_equal(Y[others], clean[others])


@pytest.mark.parametrize("batch", [32769, 65537, 1_000_000])
@pytest.mark.parametrize("n", [2, 3])
def test_large_batch_forward_gradient_jvp(n, batch):
    """XLA:CPU has returned wrong results for large batches (jax#39103)."""
    rng = np.random.default_rng(n)
    A = (rng.standard_normal((batch, n, n)) + 4 * np.eye(n)).astype(np.float32)
    G = rng.standard_normal((batch, n, n)).astype(np.float32)
    exact = np.linalg.inv(A.astype(np.float64))
    Yt = np.swapaxes(exact, -1, -2)

    @jax.jit
    def everything(A, G):
        Y, pullback = jax.vjp(jaxinv.inv, A)
        return Y, pullback(G)[0], jax.jvp(jaxinv.inv, (A,), (G,))[1], jax.vmap(jaxinv.inv)(A)

    Y, X_bar, dY, mapped = (np.asarray(out, np.float64) for out in everything(A, G))
    # Errors of the inverse grow with its norm squared, those of the derivatives with its cube; 50 eps is 10 roundings.
    bound = 50 * EPS * norms(exact) * norms(A)
    for got, want in ((Y, exact), (mapped, exact), (X_bar, -Yt @ G @ Yt), (dY, -exact @ G @ exact)):
        scale = (
            np.linalg.norm(want, axis=(-2, -1), keepdims=True)
            + np.linalg.norm(exact, axis=(-2, -1), keepdims=True) ** 2
        )
        assert (np.abs(got - want) <= bound * scale).all()
        assert not (np.abs(1.001 * got - want) <= bound * scale).all()


CHUNK = _fused.CHUNK


@pytest.mark.parametrize("batch", [CHUNK, CHUNK + 1, CHUNK + 64, 2 * CHUNK, 2 * CHUNK - 1])
def test_chunks_cover_the_batch(batch):
    """Every place of a batch that is cut into chunks and tiles, also where they do not divide it."""
    n = _fused.CHUNKED_FROM
    A = np.random.default_rng(0).uniform(-1, 1, (batch, n, n)) + 2 * n * np.eye(n)
    np.testing.assert_allclose(np.asarray(inverse(A)), np.linalg.inv(A), rtol=0, atol=1e-15)


@pytest.mark.parametrize("ops", ["".join(ops) for ops in itertools.product("NT", repeat=3)])
@pytest.mark.parametrize("n", [4, 5, 16, 17])
def test_product_kernels_agree_with_numpy(n, ops):
    operands = np.random.default_rng(n).standard_normal((2, 3, n, n))
    which = (0, 1, 0)
    A, B, C = (operands[i].swapaxes(-1, -2) if op == "T" else operands[i] for op, i in zip(ops, which, strict=True))
    kernel = jax.jit(partial(_kernels.product_kernel, ops=ops, which=which, precision=None))
    product = kernel(*map(jnp.asarray, operands))
    np.testing.assert_allclose(np.asarray(product), A @ B @ C, rtol=0, atol=1e-13 * n**1.5)
