"""Values, shapes and dtypes of `inv`, against the float64 inverse of the same matrix."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import BATCHES, assert_is_inverse, inverse_bound, inverse_error, matrices, x64_off

import jaxinv

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 24, 33, pytest.param(64, marks=pytest.mark.long)]
FLOATS = ["float32", "float64", "complex64", "complex128", "bfloat16", "float16"]


def random(n, batch, dtype):
    """In NumPy, here and below: each size and type that JAX meets is one more compilation."""
    return matrices(n, batch, dtype=np.complex128 if "complex" in dtype else np.float64).astype(jnp.dtype(dtype))


@pytest.mark.parametrize("n", SIZES)
def test_inverse_of_every_size(n):
    X = random(n, (17,), "float32")
    for a in (X, X[0]):
        Y = jaxinv.inv(a)
        chex.assert_shape(Y, a.shape)
        chex.assert_type(Y, a.dtype)
        chex.assert_tree_all_finite(Y)
        assert_is_inverse(Y, a)


@pytest.mark.parametrize("batch", BATCHES, ids=str)
@pytest.mark.parametrize("n", [0, 1, 3, 17])
def test_inverse_of_every_batch_shape(n, batch):
    X = random(n, batch, "float32")
    Y = jaxinv.inv(X)
    chex.assert_shape(Y, (*batch, n, n))
    chex.assert_type(Y, X.dtype)
    assert_is_inverse(Y, X)


@pytest.mark.parametrize("n", [2, 3, 17])
@pytest.mark.parametrize("dtype", FLOATS)
def test_inverse_of_every_float_dtype(dtype, n):
    X = random(n, (17,), dtype)
    Y = jaxinv.inv(X)
    chex.assert_type(Y, X.dtype)
    assert_is_inverse(Y, X)


@pytest.mark.parametrize("n", [3, 17])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_inverse_without_64_bit_types(dtype, n):
    with x64_off():
        X = random(n, (3,), dtype)
        Y = jaxinv.inv(X)
        chex.assert_type(Y, X.dtype)
        assert_is_inverse(Y, X)
        chex.assert_type(jaxinv.inv(np.eye(n)), jnp.float32)  # NumPy's float64 arrives as float32
        gradient = jax.grad(lambda X: jaxinv.inv(X).sum())(X[0])
        chex.assert_type(gradient, X.dtype)
        chex.assert_tree_all_finite(gradient)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "int64", "uint8", "uint32", *FLOATS[:4]])
def test_dtype_equals_that_of_the_builtin(dtype):
    X = np.triu(np.ones((3, 3))).astype(dtype)
    Y = jaxinv.inv(X)
    chex.assert_type(Y, jax.eval_shape(jnp.linalg.inv, X).dtype)
    assert_is_inverse(Y, X)
    with x64_off():
        chex.assert_type(jaxinv.inv(X), jax.eval_shape(jnp.linalg.inv, jnp.asarray(X)).dtype)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9, 16, 17, 33])
def test_inverse_of_permutation_needs_pivots(n):
    """A zero diagonal: every leading block is singular. The inverse is the transpose, exactly."""
    X = np.roll(np.eye(n, dtype=np.float32), 1, axis=0)
    X = np.stack([X, *[X.T] * 16])
    np.testing.assert_array_equal(jaxinv.inv(X), np.swapaxes(X, -1, -2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [2, 3, 4, 8, 17])
def test_badly_conditioned_inverse_passes_the_test_ratio_of_lapack(n, dtype):
    """|I - Y X| / (n |X| |Y| eps) in the 1-norm, at most 30 (LAPACK's limit), from the left and the right."""
    cond = {"float32": 1e4, "float64": 1e12}[dtype]
    for X in (near_rank_one(n, cond).astype(dtype), matrices(n, (17,), cond=cond).astype(dtype)):
        Y = jaxinv.inv(X)
        assert np.all(lapack_ratio(Y, X) <= 30)
    if dtype == "float32":  # rounding to float32 moves the condition number by a few per cent
        assert_is_inverse(Y, X, cond=1.5 * cond)


def near_rank_one(n, cond):
    rng = np.random.default_rng(n)
    u, v, Z = rng.standard_normal((17, n, 1)), rng.standard_normal((17, 1, n)), rng.standard_normal((17, n, n))
    return u * v + Z / cond


def lapack_ratio(Y, X):
    X, Y, eps = X.astype(np.longdouble), np.asarray(Y).astype(np.longdouble), np.finfo(X.dtype).eps
    norm = lambda Z: np.abs(Z).sum(-2).max(-1)
    residual = np.maximum(norm(np.eye(X.shape[-1]) - Y @ X), norm(np.eye(X.shape[-1]) - X @ Y))
    return residual / (X.shape[-1] * norm(X) * norm(Y) * eps)


@pytest.mark.parametrize("n", [2, 3, 17])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_inverse_of_huge_and_tiny_entries(n, scale):
    """Determinants of such matrices are not float32 numbers; their inverses are."""
    X = random(n, (17,), "float32") * np.float32(scale)
    assert_is_inverse(jaxinv.inv(X), X)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 9, 16, 17, 33])
def test_singular_matrix_gives_non_finite_and_leaves_its_batch_alone(n):
    X = random(n, (17,), "float32")
    good = np.delete(jaxinv.inv(X), 2, 0)
    rank_one_less = np.diag(np.arange(n, dtype=np.float32))
    for bad in (np.zeros((n, n)), rank_one_less, np.roll(rank_one_less, 1, axis=0), np.ones((n, n)) * (n > 1)):
        X[2] = bad
        Y = jaxinv.inv(X)
        assert not np.isfinite(Y[2]).all()
        np.testing.assert_array_equal(np.delete(Y, 2, 0), good)
        assert not np.isfinite(jaxinv.inv(X[2])).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_non_finite_input_ends_and_leaves_its_batch_alone(n, value):
    X = random(n, (17,), "float32")
    good = np.delete(jaxinv.inv(X), 1, 0)
    X[1, 0, 0] = value
    Y = jaxinv.inv(X)
    np.testing.assert_array_equal(np.delete(Y, 1, 0), good)
    if np.isnan(value):
        assert np.isnan(Y[1]).any()


@pytest.mark.parametrize("dtype", FLOATS)
def test_tolerance_rejects_an_answer_wrong_by_one_percent(dtype):
    X = random(3, (17,), dtype)
    Y = np.asarray(jaxinv.inv(X)).astype(complex if "complex" in dtype else float)
    assert np.all(inverse_error(Y * 1.01, X) > inverse_bound(dtype, 3))
    assert np.all(inverse_error(np.swapaxes(Y, -1, -2), X) > inverse_bound(dtype, 3))


@pytest.mark.parametrize("n", [1, 3, 17, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tolerance_rejects_twice_the_bound(dtype, n):
    X = random(n, (17,), dtype)
    wrong = np.linalg.inv(X.astype(float)) * (1 + 2 * inverse_bound(dtype, n))
    with pytest.raises(AssertionError, match=r"error .* above"):
        assert_is_inverse(wrong.astype(dtype), X)


def test_ratio_of_lapack_rejects_an_adjugate():
    """One large singular value and two small ones: the cofactors of such a matrix keep few digits."""
    X = near_rank_one(3, 1e4).astype(np.float32)
    rows = [X[:, i] for i in range(3)]
    cofactors = np.stack([np.cross(rows[(i + 1) % 3], rows[(i + 2) % 3]) for i in range(3)], -1)
    determinant = np.sum(rows[0] * cofactors[:, :, 0], -1)
    assert np.max(lapack_ratio(cofactors / determinant[:, None, None], X)) > 30
