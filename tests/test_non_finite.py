"""nan and inf in the input: every size comes back, and the other matrices of the batch keep their bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import matrices

import jaxinv
from jaxinv._kernels import _nan_where_nan

BATCH = 17
SIZES = [*range(1, 11), 12, 13, 16, 17, 18, 19, 20, 24, 32, 33, 300]
SIZES += [pytest.param(n, marks=pytest.mark.long) for n in range(1, 34) if n not in SIZES]


@pytest.mark.parametrize("n", SIZES)
def test_nan_and_inf_end_and_do_not_spread(n):
    batch = BATCH if n < 34 else 3
    X = matrices(n, (batch,)).astype(np.float32)
    clean = np.asarray(jaxinv.inv(X))
    X[0, 0, 0] = np.nan
    X[1, -1, -1] = np.inf
    if n < 34:
        X[2] = np.nan
        X[3] = np.inf
        X[4, :, 0] = -np.inf
        X[5, 0, :] = np.nan
    bad = ~np.isfinite(X).all((-2, -1))
    Y = np.asarray(jaxinv.inv(X))
    np.testing.assert_array_equal(Y[~bad], clean[~bad])
    assert np.isnan(Y[np.isnan(X).any((-2, -1))]).any((-2, -1)).all()


@pytest.mark.parametrize("n", [1, 2, 3, 8, 9, 17, 33, 300])  # LAPACK takes them all from n = 2 on
def test_nan_and_inf_in_a_single_matrix_end(n):
    X = matrices(n).astype(np.float32)
    for value in (np.nan, np.inf):
        for place in (np.s_[0, 0], np.s_[-1, -1], np.s_[:]):
            bad = X.copy()
            bad[place] = value
            Y = np.asarray(jaxinv.inv(bad))
            assert np.isnan(Y).any() or np.isinf(value)


def test_on_gpu_nan_does_not_depend_on_the_library():
    X = matrices(9, (3,)).astype(np.float32)
    clean = X.copy()
    X[1, -1, -1] = np.nan
    for out in (clean, clean[..., 0]):
        got = np.asarray(_nan_where_nan(X, jnp.asarray(out)))
        assert np.isnan(got[1]).all()
        np.testing.assert_array_equal(got[[0, 2]], out[[0, 2]])


@pytest.mark.parametrize("f", [jaxinv.inv_ex, jaxinv.inv_logdet], ids=lambda f: f.__name__)
@pytest.mark.parametrize("n", [1, 8, 33, 300])
def test_nan_and_inf_do_not_spread_in_the_other_functions(f, n):
    X = matrices(n, (3,)).astype(np.float32)
    clean = f(X)
    X[0, 0, 0] = np.nan
    X[1, -1, -1] = np.inf
    for got, want in zip(f(X), clean, strict=True):
        np.testing.assert_array_equal(got[2], want[2])


@pytest.mark.parametrize("n", [3, 20])
def test_nan_stays_in_its_own_gradient(n):
    X = matrices(n, (BATCH,)).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda X: jaxinv.inv(X).sum()))
    clean = np.asarray(gradient(X))
    X[1, 0, 0] = np.nan
    got = np.asarray(gradient(X))
    np.testing.assert_array_equal(np.delete(got, 1, 0), np.delete(clean, 1, 0))
    assert np.isnan(got[1]).any()
