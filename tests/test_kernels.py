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
from jaxinv import _fused, _kernels, _panel_lu

BATCH = 64
# Each kernel at both ends of its sizes, and where its panels do not fit n.
KERNELS = {"fused LU": (2, 3, 4, 5, 6, 8), "panel LU": (9, 13, 20), "batched LU": (9,)}
COMPLEX_UP_TO = {"fused LU": _kernels.FUSED_COMPLEX_UP_TO, "panel LU": 0, "batched LU": 9}
KERNELS_AND_SIZES = [(kernel, n) for kernel, sizes in KERNELS.items() for n in sizes]
each_kernel = pytest.mark.parametrize(("kernel", "n"), KERNELS_AND_SIZES)
DTYPES = (np.float32, np.float64, np.complex64, np.complex128)


@partial(jax.jit, static_argnums=0)
def inverse(kernel, X):
    return _kernels.KERNELS[kernel](X, with_factors=False)[0]


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


@pytest.mark.parametrize(
    ("kernel", "n", "dtype"),
    [
        (kernel, n, dtype)
        for kernel, n in KERNELS_AND_SIZES
        for dtype in DTYPES
        if np.dtype(dtype).kind == "f" or COMPLEX_UP_TO[kernel] >= n
    ],
)
def test_lapack_ratio_below_30_on_hard_matrices(kernel, n, dtype):
    rng = np.random.default_rng(n)
    worst = 0.0
    for name in MATRICES:
        A = batch_of(name, n, BATCH, rng)
        if np.iscomplexobj(np.empty(0, dtype)):
            A = A * np.exp(1j * rng.uniform(0, 2 * np.pi, (BATCH, n, 1)))
        A = A.astype(dtype)
        Y = np.asarray(inverse(kernel, A))
        assert np.isfinite(Y).all(), name
        left, right = lapack_ratios(A, Y, np.finfo(dtype).eps)
        badly_scaled = "scaled" in name or "graded" in name
        if name == "pascal" or (not badly_scaled and np.linalg.cond(A, 1).max() > 0.1 / np.finfo(dtype).eps):
            # Beyond the types of LAPACK, and where rows and columns grow like binomials, LU bounds one residual.
            assert min(left.max(), right.max()) <= 30, (name, left.max(), right.max())
            continue
        # The left residual is what LAPACK bounds; on matrices that are badly scaled by rows the right one is not, for
        # any inverse by columns, in LAPACK neither: there it is only compared with LAPACK's in the next test.
        assert left.max() <= 30, (name, left.max())
        if not badly_scaled:
            assert right.max() <= 30, (name, right.max())
        worst = max(worst, left.max())
    assert worst > 0  # the ratio measures something


def test_lapack_ratio_refuses_a_slightly_wrong_inverse():
    A = batch_of("permutation", 4, BATCH, np.random.default_rng(0)).astype(np.float32)
    Y = np.asarray(jaxinv.inv(A)) * np.float32(1 + 1e-4)
    assert min(r.min() for r in lapack_ratios(A, Y, np.finfo(np.float32).eps)) > 30


@each_kernel
def test_forward_error_within_twice_lapacks(kernel, n):
    """Over all that float32 can invert: the median of 64 draws, and nine in ten. Rows are scaled at random, so that a
    fixed matrix is drawn anew too: of a single one, either inverse may happen to be nearly exact.
    """
    rng = np.random.default_rng(100 + n)
    compared = 0
    for name in MATRICES:
        A = (batch_of(name, n, 64, rng) * rng.uniform(0.5, 2, (64, n, 1))).astype(np.float32)
        A = A[np.linalg.cond(A.astype(np.float64), 1) < 0.1 / EPS]
        if len(A) < 8:  # too few for a quantile
            continue
        compared += 1
        exact = np.linalg.inv(A.astype(np.float64))
        ours = relative_error(np.asarray(inverse(kernel, A), np.float64), exact)
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
    assert error(adjugate) > 5 * error(np.asarray(jaxinv.inv(A)))


@each_kernel
def test_singular_matrix_leaves_batch_mates_bit_identical(kernel, n):
    rng = np.random.default_rng(n)
    A = batch_of("random", n, 3 * BATCH, rng).astype(np.float32)
    clean = np.asarray(inverse(kernel, A))
    A[5] = 0
    A[6, :, 0] = 0
    A[7, -1] = A[7, 0]
    A[8] = np.nan
    A[9, 0, 0] = np.inf
    Y = np.asarray(inverse(kernel, A))
    for place in (5, 6, 8):  # two equal rows may be told apart by rounding: LAPACK's are
        assert not np.isfinite(Y[place]).all()
    others = np.r_[0:5, 10 : 3 * BATCH]
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


CHUNKS = {
    "fused LU": (5, _fused.CHUNK),
    "panel LU": (20, _fused.LANES * _panel_lu.panel_step(2**20, 20, 8)),
}


@pytest.mark.parametrize("batch", ["one", "one + 1", "one + 64", "two", "two - 1", "17"])
@pytest.mark.parametrize("kernel", CHUNKS)
def test_chunks_cover_the_batch(kernel, batch):
    """Every place of a batch that is cut into chunks and tiles, also where they do not divide it."""
    n, one = CHUNKS[kernel]
    A = np.random.default_rng(0).uniform(-1, 1, (eval(batch, {"one": one, "two": 2 * one}), n, n)) + 2 * n * np.eye(n)
    np.testing.assert_allclose(np.asarray(inverse(kernel, A)), np.linalg.inv(A), rtol=0, atol=1e-15)


def test_the_table_gives_each_kernel_its_sizes():
    """As the README says it, for float32 and complex64."""
    name = lambda n, batch, dtype: _kernels.kernel_name(n, batch, dtype, "cpu")
    lapack = "batched LU" if _kernels.LAPACK_BATCH_IS_SERIAL else "LU in turn"
    kernels = lambda dtype: [name(n, 10**5, dtype) for n in (1, 2, 4, 5, 6, 7, 8, 9, 20, 21)]
    fused, panel = "fused LU", "panel LU"
    assert kernels("float32") == ["reciprocal", *[fused] * 6, panel, panel, lapack]
    assert kernels("complex64") == ["reciprocal", *[fused] * 4, *[lapack] * 5]
    assert [name(4, batch, "float32") for batch in (1, 15, 16)] == ["batched LU", lapack, fused]
    assert [name(10, batch, "float32") for batch in (1, 499, 500)] == ["batched LU", lapack, panel]
    assert [name(5, batch, "complex64") for batch in (15, 16)] == [lapack, fused]


@pytest.mark.parametrize("ops", ["".join(ops) for ops in itertools.product("NT", repeat=3)])
@pytest.mark.parametrize("n", [4, 5, 16, 17])
def test_product_kernels_agree_with_numpy(n, ops):
    operands = np.random.default_rng(n).standard_normal((2, 3, n, n))
    which = (0, 1, 0)
    A, B, C = (operands[i].swapaxes(-1, -2) if op == "T" else operands[i] for op, i in zip(ops, which, strict=True))
    kernel = jax.jit(partial(_kernels.product_kernel, ops=ops, which=which, precision=None))
    product = kernel(*map(jnp.asarray, operands))
    np.testing.assert_allclose(np.asarray(product), A @ B @ C, rtol=0, atol=1e-13 * n**1.5)
