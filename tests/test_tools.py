"""What users do with functions besides differentiating: compile, export, donate, debug, copy, count compilations."""

import copy
import inspect
import logging
import pickle

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import assert_trees_close, matrices
from jax.experimental import checkify

import jaxinv

pytestmark = pytest.mark.usefixtures("little_optimised")

TOLERANCE = 1e-12
sizes = pytest.mark.parametrize("n", [3, 20])


def gradient_of_trace(X):
    """Of the sum of the traces of the inverses: -(Y Y)^T."""
    return jax.grad(lambda X: jnp.sum(jnp.trace(jaxinv.inv(X), axis1=-2, axis2=-1)))(X)


def both(X):
    return jaxinv.inv(X), gradient_of_trace(X)


def oracle(X):
    Y = np.linalg.inv(X)
    return Y, -np.swapaxes(Y @ Y, -1, -2)


def assert_both(result, X):
    assert_trees_close(tuple(map(np.asarray, result)), oracle(X), TOLERANCE)


@sizes
def test_export_with_symbolic_batch_is_called_after_serialisation(n):
    (batch,) = jax.export.symbolic_shape("batch")
    exported = jax.export.export(jax.jit(both))(jax.ShapeDtypeStruct((batch, n, n), jnp.float64))
    restored = jax.export.deserialize(exported.serialize(vjp_order=1))
    for size in (1, 5, 40):
        X = matrices(n, (size,), cond=4)
        assert_both(restored.call(X), X)
        pulled = jax.jit(lambda X: jax.vjp(lambda X: restored.call(X)[0], X)[1](jnp.ones_like(X)))(X)[0]
        Y = np.swapaxes(np.linalg.inv(X), -1, -2)
        assert_trees_close(np.asarray(pulled), -Y @ np.ones_like(X) @ Y, TOLERANCE)


@pytest.mark.parametrize("shape", ["n, n", "a, n, n", "a, b, n, n"])
def test_export_with_symbolic_matrix_size_is_right(shape):
    """A size known at run time only: the builtin exports it, and so must the inverse."""
    dims = jax.export.symbolic_shape(shape)
    exported = jax.export.export(jax.jit(jaxinv.inv))(jax.ShapeDtypeStruct(dims, jnp.float64))
    for n in (2, 20):
        X = matrices(n, (3, 2)[: len(dims) - 2], cond=4)
        assert_trees_close(np.asarray(exported.call(X)), np.linalg.inv(X), TOLERANCE)


@sizes
@pytest.mark.parametrize("shape", [(), (5,), (40,)], ids=str)
def test_export_for_every_platform_is_called_here(n, shape):
    X = matrices(n, shape, cond=4).astype(np.float32)
    exported = jax.export.export(jax.jit(both), platforms=("cpu", "cuda", "tpu"))(X)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    result = jax.export.deserialize(exported.serialize()).call(X)
    for ours, theirs in zip(result, oracle(X.astype(float)), strict=True):
        assert_trees_close(np.asarray(ours).astype(float), theirs, n * 1e-5)  # float32: n eps cond^2


@sizes
def test_ahead_of_time_compilation_equals_the_formula(n):
    X = matrices(n, (5,), cond=4)
    compiled = jax.jit(both).lower(jax.ShapeDtypeStruct(X.shape, X.dtype)).compile()
    assert_both(compiled(X), X)
    with pytest.raises(TypeError, match=r"(?i)argument types differ"):
        compiled(X[:4])


@sizes
def test_donated_input_is_consumed(n):
    X = matrices(n, (5,), cond=4)
    given = jnp.array(X)
    Y = jax.jit(jaxinv.inv, donate_argnums=0)(given)
    assert given.is_deleted()
    assert_trees_close(np.asarray(Y), np.linalg.inv(X), TOLERANCE)


@sizes
def test_checkify_sees_a_singular_matrix_and_nothing_else(n):
    X = matrices(n, (17,), cond=4)
    checked = jax.jit(checkify.checkify(both, errors=checkify.float_checks))
    error, result = checked(X)
    error.throw()
    assert_both(result, X)
    error, _ = checked(np.zeros_like(X))
    with pytest.raises(checkify.JaxRuntimeError, match=r"nan|division by zero"):
        error.throw()


@sizes
def test_debug_nans_passes_good_matrices_and_reports_singular_ones(n):
    X = matrices(n, (17,), cond=4)
    with jax.debug_nans(True), jax.debug_infs(True):
        assert_both(both(X), X)
        assert_both(jax.jit(both)(X), X)
        with pytest.raises(FloatingPointError, match="invalid value"):
            jaxinv.inv(np.zeros_like(X)).block_until_ready()


@sizes
def test_leak_checker_finds_none(n):
    X = matrices(n, (17,), cond=4)  # fused loops, where n is small
    with jax.checking_leaks():
        assert_both(both(X), X)
        assert_both(jax.jit(both)(X), X)
        jax.jit(jax.vmap(jax.hessian(lambda X: jnp.trace(jaxinv.inv(X)))))(X[:, :2, :2] + 2 * np.eye(2)[None])


@pytest.mark.parametrize("n", [3, pytest.param(20, marks=pytest.mark.long)])
def test_disable_jit_equals_the_formula(n):
    for X in (matrices(n, cond=4), matrices(n, (2,), cond=4), matrices(n, (17,), cond=4)):
        with jax.disable_jit():
            assert_both(both(jnp.asarray(X)), X)
            assert_trees_close(np.asarray(jax.vmap(jaxinv.inv)(X[None])[0]), np.linalg.inv(X), TOLERANCE)


@pytest.mark.parametrize("name", ["inv", "inv_jacobian"])
def test_function_is_a_plain_one(name):
    function = getattr(jaxinv, name)
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy(function) is function
    assert (function.__name__, function.__qualname__) == (name, name)
    parameters = inspect.signature(function).parameters
    assert next(iter(parameters)) == "a"
    assert parameters["a"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in list(parameters.values())[1:])
    assert parameters["precision"].default is None
    assert inspect.getdoc(function)


@pytest.fixture
def compilations(caplog):
    """Names of what XLA compiled since the last call."""
    caplog.set_level(logging.WARNING, logger="jax")
    with jax.log_compiles():

        def count():
            messages = [record.getMessage() for record in caplog.records]
            caplog.clear()
            return [message for message in messages if "Finished XLA compilation" in message]

        yield count


@sizes
@pytest.mark.parametrize("shape", [(), pytest.param((5,), marks=pytest.mark.long), (40,)], ids=str)
def test_nothing_is_compiled_twice(n, shape, compilations):
    """Eager calls of inv, its gradient, its jvp and its hessian-vector product: compiled once, then never again."""
    loss = lambda X: jnp.sum(jaxinv.inv(X))

    def calls(X):
        jaxinv.inv(X)
        jax.grad(loss)(X)
        jax.jvp(jaxinv.inv, (X,), (X,))
        jax.jvp(jax.grad(loss), (X,), (X,))
        jax.vmap(jaxinv.inv)(X[None])

    Xs = [jnp.asarray(matrices(n, shape, seed=seed)) for seed in range(3)]
    calls(Xs[0])
    compilations()
    calls(Xs[1])
    calls(Xs[2])
    assert compilations() == []
    jaxinv.inv(jnp.zeros((*shape, 1, n, n), jnp.complex64))  # a control: something new is compiled, and seen
    assert compilations()


def test_jitted_function_is_traced_once():
    f = jax.jit(chex.assert_max_traces(both, n=1))
    for seed in range(3):
        X = matrices(4, (2,), cond=4, seed=seed)
        assert_both(f(X), X)
    with pytest.raises(AssertionError, match="traced > 1 times"):
        f(matrices(5, (2,)))
    chex.clear_trace_counter()
