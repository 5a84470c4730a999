"""One matrix over a mesh: accuracy, derivatives, placement, memory and communication, errors."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import assert_trees_close, inverse_error, matrices
from _collectives import received_words
from _matrices import batch_of
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxinv

pytestmark = pytest.mark.usefixtures("little_optimised")

TOLERANCE = 1e-12


def mesh_of(shape, names, kind=AxisType.Auto):
    devices = jax.devices("cpu")[: int(np.prod(shape))]
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(names), devices=devices)


def put(X, mesh, spec):
    return jax.device_put(X, NamedSharding(mesh, spec))


def positive(X):
    return X @ np.swapaxes(X.conj(), -1, -2) + 0.1 * np.eye(X.shape[-1])


LAYOUTS = {
    "columns": ((8,), ("x",), P(None, "x")),
    "rows": ((8,), ("x",), P("x", None)),
    "both": ((4, 2), ("x", "y"), P("x", "y")),
    "columns over both": ((2, 4), ("x", "y"), P(None, ("x", "y"))),
    "one of two axes": ((2, 4), ("x", "y"), P(None, "y")),
}


@pytest.mark.parametrize(
    ("assume_a", "layout"),
    [
        ("gen", "both"),
        *(pytest.param("gen", layout, marks=pytest.mark.long) for layout in LAYOUTS if layout != "both"),
        *(pytest.param("pos", layout, marks=pytest.mark.long) for layout in ("columns", "both")),
    ],
)
def test_value_and_derivatives_equal_the_formula(assume_a, layout):
    shape, names, spec = LAYOUTS[layout]
    mesh, n = mesh_of(shape, names), 24
    X, V, G = matrices(n, cond=4), matrices(n, seed=1), matrices(n, seed=2)
    if assume_a == "pos":
        X, V = positive(X), V + V.T
    Y = np.linalg.inv(X)
    f = lambda X: jaxinv.inv_sharded(X, mesh=mesh, spec=spec, assume_a=assume_a)
    X_ = put(X, mesh, spec)
    value, pullback = jax.vjp(f, X_)
    assert value.sharding.is_equivalent_to(X_.sharding, 2)
    assert_trees_close(np.asarray(value), Y, TOLERANCE)
    X_bar = -Y.T @ G @ Y.T
    X_bar = (X_bar + X_bar.T) / 2 if assume_a == "pos" else X_bar
    (gradient,) = pullback(jnp.asarray(G))
    assert_trees_close(np.asarray(gradient), X_bar, TOLERANCE)
    assert_trees_close(np.asarray(jax.jvp(f, (X_,), (put(V, mesh, spec),))[1]), -Y @ V @ Y, TOLERANCE)
    with pytest.raises(AssertionError, match=r"error .* above"):
        assert_trees_close(np.asarray(gradient) * (1 + 1e-10), X_bar, TOLERANCE)


@pytest.mark.long
def test_second_order_equals_that_of_inv():
    mesh, spec = mesh_of((8,), ("x",)), P(None, "x")
    X, V = matrices(8, cond=4), matrices(8, seed=1)
    product = lambda inv: jax.jvp(jax.grad(lambda X: jnp.sum(jnp.sin(inv(X)))), (X,), (V,))[1]
    sharded = lambda X: jaxinv.inv_sharded(X, mesh=mesh, spec=spec)
    assert_trees_close(product(sharded), product(jaxinv.inv), TOLERANCE)


def test_vmap_equals_numpy():
    X = matrices(8, (3,), cond=4)
    f = lambda X: jaxinv.inv_sharded(X, mesh=mesh_of((4,), ("x",)), spec=P(None, "x"))
    assert_trees_close(np.asarray(jax.vmap(f)(X)), np.linalg.inv(X), TOLERANCE)


@pytest.mark.parametrize("spec", [pytest.param(P(None, "x"), marks=pytest.mark.long), P("x", None)], ids=str)
def test_explicit_mode_keeps_the_type(spec):
    mesh = mesh_of((8,), ("x",), AxisType.Explicit)
    X = matrices(16, cond=4)
    with jax.set_mesh(mesh) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(mesh):
        X_ = put(X, mesh, spec)
        value = jax.jit(jaxinv.inv_sharded)(X_)
        gradient = jax.grad(lambda X: jnp.sum(jaxinv.inv_sharded(X)))(X_)
    assert jax.typeof(value).sharding.spec == jax.typeof(gradient).sharding.spec == spec
    Y = np.linalg.inv(X)
    assert_trees_close(np.asarray(value), Y, TOLERANCE)
    assert_trees_close(np.asarray(gradient), -Y.T @ np.ones_like(X) @ Y.T, TOLERANCE)


@pytest.mark.parametrize("shape", [(8,), (4, 2)], ids=str)
def test_explicit_mode_places_the_matrix(shape):
    names = ("x", "y")[: len(shape)]
    mesh, X, spec = mesh_of(shape, names, AxisType.Explicit), matrices(16, cond=4), P(None, names)
    for given in (X, put(X, mesh, P("x", None))):
        Y = jaxinv.inv_sharded(given, mesh=mesh, spec=spec)
        assert jax.typeof(Y).sharding.spec == spec
        assert_trees_close(np.asarray(Y), np.linalg.inv(X), TOLERANCE)


def test_explicit_mode_places_the_matrix_under_transformations():
    mesh, X = mesh_of((8,), ("x",), AxisType.Explicit), matrices(16, (2,), cond=4)
    f = lambda X: jaxinv.inv_sharded(X, mesh=mesh, spec=P(None, "x"))
    Y = np.linalg.inv(X)
    with jax.set_mesh(mesh) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(mesh):
        assert_trees_close(np.asarray(jax.jit(f)(X[0])), Y[0], TOLERANCE)
        assert_trees_close(np.asarray(jax.vmap(f)(X)), Y, TOLERANCE)
        gradient = jax.grad(lambda X: jnp.sum(f(X)))(X[0])
        tangent = jax.jvp(f, (X[0],), (X[1],))[1]
    assert_trees_close(np.asarray(gradient), -Y[0].T @ np.ones_like(X[0]) @ Y[0].T, TOLERANCE)
    assert_trees_close(np.asarray(tangent), -Y[0] @ X[1] @ Y[0], TOLERANCE)


@pytest.mark.long
def test_inside_a_partly_manual_shard_map_equals_numpy():
    """Several matrices along a manual axis, each spread over the other, whose mesh is the abstract one there."""
    mesh, X = mesh_of((4, 2), ("manual", "auto")), matrices(8, (4,), cond=4)

    def one(X):
        inside = jax.sharding.get_abstract_mesh()
        return jaxinv.inv_sharded(X[0], mesh=inside, spec=P(None, "auto"))[None]

    def mapped(check_vma):  # the gradient needs False: the rule does not say over which manual axes it varies
        specs = {"in_specs": P("manual"), "out_specs": P("manual"), "axis_names": {"manual"}}
        return jax.shard_map(one, mesh=mesh, check_vma=check_vma, **specs)

    Y = np.linalg.inv(X)
    assert_trees_close(np.asarray(jax.jit(mapped(True))(X)), Y, TOLERANCE)
    gradient = jax.jit(jax.grad(lambda X: jnp.sum(mapped(False)(X) ** 2)))(X)
    T = np.swapaxes(Y, -1, -2)
    assert_trees_close(np.asarray(gradient), -T @ (2 * Y) @ T, TOLERANCE)


@pytest.mark.parametrize(
    "n", [pytest.param(7, marks=pytest.mark.later), *(pytest.param(n, marks=pytest.mark.long) for n in (1, 30))]
)
def test_size_that_is_no_multiple_of_the_mesh_equals_numpy(n):
    mesh = mesh_of((8,), ("x",))
    for assume_a in ("gen", "pos"):
        X = matrices(n, cond=4)
        X = positive(X) if assume_a == "pos" else X
        Y = jaxinv.inv_sharded(X, mesh=mesh, spec=P(None, "x"), assume_a=assume_a)
        assert_trees_close(np.asarray(Y), np.linalg.inv(X), TOLERANCE)


@pytest.mark.parametrize(
    "dtype",
    [np.complex128, jnp.bfloat16, *(pytest.param(dtype, marks=pytest.mark.long) for dtype in (np.float32, np.int32))],
    ids=str,
)
def test_dtype_is_that_of_inv(dtype):
    mesh = mesh_of((4,), ("x",))
    X = np.round(matrices(8, cond=2, dtype=np.complex128 if dtype == np.complex128 else np.float64) * 50)
    X_ = put(jnp.asarray(X).astype(dtype), mesh, P(None, "x"))
    ours, theirs = jaxinv.inv_sharded(X_), jaxinv.inv(X_)
    assert ours.dtype == theirs.dtype
    np.testing.assert_allclose(np.asarray(ours, complex), np.asarray(theirs, complex), rtol=0.02, atol=1e-4)


# Of condition numbers up to 1e6, or not much above.
STEADY = [
    "lapack 1: diagonal",
    "lapack 2: upper",
    "lapack 3: lower",
    "lapack 4: condition 2",
    "lapack 8: condition sqrt(0.1/eps)",
    "lapack 9: condition 0.1/eps",
    "lapack 10: near underflow",
    "lapack 11: near overflow",
    "diagonal",
    "permutation",
    "antidiagonal",
    "condition 1e2",
    "near rank 1",
    "wilkinson",
]
# One singular value makes the error, which is large or small by chance, up to a hundred times. The geometric mean of
# many draws is compared: of a root mean square, one draw would be the most.
BY_CHANCE = ["random", "uniform", "one small singular value", "upper", "lower"]


@pytest.mark.parametrize(
    ("n", "names", "draws"),
    [
        pytest.param(104, STEADY, 1, id="104"),
        pytest.param(104, BY_CHANCE, 40, id="by chance", marks=pytest.mark.long),
        pytest.param(496, STEADY[::2], 1, id="496", marks=pytest.mark.long),
    ],
)
def test_error_within_twice_that_of_one_device(n, names, draws):
    mesh = mesh_of((8,), ("x",))
    for name in names:
        errors, backward = np.zeros((2, draws)), np.zeros((2, draws))
        for draw in range(draws):
            X = batch_of(name, n, 1, np.random.default_rng([n, draw]), np.float32)[0].astype(np.float32)
            both = jaxinv.inv_sharded(put(X, mesh, P(None, "x"))), jaxinv.inv(X)
            condition = np.linalg.norm(X.astype(float)) * np.linalg.norm(np.asarray(both[1], float))
            errors[:, draw] = [inverse_error(Y, X) / condition for Y in both]
            backward[:, draw] = [backward_error(Y, X) for Y in both]
        for measured in (errors, backward):
            ours, theirs = np.exp(np.mean(np.log(np.maximum(measured, 1e-300)), axis=1))
            assert ours <= 2 * theirs, f"{name}: {ours:.1e} against {theirs:.1e}"


def backward_error(Y, X):
    """The larger of |X Y - I| and |Y X - I| over |X| |Y|, in the Frobenius norm."""
    X, Y = np.asarray(X, float), np.asarray(Y, float)
    norm = np.linalg.norm
    return max(norm(X @ Y - np.eye(len(X))), norm(Y @ X - np.eye(len(X)))) / (norm(X) * norm(Y))


@pytest.mark.later
def test_refinement_and_residual():
    mesh = mesh_of((8,), ("x",))
    X = batch_of("condition 1e2", 64, 1, np.random.default_rng(0), np.float32)[0].astype(np.float32)
    X = put(X, mesh, P("x", None))
    Y, residual = jaxinv.inv_sharded(X, residual=True)
    exact = np.linalg.norm(np.asarray(X, float) @ np.asarray(Y, float) - np.eye(64))
    np.testing.assert_allclose(float(residual), exact, rtol=0.3)
    assert inverse_error(jaxinv.inv_sharded(X, refine=1), X) <= inverse_error(Y, X) * 1.5
    wrong = jaxinv.inv_sharded(X * jnp.float32(np.nan), residual=True)
    assert np.isnan(wrong.residual)
    half = X.astype(jnp.bfloat16)
    rounded, residual = jaxinv.inv_sharded(half, residual=True)
    exact = np.linalg.norm(np.asarray(half, float) @ np.asarray(rounded, float) - np.eye(64))
    np.testing.assert_allclose(float(residual), exact, rtol=1e-3)


@pytest.mark.parametrize("assume_a", ["gen", "pos"])
def test_singular_matrix_is_not_finite(assume_a):
    X = np.ones((16, 16))
    X[3] = X[:, 3] = 0
    Y = jaxinv.inv_sharded(X, mesh=mesh_of((8,), ("x",)), spec=P(None, "x"), assume_a=assume_a)
    assert not np.isfinite(Y).all()


@pytest.mark.later
def test_memory_and_communication_at_2048():
    """At most 4 n^2 / P entries and a panel on each device, n^2 words received and what stages add, no matrix whole."""
    n, devices = 2048, 8
    mesh, spec = mesh_of((devices,), ("x",)), P(None, "x")
    X = jax.ShapeDtypeStruct((n, n), jnp.float32, sharding=NamedSharding(mesh, spec))
    compiled = jax.jit(lambda X: jaxinv.inv_sharded(X, mesh=mesh, spec=spec)).lower(X).compile()
    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert peak / 4 <= 4 * n**2 / devices + n * 64
    words, largest = received_words(compiled.as_text())
    assert n**2 < words <= 1.5 * n**2
    assert largest <= 64 * n
    builtin = jax.jit(jnp.linalg.inv).lower(X).compile()  # a control: it gathers the matrix
    assert re.search(rf"f32\[{n},{n}\]\S* all-gather", builtin.as_text())


def test_gradient_gathers_no_matrix():
    n, devices = 512, 8
    mesh, spec = mesh_of((devices,), ("x",)), P(None, "x")
    X = jax.ShapeDtypeStruct((n, n), jnp.float32, sharding=NamedSharding(mesh, spec))
    pull = lambda X, G: jax.vjp(lambda X: jaxinv.inv_sharded(X, mesh=mesh, spec=spec), X)[1](G)[0]
    compiled = jax.jit(pull).lower(X, X).compile()
    assert received_words(compiled.as_text())[1] < n**2 / 4
    memory = compiled.memory_analysis()
    peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    assert peak / 4 <= 12 * n**2 / devices


MESH = lambda: mesh_of((8,), ("x",))
X8 = np.eye(8)
WRONG = {
    "no sharding": (ValueError, "a must be sharded over a mesh", lambda: jaxinv.inv_sharded(jnp.eye(8))),
    "traced": (ValueError, "a must be sharded over a mesh", lambda: jax.jit(jaxinv.inv_sharded)(jnp.eye(8))),
    "batch": (ValueError, r"one matrix of shape \(n, n\)", lambda: jaxinv.inv_sharded(jnp.zeros((2, 3, 3)))),
    "not square": (ValueError, r"shape \(..., n, n\)", lambda: jaxinv.inv_sharded(jnp.zeros((2, 3)))),
    "list": (TypeError, "a must be a numeric array", lambda: jaxinv.inv_sharded([[1.0]])),
    "mesh alone": (TypeError, "spec must be a", lambda: jaxinv.inv_sharded(X8, mesh=MESH())),
    "spec alone": (TypeError, "mesh must be a", lambda: jaxinv.inv_sharded(X8, spec=P("x"))),
    "wrong axis": (ValueError, "spec must shard", lambda: jaxinv.inv_sharded(X8, mesh=MESH(), spec=P("y"))),
    "no axis": (ValueError, "spec must shard", lambda: jaxinv.inv_sharded(X8, mesh=MESH(), spec=P())),
    "not even": (ValueError, "n must be a multiple of the 8 devices in explicit mode",
                 lambda: jaxinv.inv_sharded(np.eye(9), mesh=mesh_of((8,), ("x",), AxisType.Explicit), spec=P("x"))),
    "structure": (ValueError, "assume_a must be one of",
                  lambda: jaxinv.inv_sharded(X8, mesh=MESH(), spec=P("x"), assume_a="sym")),
    "refine": (ValueError, "refine must be at least 0",
               lambda: jaxinv.inv_sharded(X8, mesh=MESH(), spec=P("x"), refine=-1)),
    "block": (TypeError, "block_size must be an integer",
              lambda: jaxinv.inv_sharded(X8, mesh=MESH(), spec=P("x"), block_size=2.0)),
    "residual": (TypeError, "residual must be True or False",
                 lambda: jaxinv.inv_sharded(X8, mesh=MESH(), spec=P("x"), residual=1)),
    "precision": (ValueError, "precision must be",
                  lambda: jaxinv.inv_sharded(X8, mesh=MESH(), spec=P("x"), precision="no")),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument_raises(case):
    error, message, call = WRONG[case]
    with pytest.raises(error, match=message):
        call()
