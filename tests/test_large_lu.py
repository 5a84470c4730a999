"""LU by panels of large matrices: how they are cut, at sizes that users have, and where the table gives it one."""

import itertools
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _accuracy import CUTS, lapack_ratios

import jaxinv
from jaxinv import _kernel_names, _lapack, _products
from jaxinv._large_lu import Cuts, cuts_for, large_lu_inverse


@pytest.mark.parametrize("n", [256, 257, 300, 512, 513, 640, 900, 1000, 1024, 1025, 1499, 2048, 3001, 4096])
def test_cuts_fit_the_matrix(n):
    cuts = cuts_for(n)
    assert n <= cuts.n <= 1.05 * n
    assert cuts.heights[0] == cuts.n
    for k in range(cuts.panels):
        assert cuts.n - k * cuts.width <= cuts.heights[k * len(cuts.heights) // cuts.panels]


WIDE = Cuts(3, 128, block_of_U=128, piece=256)  # as matrices from n = 900 on are cut
ANY_DTYPE = [(520, None), (33, CUTS), (7, Cuts(1, 7)), (31, Cuts(2, 21, block_of_U=8))]  # pieces overlap; one panel


@pytest.mark.parametrize(
    ("n", "cuts", "dtype"),
    [
        *((n, cuts, np.float64) for n, cuts in ANY_DTYPE[2:]),
        pytest.param(*ANY_DTYPE[1], np.float64, marks=pytest.mark.later),
        (520, None, np.float32),
        *(pytest.param(n, cuts, np.float32, marks=pytest.mark.long) for n, cuts in (*ANY_DTYPE[1:], (950, None))),
        *(pytest.param(n, cuts, np.float64, marks=pytest.mark.long) for n, cuts in ((520, None), (380, WIDE))),
    ],
)
def test_inverse_and_factors(n, cuts, dtype, monkeypatch):
    if n > 100:
        monkeypatch.setitem(_lapack.ENTRIES_OF_MANY_THREADS, "float64", 20000)
    X = np.random.default_rng(n).standard_normal((n, n)).astype(dtype)
    if n == 520:  # rows are exchanged over all of it
        X = X[::-1] + 40 * np.eye(n, dtype=dtype)[np.random.default_rng(0).permutation(n)]
    Y, factors = jax.jit(partial(large_lu_inverse, with_factors=True, cuts=cuts))(jnp.asarray(X))
    assert max(ratio.max() for ratio in lapack_ratios(X[None], np.asarray(Y)[None])) <= 2
    sign, logabsdet = np.linalg.slogdet(X.astype(np.float64))
    assert np.prod(np.sign(factors)) == sign
    np.testing.assert_allclose(np.sum(np.log(np.abs(np.asarray(factors, np.float64)))), logabsdet, rtol=1e-5)


def shapes_for_lapack(routine, program):
    """The shapes (m, k) of the results of a routine in a compiled program, over a batch or not."""
    shapes = re.findall(rf"= \(?f\d\d\[(?:\d+,)*?(\d+),(\d+)\].*lapack_[sd]{routine}", program)
    return [(int(m), int(k)) for m, k in shapes]


@pytest.mark.parametrize(
    ("batch", "n", "dtype"),
    [
        ((), 512, "float32"),
        ((2, 1), 384, "float32"),
        *(pytest.param((), *case, marks=pytest.mark.long) for case in ((600, "float32"), (400, "float64"))),
        pytest.param((3,), 400, "float64", marks=pytest.mark.long),
    ],
)
def test_one_device_takes_it_with_its_derivatives(batch, n, dtype, monkeypatch):
    """Of the eight devices of the tests none may be given a part, so that users of one take another way."""
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)
    monkeypatch.setattr(_products, "STRIP", 200)
    monkeypatch.setitem(_lapack.ENTRIES_OF_MANY_THREADS, "float64", 20000)
    rng = np.random.default_rng(n)
    X, G = (jnp.asarray(rng.standard_normal((*batch, n, n)), dtype) for _ in range(2))

    @jax.jit
    def f(X, G):
        Y_too, pullback = jax.vjp(jaxinv.inv_logdet, X)
        return jax.vjp(jaxinv.inv, X), jax.jvp(jaxinv.inv, (X,), (G,)), Y_too, pullback(Y_too)

    text = f.lower(X, G).compile().as_text()
    factorised, solved = (shapes_for_lapack(routine, text) for routine in ("getrf", "trsm"))
    assert factorised
    assert solved
    assert all(_lapack.is_one_thread(m, k, dtype) for m, k in factorised)
    assert all(m * k < _lapack.SOLVED_BY_MANY_THREADS[dtype] for m, k in solved)
    alone = jax.jit(lambda X: (jaxinv.inv(X), jaxinv.inv_logdet(X))).lower(X).compile().as_text()
    assert (n, n) in shapes_for_lapack("getrf", alone)
    (Y, pullback), (_, dY), (Y_too, sign, logabsdet), _ = f(X, G)
    exact = np.linalg.inv(np.asarray(X, np.float64))
    scale = np.abs(exact).max()
    for got, want in ((Y, exact), (Y_too, exact), (dY, -exact @ np.asarray(G) @ exact)):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-3 * np.abs(want).max() * max(1, scale))
    Y_T = exact.swapaxes(-1, -2)
    np.testing.assert_allclose(pullback(G)[0], -Y_T @ np.asarray(G) @ Y_T, rtol=0, atol=1e-3 * np.abs(dY).max() * scale)
    np.testing.assert_allclose((sign, logabsdet), np.linalg.slogdet(np.asarray(X, np.float64)), rtol=1e-5)


@pytest.mark.usefixtures("measured_limits")
def test_value_and_gradient_take_little_more_memory_than_one_matrix():
    """That of the gradient serves the inverse until there is one; else it would be 1.4 times one."""

    def f(X, G):
        Y, pullback = jax.vjp(jaxinv.inv, X)
        return Y, pullback(G)[0]

    X = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    memory = jax.jit(f).lower(X, X).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.3 * memory.output_size_in_bytes / 2


@pytest.mark.usefixtures("measured_limits")
def test_the_table_gives_it_real_matrices_with_derivatives():
    name = lambda n, dtype="float32", batch=1: _kernel_names.kernel_name(n, batch, dtype, "cpu", products_follow=True)
    assert _kernel_names.kernel_name(1024, 1, "float32", "cpu") == "turned LU"
    for dtype in ("float32", "float64"):
        names = [name(n, dtype) for n in (255, 256, 2048, 2049)]
        assert names == ["batched LU", "large LU", "large LU", "turned LU"]
        for batch in (2, 1000):
            names = [name(n, dtype, batch) == "large LU" for n in (319, 320, 2048, 2049)]
            assert names == [False, True, True, False]
    assert {name(2048, "complex64"), name(2048, "complex128")} == {"turned LU"}
    assert "large LU" not in {name(1024, "complex64", 2), _kernel_names.kernel_name(1024, 2, "float32", "cpu")}


@pytest.mark.parametrize(("serial", "of_many"), [(True, "batched LU"), (False, "LU in turn")])
def test_over_several_devices_the_table_gives_it_none(serial, of_many, monkeypatch):
    """Where LAPACK's batches wait for each other, as before jaxlib 0.11, they go matrix by matrix."""
    monkeypatch.setattr(_kernel_names, "LAPACK_BATCH_IS_SERIAL", serial)
    for n, batch, want in ((400, 1, "batched LU"), (1024, 1, "turned LU"), (400, 8, of_many), (2048, 1000, of_many)):
        for dtype in ("float32", "float64"):
            assert _kernel_names.kernel_name(n, batch, dtype, "cpu", products_follow=True) == want


def test_others_of_a_batch_are_as_they_are_alone():
    inverse = jax.jit(partial(large_lu_inverse, cuts=CUTS))
    X = np.random.default_rng(0).standard_normal((4, 33, 33))
    alone = [np.asarray(inverse(jnp.array(x))[0]) for x in X]
    X[0, 5, 7], X[2, :, 9] = np.nan, 0
    (Y,) = inverse(jnp.array(X.reshape(2, 2, 33, 33)))
    Y = Y.reshape(X.shape)
    assert not np.isfinite(Y[0]).all()
    assert not np.isfinite(Y[2]).all()
    for i in (1, 3):
        np.testing.assert_array_equal(Y[i], alone[i])


def test_nan_and_singular_are_not_finite():
    inverse = jax.jit(partial(large_lu_inverse, with_factors=True, cuts=CUTS))
    clean = np.random.default_rng(0).standard_normal((33, 33))
    assert np.isfinite(inverse(jnp.asarray(clean))[0]).all()
    for row, column in itertools.product((0, 8, 9, 20, 32), repeat=2):
        X = clean.copy()
        X[row, column] = np.nan
        assert np.isnan(inverse(jnp.asarray(X))[0]).all()
    for rows in ([5], [2, 30], range(33)):
        X = clean.copy()
        X[rows] = 0
        Y, factors = inverse(jnp.asarray(X))
        assert not np.isfinite(Y).all()
        assert (factors == 0).any()
