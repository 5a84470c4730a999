"""`inv_ex`: the bits of `inv`, the exact condition number, and singular matrices that harm nothing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import assert_trees_close, matrices
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_transforms import DERIVATIVES, SHORT, TOLERANCE, example, oracle

import jaxinv

pytestmark = pytest.mark.usefixtures("little_optimised")

# n and a batch for each kernel: reciprocal, fused LU, panel Gauss-Jordan, blocks.
BATCHES = {1: 17, 2: 17, 3: 17, 8: 17, 9: 400, 25: 5}
# n = 8 compiles for seconds, n = 9 goes through panels, as 25 through blocks.
sizes = pytest.mark.parametrize(
    "n", [pytest.param(n, marks=[pytest.mark.long] if n in (8, 9) else []) for n in BATCHES]
)


def inverse(X):
    return jaxinv.inv_ex(X).inverse


def with_singular_ones(n, dtype=np.float32):
    """A batch with singular matrices at places 1 to 4."""
    X = matrices(n, (BATCHES[n],), dtype=np.float64).astype(dtype)
    X[1] = 0
    X[2] = np.diag(np.arange(n))
    X[3, 0, 0] = np.nan
    X[4, -1, -1] = np.inf
    return X, np.isin(np.arange(BATCHES[n]), [1, 2, 3, 4])


@sizes
def test_singular_ones_are_zero_and_the_others_have_the_bits_of_inv(n):
    X, bad = with_singular_ones(n)
    Y, rcond, singular = jax.jit(jaxinv.inv_ex)(X)
    np.testing.assert_array_equal(singular, bad)
    np.testing.assert_array_equal(Y[bad], 0)
    np.testing.assert_array_equal(rcond[bad], 0)
    np.testing.assert_array_equal(Y[~bad], jax.jit(jaxinv.inv)(X)[~bad])
    assert (rcond[~bad] > 0).all()


@pytest.mark.parametrize(
    "dtype",
    ["float32", "complex128", "bfloat16", "int32"]
    + [pytest.param(dtype, marks=pytest.mark.long) for dtype in ("float64", "complex64", "float16")],
)
@pytest.mark.parametrize("n", [0, 1, 3, 25])
def test_shapes_dtypes_and_condition_number(n, dtype):
    X = matrices(n, (3, 2), dtype=np.complex128 if "complex" in dtype else np.float64).astype(jnp.dtype(dtype))
    X = X if dtype != "int32" else np.broadcast_to(np.eye(n, dtype=dtype) * 2, X.shape)
    Y, rcond, singular = jaxinv.inv_ex(X)
    chex.assert_shape((Y, rcond, singular), (X.shape, (3, 2), (3, 2)))
    chex.assert_type(Y, jaxinv.inv(X).dtype)
    chex.assert_type(singular, bool)
    chex.assert_type(rcond, {"bfloat16": "float32", "float16": "float32"}.get(dtype, jnp.finfo(Y.dtype).dtype))
    assert not singular.any()
    exact = 1 / np.linalg.cond(X.astype(complex), 1) if n else np.ones((3, 2))
    np.testing.assert_allclose(rcond, exact, rtol=200 * float(jnp.finfo(rcond.dtype).eps))


def test_condition_number_shows_what_rounding_hides():
    X = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9.0]]).astype(np.float32) / 10
    _, rcond, singular = jaxinv.inv_ex(X)
    assert singular or rcond < 3 * np.finfo(np.float32).eps


@pytest.mark.parametrize("derivative", SHORT)
def test_derivative_equals_that_of_the_builtin(derivative):
    X = jnp.asarray(example(3)[0])
    take = DERIVATIVES[derivative]
    assert_trees_close(jax.jit(lambda X: take(inverse, X))(X), oracle(derivative, 3), TOLERANCE)


@pytest.mark.parametrize(("derivative", "n"), [*((derivative, 3) for derivative in SHORT), ("value", 20)])
def test_vmap_of_derivative_equals_that_of_the_builtin(derivative, n):
    """Over the last axis, a singular matrix among the others."""
    Xs = np.stack([*example(n), np.zeros((n, n)), *example(n)] * 2, -1)
    ours = jax.jit(jax.vmap(lambda X: DERIVATIVES[derivative](inverse, X), in_axes=-1))(Xs)
    for which in (0, 3, 5, 8, 9, 17):
        mine = jax.tree.map(lambda Z, which=which: np.asarray(Z)[which], ours)
        assert_trees_close(mine, jax.tree.map(np.asarray, oracle(derivative, n, which % 9 % 5)), TOLERANCE)


@sizes
def test_gradients_beside_singular_ones_keep_their_bits(n):
    """Whatever the loss does with the zeros: here their logarithms and reciprocals, nan and inf."""
    X, bad = with_singular_ones(n)
    clean = X.copy()
    clean[bad] = np.eye(n)
    gradient = jax.jit(jax.grad(lambda X: jnp.sum(jnp.log(jnp.abs(inverse(X)) + jnp.float32(0)))))
    tangent = jax.jit(lambda X: jax.jvp(inverse, (X,), (jnp.ones_like(X),))[1])
    for f in (gradient, tangent):
        np.testing.assert_array_equal(f(X)[~bad], f(clean)[~bad])
        np.testing.assert_array_equal(f(X)[bad], 0)


@sizes
def test_shared_parameter_gets_no_nan(n):
    X, bad = with_singular_ones(n)
    X[3:5] = 0  # singular for every value of the parameter

    def loss(inv):
        def scalar(t):
            Y = inv(t * X)
            return jnp.sum(jnp.where(bad[:, None, None], 0, jnp.sin(Y)))

        return scalar

    ours = jax.grad(loss(inverse))(jnp.float32(2))
    assert np.isnan(jax.grad(loss(jaxinv.inv))(jnp.float32(2)))  # the leak that is stopped
    good = np.where(bad[:, None, None], np.eye(n, dtype=np.float32), X)
    exact = jax.grad(lambda t: jnp.sum(jnp.where(bad[:, None, None], 0, jnp.sin(jaxinv.inv(t * good)))))(jnp.float32(2))
    np.testing.assert_allclose(ours, exact, rtol=1e-5)
    second = jax.grad(jax.grad(loss(inverse)))(jnp.float32(2))
    assert np.isfinite(second)


def test_diagnostics_have_no_gradient():
    X = jnp.asarray(matrices(3))
    np.testing.assert_array_equal(jax.grad(lambda X: jaxinv.inv_ex(X).rcond)(X), 0)
    _, tangents = jax.jvp(jaxinv.inv_ex, (X,), (X,))
    assert tangents.rcond == 0
    assert tangents.singular.dtype == jax.dtypes.float0


@pytest.mark.parametrize("mode", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("n", [3, pytest.param(9, marks=pytest.mark.long)])
def test_sharded_batch_equals_the_whole_one(mode, n):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(mode,), devices=jax.devices("cpu"))
    X = np.tile(with_singular_ones(n)[0], (8, 1, 1))
    X_ = jax.device_put(X, NamedSharding(mesh, P("batch")))
    with jax.set_mesh(mesh) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(mesh):
        f = jax.jit(jaxinv.inv_ex)
        result = f(X_)
        text = f.lower(X_).compile().as_text()
    assert all(leaf.sharding.spec[0] == "batch" for leaf in result)
    assert "all-gather" not in text
    whole = jaxinv.inv_ex(X)
    np.testing.assert_array_equal(result.singular, whole.singular)
    # Batches of another length are cut into other tiles, and rounded otherwise: entries are of order 1.
    np.testing.assert_allclose(result.inverse, whole.inverse, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("place", ["scan", "shard_map", "cond", "checkpoint"])
def test_inside_control_flow(place):
    X, bad = with_singular_ones(3)
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
    f = {
        "scan": lambda X: jax.lax.scan(lambda c, X: (c, jaxinv.inv_ex(X)), 0.0, X)[1],
        "shard_map": jax.shard_map(jaxinv.inv_ex, mesh=mesh, in_specs=P("batch"), out_specs=P("batch")),
        "cond": lambda X: jax.lax.cond(X[0, 0, 0] < 9, jaxinv.inv_ex, jaxinv.inv_ex, X),
        "checkpoint": jax.checkpoint(jaxinv.inv_ex),
    }[place]
    result = jax.jit(f)(X)
    np.testing.assert_array_equal(result.singular, bad)
    np.testing.assert_allclose(result.inverse, jaxinv.inv_ex(X).inverse, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda X: jnp.sum(f(X).inverse ** 2)))(X)
    assert np.isfinite(gradient).all()
