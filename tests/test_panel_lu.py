"""LU of a panel of columns, and triangular inverses, by LAPACK in the thread that calls."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxinv import _lapack
from jaxinv._panel_lu import lu_in_one_thread, panel_lu, rows_at_places


def drawn(*shape, dtype=np.float64):
    rng = np.random.default_rng(sum(shape))
    X = rng.standard_normal(shape)
    return (X + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else X).astype(dtype)


def unit_lower(LU, k):
    return np.tril(np.asarray(LU)[:, :k], -1) + np.eye(len(LU), k)


@pytest.fixture(params=[np.float64, np.complex128], ids=str)
def dtype(request, monkeypatch):
    """Whose columns are halved down to four, and solved for a few at a time: panels are not so large in the tests."""
    monkeypatch.setitem(_lapack.ENTRIES_OF_MANY_THREADS, np.dtype(request.param).name, 0)
    monkeypatch.setitem(_lapack.SOLVED_BY_MANY_THREADS, np.dtype(request.param).name, 50)
    return request.param


@pytest.mark.parametrize(("m", "k"), [pytest.param(40, 21, marks=pytest.mark.long), (30, 8), (8, 8)])
def test_lu_in_one_thread_equals_that_in_one_call(m, k, dtype):
    X = drawn(m, k, dtype=dtype)
    LU, row_of = jax.jit(lu_in_one_thread)(X)
    of_lapack, _, row_of_lapack = lax.linalg.lu(jnp.asarray(X))
    np.testing.assert_array_equal(row_of[:k], row_of_lapack[:k])
    np.testing.assert_array_equal(np.sort(row_of), np.arange(m))  # those below are exchanged otherwise
    np.testing.assert_allclose(LU[:k], of_lapack[:k], rtol=0, atol=1e-11)
    np.testing.assert_allclose(unit_lower(LU, k) @ np.triu(LU[:k]), X[row_of], rtol=0, atol=1e-11)


def test_rows_that_are_done_are_no_pivots(dtype):
    m, k = 30, 10
    X = drawn(m, k, dtype=dtype)
    is_done = np.arange(m) % 3 == 0
    X[is_done] *= 1e3
    X[3] = np.nan
    left = np.flatnonzero(~is_done)
    L, pivots, LU = jax.jit(panel_lu)(X, jnp.asarray(is_done))
    of_lapack, _, row_of_lapack = lax.linalg.lu(jnp.asarray(X[left]))
    np.testing.assert_array_equal(pivots, left[row_of_lapack[:k]])
    np.testing.assert_allclose(LU, of_lapack[:k], rtol=0, atol=1e-11)
    others = np.setdiff1d(left, pivots)
    np.testing.assert_allclose(np.asarray(L)[others] @ np.triu(LU), X[others], rtol=0, atol=1e-11)


def test_a_nan_is_not_passed_over(dtype):
    """LAPACK may take the zeros of a row that is done for larger, or lose the place of a nan."""
    m, k = 24, 8
    is_done = jnp.arange(m) < 8
    factors = jax.jit(panel_lu)
    for row in (8, 15, 23):
        for column in range(k):
            X = drawn(m, k, dtype=dtype)
            X[row, column] = np.nan
            L, _, LU = factors(X, is_done)
            assert np.isnan(L).any(axis=-1).all()
            assert np.isnan(LU).any()
    X = drawn(m, k, dtype=dtype)
    X[8:, 5] = 0
    assert np.isfinite(factors(X, is_done).LU).all()
    assert factors(X, is_done).LU[5, 5] == 0


@pytest.mark.parametrize("start", [0, 8])
def test_rows_at_places(start):
    n, pivots = 20, np.array([11, 9, 19, 10], np.int32) - (8 - start)
    row_of = np.asarray(jax.jit(partial(rows_at_places, n))(np.int32(start), jnp.asarray(pivots)))
    np.testing.assert_array_equal(np.sort(row_of), np.arange(n))
    np.testing.assert_array_equal(row_of[start : start + 4], pivots)
    stays = np.setdiff1d(np.arange(n), [*range(start, start + 4), *pivots])
    np.testing.assert_array_equal(row_of[stays], stays)


@pytest.mark.parametrize(("lower", "unit_diagonal"), [(True, True), (False, False)])
@pytest.mark.parametrize(("n", "k"), [(8, 6), (8, 19), pytest.param(21, 33, marks=pytest.mark.long)])
def test_triangular_solution_in_groups_of_columns(n, k, lower, unit_diagonal, dtype):
    T = (np.tril if lower else np.triu)(drawn(n, n, dtype=dtype)) / n**0.5 + 2 * np.eye(n)
    B = drawn(n, k, dtype=dtype)
    solved = jax.jit(partial(_lapack.solved_in_one_thread, lower=lower, unit_diagonal=unit_diagonal))(T, B)
    if unit_diagonal:
        T = np.tril(T, -1) + np.eye(n)
    np.testing.assert_allclose(T @ solved, B, rtol=0, atol=1e-9)
