"""The LU of one matrix turned round: its scales, its determinant, its program, and its place in the table."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinv
from jaxinv import _kernel_names, _kernels
from jaxinv._lu import lu_inverse, turned_lu_inverse

DTYPES = ("float32", "float64", "complex64", "complex128")


def normal(n, dtype, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if np.dtype(dtype).kind == "c" else 0)
    return X.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", ["rows", "columns"])
def test_scales_of_rows_and_columns_cost_no_accuracy(dtype, side):
    """Powers of two over 100 binary orders: the inverse is that of the unscaled matrix, to the same rounding."""
    n = 40
    X = normal(n, dtype)
    powers = 2.0 ** np.random.default_rng(1).integers(-50, 50, n)
    scaled = (X * (powers[:, None] if side == "rows" else powers)).astype(dtype)
    Y = np.asarray(jax.jit(turned_lu_inverse)(scaled)[0])
    back = Y * (powers if side == "rows" else powers[:, None])
    exact = np.linalg.inv(X.astype(np.result_type(dtype, np.float64)))
    error = np.abs(back - exact).max() / np.abs(exact).max()
    assert error <= 40 * n * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_entries_near_the_ends_of_the_range(dtype):
    """Columns, and then rows, of 1e-30 to 1e30 side by side in single precision, of 1e-250 to 1e250 in double."""
    n, most = 30, 30 if np.finfo(dtype).maxexp < 200 else 250
    X = normal(n, dtype)
    powers = 10.0 ** np.linspace(-most, most, n)
    for scaled, back in ((X * powers, lambda Y: Y * powers[:, None]), (X * powers[:, None], lambda Y: Y * powers)):
        Y = np.asarray(jax.jit(turned_lu_inverse)(scaled.astype(dtype))[0]).astype(np.result_type(dtype, np.float64))
        exact = np.linalg.inv(X.astype(Y.dtype))
        assert np.abs(back(Y) - exact).max() <= 1e3 * n * np.finfo(dtype).eps * np.abs(exact).max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_column_near_overflow_leaves_the_others_room(dtype):
    """Beside it, the reciprocal of a column of the same size would underflow."""
    d = np.array([0.9 * np.finfo(dtype).max, 1.9], dtype)
    Y = np.asarray(jax.jit(turned_lu_inverse)(np.diag(d))[0])
    np.testing.assert_allclose(Y[1, 1], 1 / d[1], rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_a_modulus_beyond_the_range_is_a_number(dtype):
    d = np.array([0.9 * np.finfo(dtype).max * (1 + 1j), 1.9], dtype)
    Y = np.asarray(jax.jit(turned_lu_inverse)(np.diag(d))[0])
    np.testing.assert_allclose(Y[1, 1], 1 / d[1], rtol=4 * np.finfo(dtype).eps)
    assert np.abs(Y[0]).max() <= 1 / np.finfo(dtype).max


@pytest.mark.parametrize("dtype", DTYPES)
def test_factors_multiply_to_the_determinant(dtype):
    n = 12
    X = normal(n, dtype) * 2.0 ** np.arange(-6, 6)
    factors = np.asarray(jax.jit(turned_lu_inverse)(X.astype(dtype))[1])
    np.testing.assert_allclose(factors.prod(), np.linalg.det(X), rtol=200 * np.finfo(dtype).eps)
    assert factors.shape == (n,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_singular_nan_and_inf_are_not_finite(dtype):
    n, inverse = 12, jax.jit(turned_lu_inverse)
    for change in (
        lambda X: X.__setitem__((slice(None), 3), 0),
        lambda X: X.__setitem__(3, 0),
        lambda X: X.fill(0),
        lambda X: X.__setitem__((4, 5), np.nan),
        lambda X: X.__setitem__((4, 5), np.inf),
    ):
        X = normal(n, dtype)
        change(X)
        Y, factors = inverse(jnp.asarray(X))
        assert not np.isfinite(Y).all()
        assert not np.isfinite(factors).all() or np.prod(factors) == 0


def test_an_upper_triangle_remains_one():
    n = 64
    X = np.triu(normal(n, "float32")) + 4 * np.eye(n, dtype=np.float32)
    Y = np.asarray(turned_lu_inverse(jnp.asarray(X))[0])
    assert (np.tril(Y, -1) == 0).all()
    np.testing.assert_allclose(Y, np.linalg.inv(X.astype(np.float64)), rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("on_cpu", "measured_limits")
def test_no_large_matrix_is_transposed():
    """In the program a matrix comes from rows to columns by a copy between two layouts that is no transposition."""

    def transposing_copies(f):
        text = jax.jit(f).lower(jnp.zeros((512, 512), jnp.float32)).compile().as_text()
        computations = re.split(r"\n\n", text)
        return sum("{1,0} parameter" in c and "{0,1} copy" in c and "transpose(" not in c for c in computations) + sum(
            "{0,1} parameter" in c and "{1,0} copy" in c and "transpose(" not in c for c in computations
        )

    assert transposing_copies(lambda X: lu_inverse(X)[0]) == 2
    assert transposing_copies(jaxinv.inv) == 0


@pytest.mark.usefixtures("on_cpu", "measured_limits")
def test_the_gradient_holds_little_more_than_half_of_the_temporary_memory_of_the_builtin(monkeypatch):
    """Three matrices; products must read Y, not the solution from which it is made."""
    monkeypatch.setattr(_kernel_names, "LARGE_UP_TO", 0)
    n, dtype = 600, "float64"
    assert _kernel_names.kernel_name(n, 1, dtype, "cpu", products_follow=True) == "turned LU"
    X = jnp.zeros((n, n), dtype)

    def temporary(inverse):
        def f(X, G):
            Y, pullback = jax.vjp(inverse, X)
            return Y, pullback(G)

        return jax.jit(f).lower(X, X).compile().memory_analysis().temp_size_in_bytes

    assert X.dtype == dtype
    assert temporary(jaxinv.inv) <= 0.6 * temporary(jnp.linalg.inv)


@pytest.mark.usefixtures("measured_limits")
def test_the_table_gives_it_single_matrices(monkeypatch):
    name = lambda n, dtype="float32", batch=1: _kernel_names.kernel_name(n, batch, dtype, "cpu")
    assert [name(n) for n in (511, 512, 4096)] == ["batched LU", "turned LU", "turned LU"]
    assert {name(600, dtype) for dtype in DTYPES} == {"turned LU"}
    assert name(600, batch=2) in ("batched LU", "LU in turn")
    assert _kernel_names.kernel_name(600, 1, "float32", "gpu") == "library LU"
    X = jnp.asarray(normal(40, "float32"))
    for devices, kernel in ((1, turned_lu_inverse), (8, lu_inverse)):
        monkeypatch.setattr(_kernels, "device_count", lambda devices=devices: devices)
        Y = jax.jit(lambda X: _kernels.KERNELS["turned LU"](X, True)[0])(X)
        np.testing.assert_array_equal(Y, jax.jit(lambda X, kernel=kernel: kernel(X)[0])(X))


@pytest.mark.parametrize("dtype", ["float32", pytest.param("complex128", marks=pytest.mark.later)])
@pytest.mark.usefixtures("measured_limits")
def test_single_matrices_through_the_public_functions(dtype):
    n = _kernel_names.TURNED_FROM
    X = normal(n, dtype) / n**0.5 + 2 * np.eye(n)
    X = X.astype(dtype)
    exact = np.linalg.inv(X.astype(np.result_type(dtype, np.float64)))
    rtol = 1e3 * np.finfo(dtype).eps
    Y, sign, logabsdet = jax.jit(jaxinv.inv_logdet)(X)
    np.testing.assert_allclose(Y, exact, rtol=0, atol=rtol * np.abs(exact).max())
    np.testing.assert_allclose(jax.jit(jaxinv.inv)(X), Y, rtol=0, atol=rtol * np.abs(exact).max())
    want = np.linalg.slogdet(X.astype(exact.dtype))
    np.testing.assert_allclose(logabsdet, want.logabsdet, rtol=rtol)
    np.testing.assert_allclose(sign, want.sign, rtol=0, atol=rtol)
    _, dY = jax.jvp(jaxinv.inv, (X,), (X,))  # of t X: -Y
    np.testing.assert_allclose(dY, -exact, rtol=0, atol=rtol * np.abs(exact).max())
