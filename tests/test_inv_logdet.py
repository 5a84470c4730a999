"""`inv_logdet`: values against NumPy in float64, derivatives against `jnp.linalg.inv` and `jnp.linalg.slogdet`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import assert_is_inverse, assert_trees_close, matrices
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from test_transforms import DERIVATIVES, SHORT, TOLERANCE, example

import jaxinv

pytestmark = pytest.mark.usefixtures("little_optimised")

# n and a batch for each kernel: reciprocal, fused LU as it lies and of vectors, panel Gauss-Jordan, blocks.
BATCHES = {1: 17, 2: 17, 3: 17, 5: 750, 8: 17, 9: 648, 25: 5}
DTYPES = ["float32", "float64", "complex64", "complex128", "bfloat16", "float16"]
LATER = {"complex64": pytest.mark.later}  # larger ones compile for seconds in each


def random(n, batch, dtype):
    X = matrices(n, batch, dtype=np.complex128 if "complex" in dtype else np.float64)
    return (2 * X).astype(jnp.dtype(dtype))


def mixed(f):
    """One array of all results, so that derivatives of each are seen; entries for the derivative in two of them."""

    def array(X):
        Y, sign, logabsdet = f(X)
        return Y * jnp.exp(logabsdet / 3) + logabsdet * sign

    return array


def builtin(X):
    return (jnp.linalg.inv(X), *jnp.linalg.slogdet(X))


@pytest.mark.parametrize(
    ("n", "dtype"),
    [
        pytest.param(n, dtype, marks=[] if n < 5 or dtype == "float32" else [LATER.get(dtype, pytest.mark.long)])
        for n in (0, *BATCHES)
        for dtype in DTYPES
    ],
)
def test_values_equal_numpys(n, dtype):
    X = random(n, (BATCHES.get(n, 3),), dtype)
    Y, sign, logabsdet = jaxinv.inv_logdet(X)
    chex.assert_shape((Y, sign, logabsdet), (X.shape, X.shape[:1], X.shape[:1]))
    chex.assert_type(Y, X.dtype)
    wide = jnp.float32 if "float16" in dtype else X.dtype
    chex.assert_type([sign, logabsdet], [wide, jnp.finfo(wide).dtype])
    assert_is_inverse(Y, X)
    exact_sign, exact = np.linalg.slogdet(X.astype(complex if "complex" in dtype else float))
    eps = float(jnp.finfo(wide).eps)
    np.testing.assert_allclose(sign, exact_sign, rtol=0, atol=10 * (n + 1) * eps)
    np.testing.assert_allclose(logabsdet, exact, rtol=10 * eps, atol=30 * (n + 1) * eps)


@pytest.mark.parametrize("n", [3, 9, 25])
def test_inverse_has_the_bits_of_inv(n):
    X = random(n, (BATCHES[n],), "float32")
    np.testing.assert_array_equal(jaxinv.inv_logdet(X).inverse, jaxinv.inv(X))


@pytest.mark.parametrize("n", [2, 3, 8, 9, 25])
def test_sign_of_permutations_is_exact(n):
    rng = np.random.default_rng(n)
    X = np.stack([np.eye(n, dtype=np.float32)[rng.permutation(n)] for _ in range(BATCHES[n])])
    _, sign, logabsdet = jaxinv.inv_logdet(X)
    np.testing.assert_array_equal(sign, np.linalg.slogdet(X)[0])
    assert len(np.unique(sign)) == 2
    np.testing.assert_array_equal(logabsdet, 0)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("n", [1, 3, 5, 9, 25])
def test_singular_has_sign_0_and_logabsdet_minus_inf(n, dtype):
    X = random(n, (BATCHES[n],), dtype)
    clean = jaxinv.inv_logdet(X)
    X[1] = 0
    X[2] = np.diag(np.arange(n))
    X[3] = np.roll(np.diag(np.arange(n)), 1, axis=0)
    X[4] = np.nan
    Y, sign, logabsdet = jaxinv.inv_logdet(X)
    np.testing.assert_array_equal(sign[1:4], 0)
    np.testing.assert_array_equal(logabsdet[1:4], -np.inf)
    assert not np.isfinite(Y[1:5]).all((-2, -1)).any()
    assert np.isnan(logabsdet[4])
    for got, want in zip((Y, sign, logabsdet), clean, strict=True):
        np.testing.assert_array_equal(got[5:], want[5:])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("n", [3, 9, 25])
def test_determinant_that_over_or_underflows(n, scale):
    X = random(n, (BATCHES[n],), "float32") * np.float32(scale)
    np.testing.assert_allclose(jaxinv.inv_logdet(X).logabsdet, np.linalg.slogdet(X.astype(float))[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("derivative", "n"),
    [pytest.param(name, 3, marks=[] if name in (*SHORT, "hessian") else [pytest.mark.long]) for name in DERIVATIVES]
    + [pytest.param(name, 20, marks=[] if name in SHORT[:2] else [pytest.mark.long]) for name in SHORT],
)
def test_derivative_equals_that_of_the_builtins(derivative, n):
    X = jnp.asarray(example(n)[0])
    ours, theirs = (
        jax.jit(lambda X, f=f: DERIVATIVES[derivative](mixed(f), X))(X) for f in (jaxinv.inv_logdet, builtin)
    )
    assert_trees_close(ours, theirs, TOLERANCE)


@pytest.mark.parametrize("n", [3, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize("derivative", ["grad", "jvp", "hessian-vector"])
def test_complex_derivative_equals_that_of_the_builtins(derivative, n):
    X, V = (jnp.asarray(matrices(n, dtype=np.complex128, cond=4, seed=seed)) for seed in (0, 1))

    def loss(f):
        def scalar(X):
            Y, sign, logabsdet = f(X)
            return jnp.sum(jnp.abs(jnp.sin(Y)) ** 2) + jnp.imag(sign**2) + jnp.real((2 + 3j) * sign) + logabsdet**2

        return scalar

    take = {
        "grad": lambda f: jax.grad(loss(f))(X),
        "jvp": lambda f: jax.jvp(lambda X: tuple(f(X)), (X,), (V,)),
        "hessian-vector": lambda f: jax.jvp(jax.grad(loss(f)), (X,), (V,))[1],
    }[derivative]
    assert_trees_close(take(jaxinv.inv_logdet), take(builtin), TOLERANCE)


def one_by_one(f, n):
    return [jax.jit(f)(X) for X in example(n)]


CONTEXTS = {
    "vmap": lambda f: jax.vmap(f),
    "vmap in_axes=-1": lambda f: lambda Xs: jax.vmap(f, in_axes=-1)(jnp.moveaxis(Xs, 0, -1)),
    "vmap nested": lambda f: lambda Xs: jax.tree.map(jnp.concatenate, jax.vmap(jax.vmap(f))(jnp.stack([Xs] * 2))),
    "scan": lambda f: lambda Xs: jax.lax.scan(lambda c, X: (c, f(X)), 0.0, Xs)[1],
    "map": lambda f: lambda Xs: jax.lax.map(f, Xs, batch_size=2),
    "checkpoint": lambda f: jax.vmap(jax.checkpoint(f)),
    "cond": lambda f: jax.vmap(lambda X: jax.lax.cond(X[0, 0] < 9, f, f, X)),
}


@pytest.mark.parametrize(("context", "n"), [(context, 3) for context in CONTEXTS] + [("vmap", 20)])
def test_context_gives_what_each_matrix_alone_gives(context, n):
    """Value, and both modes of the first derivative and the second."""
    take = lambda X: DERIVATIVES["jvp-of-value_and_grad"](mixed(jaxinv.inv_logdet), X)
    alone = one_by_one(take, n)
    together = jax.jit(CONTEXTS[context](take))(jnp.asarray(np.tile(example(n), (5, 1, 1))))
    for which in (0, 1, 6, 19):
        mine = jax.tree.map(lambda Z, which=which: np.asarray(Z)[which], together)
        assert_trees_close(mine, jax.tree.map(np.asarray, alone[which % 4]), TOLERANCE)


@pytest.mark.parametrize("mode", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("n", [3, pytest.param(9, marks=pytest.mark.long)])
def test_sharded_batch_stays_sharded(mode, n):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(mode,), devices=jax.devices("cpu"))
    X = random(n, (8 * BATCHES[n] // n * n,), "float64")
    X = X[: len(X) // 128 * 128]

    def everything(X):
        value = jaxinv.inv_logdet(X)
        return tuple(value), jax.grad(lambda X: jaxinv.inv_logdet(X).logabsdet.sum())(X)

    with jax.set_mesh(mesh) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(mesh):
        X_ = jax.device_put(X, NamedSharding(mesh, P("batch")))
        f = jax.jit(everything)
        result = f(X_)
        text = f.lower(X_).compile().as_text()
    assert all(leaf.sharding.spec[0] == "batch" for leaf in jax.tree.leaves(result))
    assert "all-gather" not in text
    (_, _, logabsdet), gradient = result
    np.testing.assert_allclose(logabsdet, np.linalg.slogdet(X)[1], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(gradient, np.linalg.inv(X).swapaxes(-1, -2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("n", [3, pytest.param(9, marks=pytest.mark.long)])
def test_shard_map(n, check_vma):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,), devices=jax.devices("cpu"))
    X = random(n, (8 * 400,), "float64")
    f = jax.shard_map(
        lambda X: tuple(jaxinv.inv_logdet(X)),
        mesh=mesh,
        in_specs=P("batch"),
        out_specs=P("batch"),
        check_vma=check_vma,
    )
    for got, want in zip(jax.jit(f)(X), jaxinv.inv_logdet(X), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)
