"""`assume_a` and `lower`: what is read, values, derivatives along the structure, and every way to get there."""

import inspect
from functools import partial

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from _cases import assert_is_inverse, assert_trees_close, x64_off
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.test_util import check_grads
from test_lowering import custom_calls, double_precision, exported
from test_sharding import COLLECTIVES, entered, mesh

import jaxinv
from jaxinv._structure import KINDS

pytestmark = pytest.mark.usefixtures("little_optimised")

SCIPY = [None, "general", "gen", "diagonal", "upper triangular", "lower triangular", "pos", "sym", "her"]
LONG = ["symmetric", "hermitian", "positive definite"]
# Each structure, and each triangle that it may be read from.
STRUCTURES = [
    ("sym", False), ("sym", True), ("her", False), ("her", True), ("pos", False), ("pos", True),
    ("upper triangular", False), ("lower triangular", False), ("lower triangular", True), ("diagonal", False),
]  # fmt: skip
structures = pytest.mark.parametrize(("assume_a", "lower"), STRUCTURES)
each_kind = pytest.mark.parametrize(
    "assume_a", ["sym", "her", "pos", "upper triangular", "lower triangular", "diagonal"]
)
# n and a batch for each kernel: one call of LAPACK, fused, two fused blocks, blocks by LAPACK for many and for few.
CASES = [(5, ()), (5, (17,)), (14, (17,)), (26, (17,)), (150, ())]
NAMES = ["inv", "inv_ex", "inv_logdet"]
names = pytest.mark.parametrize("name", NAMES)


def example(assume_a, n, batch=(), dtype=np.float64, seed=0):
    """Matrices of the structure, in full, with a condition number of a few tens."""
    rng = np.random.default_rng([seed, n])
    Z = rng.standard_normal((*batch, n, n)) / max(n, 1) ** 0.5
    if np.issubdtype(dtype, np.complexfloating):
        Z = Z + 1j * rng.standard_normal((*batch, n, n)) / max(n, 1) ** 0.5
    adjoint = Z.conj().swapaxes(-1, -2)
    X = Z @ adjoint + np.eye(n) if assume_a == "pos" else project(Z, assume_a) + 3 * np.eye(n)
    return project(X, assume_a).astype(dtype)


def project(Z, assume_a):
    """The projection on the structure, for NumPy and JAX."""
    Zt = Z.swapaxes(-1, -2)
    mask = {"upper triangular": np.triu, "lower triangular": np.tril, "diagonal": lambda ones: np.eye(len(ones))}
    if assume_a in mask:
        return Z * mask[assume_a](np.ones(Z.shape[-2:])).astype(Z.dtype).reshape((1,) * (Z.ndim - 2) + Z.shape[-2:])
    return (Z + (Zt if assume_a == "sym" else Zt.conj())) / 2


def with_nan(X, assume_a, lower):
    """X with nan in every entry that is not to be read."""
    n = X.shape[-1]
    upper = {"upper triangular": True, "lower triangular": False}.get(assume_a, not lower)
    unread = np.tril(np.ones((n, n), bool), -1) if upper else np.triu(np.ones((n, n), bool), 1)
    X = np.where(~np.eye(n, dtype=bool) if assume_a == "diagonal" else unread, np.nan, X).astype(X.dtype)
    if np.iscomplexobj(X) and assume_a in ("her", "pos"):
        X.imag[..., range(n), range(n)] = np.nan
    return X


@pytest.mark.parametrize("assume_a", [*SCIPY, *LONG])
def test_every_spelling_of_scipy(assume_a):
    Z = np.random.default_rng(0).standard_normal((4, 4))
    X = Z @ Z.T + np.eye(4)
    kind = KINDS[assume_a]
    exact = np.linalg.inv(project(X, kind) if kind in ("upper triangular", "lower triangular", "diagonal") else X)
    Y = jaxinv.inv(X, assume_a=assume_a)
    np.testing.assert_allclose(Y, exact, rtol=0, atol=1e-12)
    if "assume_a" in inspect.signature(scipy.linalg.inv).parameters and assume_a in SCIPY:
        theirs = scipy.linalg.inv(X, assume_a=assume_a)  # which leaves entries that are zero as they came
        np.testing.assert_allclose(np.where(Y == 0, theirs, Y), theirs, rtol=0, atol=1e-12)


def test_spellings_are_these():
    assert set(KINDS) == {*SCIPY, *LONG}


@names
@pytest.mark.parametrize("assume_a", ["posdef", "Sym", "", 1, True, ["pos"], "tridiagonal", "banded"], ids=repr)
def test_unknown_structure_raises_with_the_choices(name, assume_a):
    choices = "None, 'general', .*'sym', .*'her', .*'pos', 'upper triangular', 'lower triangular', 'diagonal', got "
    with pytest.raises(ValueError, match=f"^{name}: assume_a must be one of {choices}"):
        getattr(jaxinv, name)(jnp.eye(2), assume_a=assume_a)


@names
@pytest.mark.parametrize("assume_a", [None, "general", "gen", "upper triangular", "diagonal"])
def test_lower_that_contradicts_raises(name, assume_a):
    with pytest.raises(ValueError, match=f"^{name}: lower=True chooses .* or 'lower triangular', got {assume_a!r}"):
        getattr(jaxinv, name)(jnp.eye(2), assume_a=assume_a, lower=True)


@names
@pytest.mark.parametrize("lower", [1, None, "lower", jnp.array(True)], ids=repr)
def test_lower_that_is_no_bool_raises(name, lower):
    with pytest.raises(TypeError, match=f"^{name}: lower must be True or False, got "):
        getattr(jaxinv, name)(jnp.eye(2), assume_a="sym", lower=lower)


def test_options_are_keyword_only():
    with pytest.raises(TypeError, match="positional argument"):
        jaxinv.inv(jnp.eye(2), "sym")


@pytest.mark.parametrize(
    ("n", "batch", "assume_a", "lower", "dtype"),
    [
        *((5, (), *structure, dtype) for structure in STRUCTURES for dtype in (np.float64, np.complex128)),
        *(
            (n, batch, a, lower, np.float64)
            for n, batch in CASES[1:]
            for a, lower in (("pos", True), ("upper triangular", False))
        ),
        *((14, (17,), a, False, np.complex128) for a in ("pos", "lower triangular")),
    ],
)
def test_entries_that_are_not_read_change_no_bit(n, batch, assume_a, lower, dtype):
    """Of values and gradients; and these are the inverse, with the structure exactly."""
    X = example(assume_a, n, batch, dtype)

    @jax.jit
    def f(X):
        Y, pullback = jax.vjp(partial(jaxinv.inv, assume_a=assume_a, lower=lower), X)
        return Y, pullback(jnp.cos(Y))[0]

    (Y, X_bar), with_nans = f(X), f(with_nan(X, assume_a, lower))
    chex.assert_trees_all_equal(with_nans, (Y, X_bar))
    exact = np.linalg.inv(X)
    np.testing.assert_allclose(Y, exact, rtol=0, atol=1e-13 * np.abs(exact).max() * n)
    Yt = exact.swapaxes(-1, -2)
    formula = project(-Yt @ np.cos(exact) @ Yt, assume_a)
    assert_trees_close(np.asarray(X_bar), formula, 1e-12 * n)
    np.testing.assert_array_equal(Y, np.asarray(project(Y, assume_a)))
    np.testing.assert_array_equal(X_bar, np.asarray(project(X_bar, assume_a)))


@pytest.mark.parametrize(
    "dtype",
    ["float32", pytest.param("complex64", marks=pytest.mark.later)]
    + [pytest.param(dtype, marks=pytest.mark.long) for dtype in ("int32", "bfloat16", "float16", "bool")],
)
@structures
def test_dtypes(assume_a, lower, dtype):
    X = example(assume_a, 4, (3,), np.complex128 if dtype == "complex64" else np.float64).astype(jnp.dtype(dtype))
    X = X if dtype not in ("int32", "bool") else np.broadcast_to(np.eye(4, dtype=dtype), X.shape)
    Y = jaxinv.inv(X, assume_a=assume_a, lower=lower)
    chex.assert_type(Y, jaxinv.inv(X).dtype)
    assert_is_inverse(Y, X, cond=100)
    Y, sign, logabsdet = jaxinv.inv_logdet(X, assume_a=assume_a, lower=lower)
    assert_is_inverse(Y, X, cond=100)
    exact_sign, exact = np.linalg.slogdet(X.astype(complex))
    np.testing.assert_allclose(sign, exact_sign, rtol=0, atol=1e-5)
    np.testing.assert_allclose(logabsdet, exact, rtol=0, atol=1e-5)
    with x64_off():
        chex.assert_type(jaxinv.inv(np.eye(2), assume_a=assume_a, lower=lower), jnp.float32)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0, 0), (0, 3, 3), (1, 1), (2, 1, 1)], ids=str)
@each_kind
def test_empty_and_one_by_one(assume_a, shape):
    X = np.full(shape, 4.0)
    f = partial(jaxinv.inv, assume_a=assume_a)
    np.testing.assert_array_equal(f(X), np.full(shape, 0.25) if shape[-1] == 1 else X)
    np.testing.assert_array_equal(jax.grad(lambda X: f(X).sum())(X), np.full(shape, -1 / 16) if shape[-1] == 1 else X)
    _, sign, logabsdet = jaxinv.inv_logdet(X, assume_a=assume_a)
    chex.assert_shape((sign, logabsdet), (shape[:-2],) * 2)
    np.testing.assert_allclose(logabsdet, np.log(4) * shape[-1])
    assert not jaxinv.inv_ex(X, assume_a=assume_a).singular.any()


@pytest.mark.parametrize(
    ("assume_a", "n", "batch"),
    [
        *(("pos", *case) for case in CASES),
        *(("upper triangular", *case) for case in CASES[1:3]),
        *((a, *CASES[0]) for a in ("lower triangular", "diagonal", "sym", "her")),
    ],
)
def test_logdet_equals_slogdet(assume_a, n, batch):
    X = example(assume_a, n, batch)
    X = X if assume_a == "pos" else X * np.where(np.arange(n) % 3 == 0, -1, 1)[:, None] if "tri" in assume_a else X
    _, sign, logabsdet = jaxinv.inv_logdet(with_nan(X, assume_a, False), assume_a=assume_a)
    exact_sign, exact = np.linalg.slogdet(X)
    np.testing.assert_array_equal(sign, exact_sign)
    np.testing.assert_allclose(logabsdet, exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("assume_a", "n"),
    [("pos", 5), ("pos", 14), ("upper triangular", 5), ("lower triangular", 14), ("diagonal", 5), ("sym", 5)],
)
def test_singular_ones_are_reported_and_harm_nobody(assume_a, n):
    X = example(assume_a, n, (17,), np.float32)
    X[1] = 0
    X[2] = np.diag(np.arange(n))
    X[3] = np.nan
    good = np.r_[0, 4:17]
    Y, sign, logabsdet = jaxinv.inv_logdet(X, assume_a=assume_a)
    assert not np.isfinite(Y[1:4]).all((-2, -1)).any()
    singular = np.nan if assume_a == "pos" else -np.inf  # a singular matrix is not positive definite
    np.testing.assert_array_equal(logabsdet[1:3], singular)
    np.testing.assert_array_equal(sign[1:3], np.nan if assume_a == "pos" else 0)
    inverse, rcond, is_singular = jaxinv.inv_ex(X, assume_a=assume_a)
    np.testing.assert_array_equal(np.flatnonzero(is_singular), [1, 2, 3])
    np.testing.assert_array_equal(inverse[1:4], 0)
    np.testing.assert_allclose(rcond[good], 1 / np.linalg.cond(X[good].astype(float), 1), rtol=1e-4)
    gradient = jax.jit(jax.grad(lambda X: jnp.sum(jnp.log(jnp.abs(jaxinv.inv_ex(X, assume_a=assume_a).inverse) + 1))))
    X_bar = gradient(X)
    assert np.isfinite(X_bar).all()
    np.testing.assert_array_equal(X_bar[1:4], 0)
    np.testing.assert_array_equal(
        X_bar[good], gradient(np.where(np.isin(np.arange(17), good)[:, None, None], X, np.eye(n, dtype=X.dtype)))[good]
    )


def test_indefinite_matrix_is_nan_and_reported():
    X = np.stack([np.diag([1.0, -1.0, 2.0]), np.diag([1.0, 1.0, 2.0])])
    assert np.isnan(jaxinv.inv(X, assume_a="pos")[0]).all()
    np.testing.assert_array_equal(jaxinv.inv_ex(X, assume_a="pos").singular, [True, False])
    _, sign, logabsdet = jaxinv.inv_logdet(X, assume_a="pos")
    assert np.isnan(sign[0])
    assert np.isnan(logabsdet[0])
    np.testing.assert_allclose(logabsdet[1], np.log(2))


@pytest.mark.parametrize(
    ("assume_a", "dtype"),
    [
        ("lower triangular", np.float64),
        pytest.param("her", np.complex128, marks=pytest.mark.later),
        *(pytest.param(a, np.float64, marks=pytest.mark.long) for a in ("sym", "pos", "diagonal")),
        pytest.param("sym", np.complex128, marks=pytest.mark.long),
    ],
)
def test_finite_differences_along_the_structure(assume_a, dtype):
    """The argument is projected first, so that every step stays in the structure; both modes, two orders."""
    X = example(assume_a, 3, (), dtype)

    def f(X):
        Y, _, logabsdet = jaxinv.inv_logdet(project(X, assume_a), assume_a=assume_a)
        return jnp.sin(Y) * jnp.exp(logabsdet / 3).astype(Y.dtype)

    check_grads(jax.jit(f), (X,), order=2, modes=("fwd", "rev"), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [np.float64, np.complex128])
@each_kind
def test_tangents_and_cotangents_are_projected(assume_a, dtype):
    X, (dX, G) = example(assume_a, 4, (), dtype), np.random.default_rng(1).standard_normal((2, 4, 4)).astype(dtype)
    f = partial(jaxinv.inv, assume_a=assume_a)
    Y, Yt = np.linalg.inv(X), np.linalg.inv(X).T
    dY = jax.jvp(f, (X,), (dX,))[1]
    X_bar = jax.vjp(f, X)[1](jnp.asarray(G))[0]
    assert_trees_close(np.asarray(dY), -Y @ project(dX, assume_a) @ Y, 1e-13)
    assert_trees_close(np.asarray(X_bar), project(-Yt @ G @ Yt, assume_a), 1e-13)
    pairing = lambda A, B: np.sum(A * B).real  # JAX's, of which the pullback is the transpose
    np.testing.assert_allclose(pairing(G, np.asarray(dY)), pairing(np.asarray(X_bar), dX), rtol=1e-12)


@each_kind
def test_gradient_descent_keeps_the_structure(assume_a):
    X = example(assume_a, 4)
    for _ in range(3):
        gradient = jax.grad(lambda X: jnp.sum(jnp.sin(jaxinv.inv(X, assume_a=assume_a))))(X)
        X = X - 0.1 * np.asarray(gradient)
        np.testing.assert_array_equal(X, project(X, assume_a))


CONTEXTS = {
    "scan": lambda f, X: lax.scan(lambda Z, _: (f(Z), None), X, length=3)[0],
    "scan over inputs": lambda f, X: lax.scan(lambda c, Z: (c, f(Z)), 0.0, jnp.stack([X, 2 * X]))[1][0],
    "vmap": lambda f, X: jax.vmap(f)(jnp.stack([X * s for s in np.linspace(1, 2, 17).tolist()]))[0],
    "nested vmap with odd axes": lambda f, X: jax.vmap(jax.vmap(f, 1, -1), -1, 1)(
        jnp.stack([jnp.stack([X * s for s in np.linspace(1, 2, 9).tolist()], 1), jnp.stack([X] * 9, 1)], -1)
    )[:, 0, :, 0],
    "checkpoint": lambda f, X: jax.checkpoint(f)(X),
    "cond": lambda f, X: lax.cond(X[0, 0].real < 1e9, f, lambda X: X, X),
}


@pytest.mark.parametrize(
    ("context", "assume_a", "dtype"),
    [
        *((context, "pos", np.complex128) for context in ("scan", "nested vmap with odd axes", "cond")),
        *(
            pytest.param(context, "pos", np.complex128, marks=pytest.mark.long)
            for context in ("scan over inputs", "vmap", "checkpoint")
        ),
        *(
            pytest.param(context, a, np.float64, marks=pytest.mark.long)
            for context in ("scan", "vmap")
            for a in ("sym", "upper triangular")
        ),
    ],
)
def test_derivatives_to_second_order_inside(context, assume_a, dtype):
    """A custom rule has been lost at second order in `scan` before JAX 0.12: here too, each has one right answer."""
    X, V = example(assume_a, 3, (), dtype), example(assume_a, 3, (), dtype, seed=1)
    f = partial(jaxinv.inv, assume_a=assume_a)

    def derivatives(f):
        loss = lambda X: jnp.sum(jnp.abs(jnp.sin(f(X))) ** 2)
        gradient = jax.grad(loss)
        along = lambda g: lambda X: jax.jvp(g, (X,), (V,))[1]
        against = jax.grad(lambda X: jnp.sum((gradient(X) * V).real))
        return jax.jit(lambda X: (f(X), gradient(X), along(f)(X), along(along(f))(X), along(gradient)(X), against(X)))

    ours = derivatives(partial(CONTEXTS[context], f))(X)
    general = derivatives(lambda X: jaxinv.inv(project(X, assume_a)))(X)
    assert_trees_close(ours, general, 1e-11)


@pytest.mark.parametrize("mode", ["auto", pytest.param("explicit", marks=pytest.mark.long), "shard_map"])
@pytest.mark.parametrize(
    ("assume_a", "n"),
    [("pos", 3), ("pos", 26), ("upper triangular", 3), ("upper triangular", 14), ("diagonal", 3), ("sym", 3)],
)
def test_sharded_batch_needs_no_communication(mode, assume_a, n):
    some_mesh = mesh(AxisType.Explicit if mode == "explicit" else AxisType.Auto)
    X = example(assume_a, n, (8 * 16,))

    def f(X):
        Y, pullback = jax.vjp(partial(jaxinv.inv, assume_a=assume_a), X)
        return (Y, pullback(jnp.cos(Y))[0], *jaxinv.inv_logdet(X, assume_a=assume_a))

    if mode == "shard_map":
        f = jax.shard_map(f, mesh=some_mesh, in_specs=P("batch"), out_specs=P("batch"))
    with entered(some_mesh):
        X_ = jax.device_put(X, NamedSharding(some_mesh, P("batch")))
        compiled = jax.jit(f).lower(X_).compile()
        result = jax.jit(f)(X_)
    assert_trees_close(jax.tree.map(np.asarray, result[0]), np.linalg.inv(X), 1e-12)
    np.testing.assert_allclose(result[4], np.linalg.slogdet(X)[1], rtol=1e-11)
    if (assume_a, n, mode) != ("pos", 26, "auto"):  # before JAX 0.11, in turn: gathered, as LAPACK's LU is
        assert not [word for word in COLLECTIVES if word in compiled.as_text()]
        assert all(leaf.sharding.spec[0] == "batch" for leaf in result)


@each_kind
def test_symbolic_shapes(assume_a):
    f = jax.jit(lambda X: jaxinv.inv_logdet(X, assume_a=assume_a))
    for shape, sizes in (("b, 3, 3", [(17, 3), (2, 3)]), ("b, n, n", [(2, 3), (3, 5)])):
        struct = jax.ShapeDtypeStruct(jax.export.symbolic_shape(shape), jnp.float64)
        call = jax.export.export(f)(struct).call
        for batch, n in sizes:
            X = example(assume_a, n, (batch,))
            np.testing.assert_allclose(call(X)[0], np.linalg.inv(X), rtol=0, atol=1e-13)


@pytest.mark.parametrize("platform", ["cuda", pytest.param("tpu", marks=pytest.mark.long)])
@pytest.mark.parametrize("n", [1, 4, 8])
@pytest.mark.parametrize("assume_a", ["pos", "upper triangular", "lower triangular", "diagonal"])
def test_small_matrices_need_no_library_on_accelerators(assume_a, n, platform):
    gradient = jax.grad(lambda X: jnp.sum(jaxinv.inv(X, assume_a=assume_a)))
    assert not custom_calls(exported(partial(jaxinv.inv_logdet, assume_a=assume_a), (100, n, n), platforms=(platform,)))
    module = exported(gradient, (100, n, n), platforms=(platform,))
    assert not custom_calls(module)
    assert not double_precision(module)


def test_triangular_of_any_size_needs_no_library_on_accelerators():
    module = exported(partial(jaxinv.inv, assume_a="upper triangular"), (100, 40, 40))
    assert not custom_calls(module)
    assert custom_calls(exported(jaxinv.inv, (100, 40, 40)))  # the control: a general one does
