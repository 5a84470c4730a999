"""One logarithm of a product instead of a sum of logarithms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxinv._log_product import UP_TO, log_product


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 5, UP_TO, UP_TO + 1])
@pytest.mark.parametrize("span", [1e-6, 1, 60])
def test_equals_the_sum_of_logarithms(n, dtype, span):
    """To the rounding of n factors near 1, and of the powers of two."""
    x = np.exp(np.random.default_rng(n).uniform(-span, span, (1000, n))).astype(dtype)
    logs = np.log(x.astype(np.longdouble))
    error = np.abs(np.asarray(jax.jit(log_product)(x)) - logs.sum(-1))
    size = np.abs(logs.sum(-1)) if n <= UP_TO else np.abs(logs).sum(-1)
    assert (error <= np.finfo(dtype).eps * (n + 2 * size)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_is_exact_and_the_ends_of_the_range_are_met(dtype):
    info = np.finfo(dtype)
    assert log_product(jnp.ones((7, 3), dtype)).tolist() == [0.0] * 7
    x = np.array([[info.max, info.max], [info.tiny, info.tiny], [info.max, info.tiny]], dtype)
    want = np.log(x.astype(np.longdouble)).sum(-1).astype(float)
    np.testing.assert_allclose(np.asarray(log_product(jnp.asarray(x))), want, rtol=4 * info.eps, atol=2 * info.eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_infinity_and_nan(dtype):
    x = jnp.asarray([[0, 2], [2, jnp.inf], [jnp.nan, 1], [0, jnp.inf], [1, 0]], dtype)
    np.testing.assert_array_equal(np.asarray(log_product(x)), [-np.inf, np.inf, np.nan, np.nan, -np.inf])


def test_no_factor():
    assert log_product(jnp.ones((4, 0))).tolist() == [0.0] * 4
