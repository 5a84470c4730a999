"""Batches spread over devices: values, derivatives, the placement of the result, and no communication."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import assert_trees_close, matrices
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxinv
from jaxinv._kernel_names import LAPACK_BATCH_IS_SERIAL, kernel_name

pytestmark = pytest.mark.usefixtures("little_optimised")

TOLERANCE = 1e-12
# n and the batch, which is enough on each of eight devices for each kernel: fused LU, panels, LAPACK, blocks.
BATCHES = {3: 8 * 16, 9: 8 * 368, 12: 32, 21: 32}
SIZES = list(BATCHES)
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter", "collective-broadcast")


def loss(f):
    return lambda X: jnp.sum(jnp.sin(f(X)))


DERIVATIVES = {
    "value": lambda f, X, V: f(X),
    "grad": lambda f, X, V: jax.grad(loss(f))(X),
    "jvp": lambda f, X, V: jax.jvp(f, (X,), (V,))[1],
    "fwd-over-rev": lambda f, X, V: jax.jvp(jax.grad(loss(f)), (X,), (V,))[1],
}
LONG = {9: [pytest.mark.long]}  # panels compile for seconds
# Each derivative of two sizes, and of the others, for time, the one that uses the inverse twice.
derivatives_and_sizes = pytest.mark.parametrize(
    ("derivative", "n"),
    [
        pytest.param(name, n, marks=LONG.get(n, []))
        for n in SIZES
        for name in DERIVATIVES
        if n in (3, 21) or name == "grad"
    ],
)


def example(n, batch=None):
    return matrices(n, (batch or BATCHES[n],), cond=4), matrices(n, (batch or BATCHES[n],), seed=1)


def oracle(derivative, X, V):
    """NumPy and the formulas."""
    Y = np.linalg.inv(X)
    T = np.swapaxes(Y, -1, -2)
    G, dY = np.cos(Y), -Y @ V @ Y
    dT, dG = np.swapaxes(dY, -1, -2), -np.sin(Y) * dY
    return {
        "value": Y,
        "grad": -T @ G @ T,
        "jvp": dY,
        "fwd-over-rev": -(dT @ G @ T + T @ dG @ T + T @ G @ dT),
    }[derivative]


def mesh(kind, shape=(8,), names=("batch",)):
    return jax.make_mesh(shape, names, axis_types=(kind,) * len(names), devices=jax.devices("cpu"))


def entered(some_mesh):
    """The mesh as context: `jax.set_mesh`, called `jax.sharding.use_mesh` before JAX 0.8."""
    return jax.set_mesh(some_mesh) if hasattr(jax, "set_mesh") else jax.sharding.use_mesh(some_mesh)


@derivatives_and_sizes
@pytest.mark.parametrize("mode", ["auto", "explicit"])
@pytest.mark.parametrize(
    ("shape", "names", "spec"),
    [
        pytest.param((8,), ("batch",), P("batch"), id="one axis"),
        pytest.param((4, 2), ("a", "b"), P(("a", "b")), id="both axes", marks=pytest.mark.long),
        pytest.param((2, 4), ("a", "b"), P("b"), id="one of two axes", marks=pytest.mark.long),
    ],
)
def test_batch_sharded_input_equals_the_formula_and_stays_sharded(mode, derivative, n, shape, names, spec):
    some_mesh = mesh(AxisType.Auto if mode == "auto" else AxisType.Explicit, shape, names)
    X, V = example(n)
    with entered(some_mesh) if mode == "explicit" else contextlib.nullcontext():
        sharded = [jax.device_put(Z, NamedSharding(some_mesh, spec)) for Z in (X, V)]
        f = jax.jit(partial(DERIVATIVES[derivative], jaxinv.inv))
        result = f(*sharded)
        assert_trees_close(np.asarray(result), oracle(derivative, X, V), TOLERANCE)
        if mode == "explicit":
            assert jax.typeof(result).sharding.spec == P(*spec, None, None)
        compiled = f.lower(*sharded).compile().as_text()
    # In auto mode, XLA gathers a batch that goes through LAPACK in turn.
    if mode == "explicit" or LAPACK_BATCH_IS_SERIAL or kernel_name(n, BATCHES[n], X.dtype, "cpu") != "LU in turn":
        assert result.sharding.is_equivalent_to(sharded[0].sharding, X.ndim)
        assert not [word for word in COLLECTIVES if word in compiled]


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
@pytest.mark.parametrize("n", [2, 4, 7, 12])
def test_inverses_of_a_sharded_batch_do_not_communicate_in_any_type(n, dtype):
    """In auto mode, where a gather by an index over the whole batch would."""
    sharding = NamedSharding(mesh(AxisType.Auto, (8,), ("a",)), P("a"))
    f = jax.jit(jaxinv.inv, in_shardings=sharding, out_shardings=sharding)
    program = f.lower(jax.ShapeDtypeStruct((8192, n, n), dtype)).compile().as_text()
    assert not [word for word in COLLECTIVES if word in program]


# Of each kernel a batch that is worked on in chunks, where the kernel has them, and along either axis.
SEVERAL_AXES = {
    "n = 2": (2, (8, 16), {}),
    "one chunk": (5, (32, 32), {}),
    "chunks along the last axis": (5, (64, 256), {}),
    "chunks along the first axis": (5, (1024, 16), {}),
    "panels along the last axis": (9, (32, 256), {}),
    "panels along the first axis": (9, (256, 32), {}),
    "LAPACK": (33, (8, 4), {}),
    "positive definite": (5, (32, 32), {"assume_a": "pos"}),
    "positive definite, by halves": (13, (32, 32), {"assume_a": "pos"}),
    "upper triangular": (5, (32, 32), {"assume_a": "upper triangular"}),
    "lower triangular, by blocks": (13, (32, 32), {"assume_a": "lower triangular"}),
    "symmetric": (5, (32, 32), {"assume_a": "sym"}),
    "diagonal": (5, (32, 32), {"assume_a": "diagonal"}),
}
IS_LONG = (
    *("chunks along the last axis", "chunks along the first axis", "panels along the last axis"),
    *("positive definite", "upper triangular", "symmetric", "diagonal"),
)


def later(case, function):
    return [pytest.mark.later] * (function != "inv" or "panels" in case)


FUNCTIONS = {
    "inv": lambda X, **options: jaxinv.inv(X, **options),
    "inv_ex": lambda X, **options: jaxinv.inv_ex(X, **options).inverse,
    "inv_logdet": lambda X, **options: jaxinv.inv_logdet(X, **options).inverse,
}


def program(f, derivative, *arrays):
    return jax.jit(partial(DERIVATIVES[derivative], f)).lower(*arrays).compile()


@pytest.mark.parametrize(
    ("case", "function"),
    [
        pytest.param(case, f, marks=[pytest.mark.long] if case in IS_LONG else later(case, f))
        for case in SEVERAL_AXES
        for f in FUNCTIONS
        if f == "inv" or case in ("one chunk", "LAPACK", "positive definite")
    ],
)
def test_batch_sharded_over_two_of_its_axes_does_not_communicate(case, function):
    n, batch, options = SEVERAL_AXES[case]
    if case == "LAPACK" and not LAPACK_BATCH_IS_SERIAL:
        pytest.xfail("before jaxlib 0.11, matrices that go through LAPACK in turn are gathered in auto mode")
    some_mesh, spec = mesh(AxisType.Auto, (4, 2), ("a", "b")), P("a", "b")
    X = matrices(n, batch, cond=4)
    X = X @ np.swapaxes(X, -1, -2) + 2 * np.eye(n)
    X_ = jax.device_put(X, NamedSharding(some_mesh, spec))
    f = partial(FUNCTIONS[function], **options)
    many = function == "inv" and n < 9  # the others compile for seconds
    for derivative in DERIVATIVES if many else ("grad",):
        compiled = program(f, derivative, X_, X_)
        assert not [word for word in COLLECTIVES if word in compiled.as_text()], derivative
        result = compiled(X_, X_)
        assert result.sharding.is_equivalent_to(X_.sharding, X.ndim)
        alone = jax.device_put(X, jax.devices("cpu")[0])
        assert_trees_close(
            np.asarray(result), np.asarray(program(f, derivative, alone, alone)(alone, alone)), TOLERANCE
        )


@derivatives_and_sizes
def test_vmap_of_explicitly_sharded_batch_equals_the_formula(derivative, n):
    X, V = example(n)
    some_mesh = mesh(AxisType.Explicit)
    with entered(some_mesh):
        X_, V_ = (jax.device_put(Z, NamedSharding(some_mesh, P("batch"))) for Z in (X, V))
        result = jax.jit(jax.vmap(partial(DERIVATIVES[derivative], jaxinv.inv)))(X_, V_)
        assert jax.typeof(result).sharding.spec == P("batch", None, None)
    assert_trees_close(np.asarray(result), oracle(derivative, X, V), TOLERANCE)


@pytest.mark.parametrize("n", [pytest.param(n, marks=LONG.get(n, [])) for n in SIZES])
def test_eager_explicit_sharding_equals_the_formula(n):
    X, V = example(n)
    some_mesh = mesh(AxisType.Explicit)
    with entered(some_mesh):
        X_, V_ = (jax.device_put(Z, NamedSharding(some_mesh, P("batch"))) for Z in (X, V))
        for derivative, take in DERIVATIVES.items():
            assert_trees_close(np.asarray(take(jaxinv.inv, X_, V_)), oracle(derivative, X, V), TOLERANCE)


@derivatives_and_sizes
def test_matrix_axes_sharded_in_auto_mode_give_the_right_value(derivative, n):
    """Rows over devices: XLA has to gather them, and must not get it wrong."""
    some_mesh = mesh(AxisType.Auto, (4, 2), ("batch", "row"))
    X, V = example(n + n % 2, BATCHES[n])
    X_, V_ = (jax.device_put(Z, NamedSharding(some_mesh, P("batch", "row"))) for Z in (X, V))
    result = jax.jit(partial(DERIVATIVES[derivative], jaxinv.inv))(X_, V_)
    assert_trees_close(np.asarray(result), oracle(derivative, X, V), TOLERANCE)


@derivatives_and_sizes
@pytest.mark.parametrize("check_vma", [True, False])
def test_shard_map_equals_the_formula(derivative, n, check_vma):
    X, V = example(n)
    f = partial(DERIVATIVES[derivative], jaxinv.inv)
    mapped = jax.shard_map(f, mesh=mesh(AxisType.Auto), in_specs=P("batch"), out_specs=P("batch"), check_vma=check_vma)
    assert_trees_close(np.asarray(jax.jit(mapped)(X, V)), oracle(derivative, X, V), TOLERANCE)


@derivatives_and_sizes
def test_derivative_of_shard_map_equals_the_formula(derivative, n):
    X, V = example(n)
    mapped = jax.shard_map(jaxinv.inv, mesh=mesh(AxisType.Auto), in_specs=P("batch"), out_specs=P("batch"))
    result = jax.jit(partial(DERIVATIVES[derivative], mapped))(X, V)
    assert_trees_close(np.asarray(result), oracle(derivative, X, V), TOLERANCE)


@derivatives_and_sizes
def test_partly_manual_shard_map_equals_the_formula(derivative, n):
    """One mesh axis manual, the other left to XLA."""
    X, V = example(n)
    some_mesh = mesh(AxisType.Auto, (4, 2), ("manual", "auto"))
    mapped = jax.shard_map(
        jaxinv.inv, mesh=some_mesh, in_specs=P("manual"), out_specs=P("manual"), axis_names={"manual"}
    )
    X_, V_ = (jax.device_put(Z, NamedSharding(some_mesh, P(("manual", "auto")))) for Z in (X, V))
    result = jax.jit(partial(DERIVATIVES[derivative], mapped))(X_, V_)
    assert_trees_close(np.asarray(result), oracle(derivative, X, V), TOLERANCE)


@pytest.mark.parametrize("derivative", ["value", "grad"])
def test_partly_manual_shard_map_does_not_communicate(derivative):
    n, batch = 3, 8 * 64
    X, V = example(n, batch)
    some_mesh = mesh(AxisType.Auto, (4, 2), ("manual", "auto"))
    mapped = jax.shard_map(
        jaxinv.inv, mesh=some_mesh, in_specs=P("manual"), out_specs=P("manual"), axis_names={"manual"}
    )
    X_ = jax.device_put(X, NamedSharding(some_mesh, P(("manual", "auto"))))
    compiled = program(mapped, derivative, X_, X_)
    assert not [word for word in COLLECTIVES if word in compiled.as_text()]
    assert_trees_close(np.asarray(compiled(X_, X_)), oracle(derivative, X, V), TOLERANCE)


def test_batch_that_is_no_multiple_of_the_devices_equals_the_formula():
    """XLA pads the shards: what stands in the padding must reach no result."""
    X, V = example(3, 131)
    sharding = NamedSharding(mesh(AxisType.Auto), P("batch"))
    f = lambda X: jaxinv.inv(jax.lax.with_sharding_constraint(X, sharding))
    assert_trees_close(np.asarray(jax.jit(f)(X)), oracle("value", X, V), TOLERANCE)
    total = jax.jit(lambda X: jnp.sum(f(X)))
    assert_trees_close(np.asarray(total(X)), np.sum(oracle("value", X, V)), TOLERANCE)


@derivatives_and_sizes
def test_vmap_with_spmd_axis_name_equals_the_formula(derivative, n):
    X, V = example(n)
    some_mesh = mesh(AxisType.Auto)
    X_, V_ = (jax.device_put(Z, NamedSharding(some_mesh, P("batch"))) for Z in (X, V))
    f = jax.vmap(partial(DERIVATIVES[derivative], jaxinv.inv), spmd_axis_name="batch")
    assert_trees_close(np.asarray(jax.jit(f)(X_, V_)), oracle(derivative, X, V), TOLERANCE)


@derivatives_and_sizes
def test_pmap_equals_the_formula(derivative, n):
    X, V = example(n)
    split = lambda Z: Z.reshape(8, -1, n, n)
    result = jax.pmap(partial(DERIVATIVES[derivative], jaxinv.inv))(split(X), split(V))
    assert_trees_close(np.asarray(result).reshape(X.shape), oracle(derivative, X, V), TOLERANCE)


@derivatives_and_sizes
def test_tolerance_rejects_a_slightly_wrong_answer(derivative, n):
    theirs = oracle(derivative, *example(n))
    with pytest.raises(AssertionError, match=r"error .* above"):
        assert_trees_close(theirs * (1 + 1e-11), theirs, TOLERANCE)


@pytest.mark.parametrize("spec", [P(None, "batch"), P(None, None, "batch"), P("batch", None, None)], ids=str)
def test_explicit_mode_takes_whole_matrices_only(spec):
    some_mesh = mesh(AxisType.Explicit)
    X = matrices(8, (8,))
    with entered(some_mesh):
        X_ = jax.device_put(X, NamedSharding(some_mesh, spec))
        if spec[0] == "batch":
            assert_trees_close(np.asarray(jaxinv.inv(X_)), np.linalg.inv(X), TOLERANCE)
            return
        for f in (jaxinv.inv, jax.jit(jaxinv.inv), jax.grad(lambda X: jnp.sum(jaxinv.inv(X)))):
            with pytest.raises(ValueError, match="inv: the last two axes of a must not be sharded"):
                f(X_)
