"""The rule of the inverse: its values, its residual, and that it is the one that runs."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import assert_trees_close, matrices
from jax.test_util import check_grads

import jaxinv
from jaxinv import _rule

pytestmark = pytest.mark.usefixtures("little_optimised")

HIGHEST = jax.lax.Precision.HIGHEST
SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 32]
SIZES += [pytest.param(n, marks=pytest.mark.long) for n in (33, 48, 64)]


def weights(n):
    return np.cos(np.arange(n * n, dtype=float)).reshape(n, n)


def loss(inv):
    """A scalar of the inverse whose derivatives of every order differ."""
    return lambda X: jnp.sum(jnp.sin(inv(X)) * weights(X.shape[-1]))


OURS = jax.jit(jax.grad(loss(jaxinv.inv)))
OURS_BATCHED = jax.jit(jax.vmap(OURS))
BUILTIN = jax.jit(jax.grad(loss(jnp.linalg.inv)))


@pytest.mark.parametrize("n", SIZES)
def test_gradient_equals_that_of_the_builtin(n):
    """To 1e-12 relative. The condition number is 4, so that n eps cond is below 1e-13 for the largest n."""
    X = matrices(n, (17,), cond=4)
    oracle = np.stack([BUILTIN(x) for x in X])  # one matrix at a time: the batched gradient of the builtin can hang
    assert_trees_close(np.asarray(OURS(X[0])), oracle[0], 1e-12)
    assert_trees_close(np.asarray(OURS_BATCHED(X)), oracle, 1e-12)
    with pytest.raises(AssertionError, match=r"error .* above"):
        assert_trees_close(oracle * (1 + 1e-11), oracle, 1e-12)


@pytest.mark.parametrize(("n", "dtype"), [(1, np.float64), (3, np.complex128), (17, np.float64)])
def test_finite_differences_agree_to_second_order(n, dtype):
    """check_grads steps by 1e-5: central differences are then good to about 1e-7 of values of order cond^3."""
    X = matrices(n, (2,), cond=4, dtype=dtype)
    check_grads(jaxinv.inv, (X,), order=2, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_finite_differences_reject_a_rule_wrong_by_one_percent(mode, monkeypatch):
    break_rule(monkeypatch)
    with pytest.raises(AssertionError):
        check_grads(primitive, (matrices(3, cond=4),), order=1, modes=(mode,), atol=1e-4, rtol=1e-4)


def primitive(X):
    """The inverse below the jit shell, so that no trace is taken from a cache."""
    return _rule.inverse(jnp.asarray(X), HIGHEST)


def break_rule(monkeypatch):
    product = _rule.minus_product
    monkeypatch.setattr(_rule, "minus_product", lambda *args, **options: 1.01 * product(*args, **options))


def test_one_rule_runs_in_both_modes(monkeypatch):
    """The rule made wrong by one per cent moves forward mode and reverse mode, and nothing else, by one per cent."""
    X, V = matrices(5, (2,), cond=4)
    value, gradient = primitive(X), jax.grad(loss(primitive))(X)
    tangent = jax.jvp(primitive, (X,), (V,))[1]
    break_rule(monkeypatch)
    assert_trees_close(primitive(X), value, 0)
    assert_trees_close(jax.grad(loss(primitive))(X), 1.01 * gradient, 1e-14)
    assert_trees_close(jax.jvp(primitive, (X,), (V,))[1], 1.01 * tangent, 1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
def test_rule_equals_its_formula(n, dtype):
    """X_bar = -Y^T G Y^T and dY = -Y dX Y: plain transposes, also where conjugates would make a difference."""
    X, G, dX = matrices(n, (3,), cond=4, dtype=dtype)
    Y = np.linalg.inv(X)
    value, pullback = jax.vjp(jaxinv.inv, X)
    assert_trees_close(np.asarray(value), Y, 1e-13)
    assert_trees_close(np.asarray(pullback(G)[0]), -Y.T @ G @ Y.T, 1e-13)
    assert_trees_close(np.asarray(jax.jvp(jaxinv.inv, (X,), (dX,))[1]), -Y @ dX @ Y, 1e-13)


def test_pullback_is_the_transpose_of_the_pushforward():
    """<G, dY> = <X_bar, dX> without conjugates."""
    X, G, dX = matrices(6, (3,), cond=4, dtype=np.complex128)
    dY = jax.jvp(jaxinv.inv, (X,), (dX,))[1]
    X_bar = jax.vjp(jaxinv.inv, X)[1](G)[0]
    assert_trees_close(np.sum(G * dY), np.sum(X_bar * dX), 1e-13)


@pytest.mark.parametrize("shape", [(3, 3), (17, 17), (17, 3, 3), (17, 17, 17)], ids=str)
@pytest.mark.parametrize("jit", [False, True])
def test_residual_is_the_inverse_alone(shape, jit):
    X = matrices(shape[-1], shape[:-2], cond=4)
    inv = jax.jit(jaxinv.inv) if jit else jaxinv.inv
    Y, pullback = jax.vjp(inv, X)
    residuals = [leaf for leaf in jax.tree.leaves(pullback) if leaf.size > 1]
    assert len(residuals) == 1
    chex.assert_trees_all_equal(residuals[0], Y)


@pytest.mark.parametrize("n", [3, 17])
def test_residual_in_the_jaxpr_is_the_output(n):
    """Traced, the pullback holds the very variable that is the output: one array of n x n is kept, not two."""
    jaxpr = jax.make_jaxpr(lambda X: [Z for Z in jax.tree.leaves(jax.vjp(primitive, X)) if jnp.size(Z) > 1])(jnp.eye(n))
    output, *residuals = jaxpr.jaxpr.outvars
    assert residuals == [output]
    assert [str(eqn.primitive) for eqn in jaxpr.eqns] == ["inverse"]


@pytest.mark.parametrize("n", [3, 17])
def test_pullback_factorises_nothing(n):
    """The cotangent rule is products alone: no elimination is run again."""
    X = np.eye(n)
    for function in (jax.vjp(jaxinv.inv, X)[1], jax.linearize(jaxinv.inv, X)[1]):
        text = jax.jit(lambda G, f=function: f(G)).lower(X).compile().as_text()
        assert not any(word in text for word in ("getrf", "trsm", "triangular", "while", "lu_pivots", "reduce-window"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_gradient_of_half_precision_is_computed_in_float32(dtype):
    X = matrices(4, cond=4).astype(jnp.dtype(dtype))
    gradient = jax.grad(lambda X: jnp.trace(jaxinv.inv(X)))(X)
    chex.assert_type(gradient, X.dtype)
    Y = np.linalg.inv(X.astype(float))
    error = np.max(np.abs(gradient.astype(float) + (Y @ Y).T)) / np.max(np.abs(Y @ Y))
    # one rounding of the result, half an eps of each entry; computing in half precision costs several
    assert error <= 0.5 * float(jnp.finfo(dtype).eps) + 1e-5


@pytest.mark.parametrize("n", [2, 3, 17])
def test_zero_cotangent_and_tangent_give_zero(n):
    X = matrices(n, cond=4)
    Z = np.zeros_like(X)
    np.testing.assert_array_equal(jax.vjp(jaxinv.inv, X)[1](Z)[0], Z)
    np.testing.assert_array_equal(jax.jvp(jaxinv.inv, (X,), (Z,))[1], Z)
    np.testing.assert_array_equal(jax.grad(lambda X: jax.lax.stop_gradient(jaxinv.inv(X)).sum())(X), Z)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0, 0), (0, 3, 3)], ids=str)
def test_derivatives_of_nothing_are_empty(shape):
    X = np.zeros(shape)
    chex.assert_shape(jax.grad(lambda X: jaxinv.inv(X).sum())(X), shape)
    chex.assert_shape(jax.jvp(jaxinv.inv, (X,), (X,))[1], shape)
    chex.assert_shape(jaxinv.inv_jacobian(X), (*shape, *shape[-2:]))
