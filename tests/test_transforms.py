"""Every transformation, compared by value with the same transformation of `jnp.linalg.inv`.

Two tables multiply. DERIVATIVES take a function of a matrix, and a matrix. CONTEXTS wrap the inverse in a
transformation or a control flow that leaves its value as it is (an odd number of inversions in a loop is one
inversion), so each derivative of each wrapped inverse has one right answer: that of the builtin, unwrapped, one matrix
at a time. The batched gradient of the builtin can hang, so no batch of it is ever taken.
"""

from functools import cache, partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import assert_trees_close, matrices
from jax import lax

import jaxinv

pytestmark = pytest.mark.usefixtures("little_optimised")

TOLERANCE = 1e-11  # condition 4: a third derivative carries cond^4 eps, and n of it
SIZES = [3, 20]  # either side of the limit of the small kernels


def directions(X):
    return [matrices(X.shape[-1], seed=seed) for seed in (7, 8, 9)]


def loss(f):
    def scalar(X):
        weights = np.cos(np.arange(X.size)).reshape(X.shape).astype(X.dtype)
        return jnp.sum(jnp.sin(f(X)) * weights)

    return scalar


def along(f, V):
    """The derivative of f in the direction V, in forward mode."""
    return lambda X: jax.jvp(f, (X,), (jnp.asarray(V),))[1]


def against(f, V):
    """The gradient of <V, f>, in reverse mode."""
    return jax.grad(lambda X: jnp.vdot(V, f(X)))


def transpose_of_linearize(f, X):
    return jax.linear_transpose(jax.linearize(f, X)[1], X)(jnp.asarray(directions(X)[0]))


FORWARD = {
    "value": lambda f, X: f(X),
    "jvp": lambda f, X: jax.jvp(f, (X,), (directions(X)[0],)),
    "jacfwd": lambda f, X: jax.jacfwd(lambda Z: f(X.at[:2, :2].set(Z)))(X[:2, :2]),
    "fwd-over-fwd": lambda f, X: reduce(along, directions(X)[:2], f)(X),
    "fwd-over-fwd-over-fwd": lambda f, X: reduce(along, directions(X), f)(X),
}
REVERSE = {
    "grad": lambda f, X: jax.grad(loss(f))(X),
    "value_and_grad": lambda f, X: jax.value_and_grad(loss(f))(X),
    "vjp": lambda f, X: jax.vjp(f, X)[1](jnp.asarray(directions(X)[0])),
    "jacrev": lambda f, X: jax.jacrev(lambda X: f(X)[:2, :2])(X),
    "linearize": lambda f, X: jax.linearize(f, X)[1](jnp.asarray(directions(X)[0])),
    "linearize-transposed": transpose_of_linearize,
    "jvp-of-value_and_grad": lambda f, X: jax.jvp(jax.value_and_grad(loss(f)), (X,), (directions(X)[0],)),
    "hessian": lambda f, X: jax.hessian(lambda t: loss(f)(t[0] * X + t[1] * directions(X)[0]))(jnp.array([1.0, 0.1])),
    "rev-over-rev": lambda f, X: against(jax.grad(loss(f)), directions(X)[0])(X),
    "fwd-over-rev": lambda f, X: along(jax.grad(loss(f)), directions(X)[0])(X),
    "grad-of-jvp": lambda f, X: jax.grad(along(loss(f), directions(X)[0]))(X),
    "rev-over-rev-over-rev": lambda f, X: reduce(against, directions(X)[:2], jax.grad(loss(f)))(X),
    "fwd-over-fwd-over-rev": lambda f, X: reduce(along, directions(X)[:2], jax.grad(loss(f)))(X),
}
DERIVATIVES = FORWARD | REVERSE
# What is taken of each context: first and second order in both modes, and the third where it is easily lost.
SHORT = ["value", "jvp-of-value_and_grad", "rev-over-rev", "linearize-transposed"]
THIRD = ["fwd-over-fwd-over-fwd", "rev-over-rev-over-rev", "fwd-over-fwd-over-rev"]


@cache
def oracle(name, n, which=0):
    return jax.jit(partial(DERIVATIVES[name], jnp.linalg.inv))(jnp.asarray(example(n)[which]))


def example(n):
    return matrices(n, (4,), cond=4)


def stack(X, axis=0):
    """X and multiples of it, enough of them that small matrices go the way of batches."""
    return jnp.stack([scale * X for scale in np.linspace(1, 2, 17)], axis)


def scan(X):
    return lax.scan(lambda Z, _: (jaxinv.inv(Z), None), X, length=3)[0]


def scan_over_inputs(X):
    return lax.scan(lambda carry, Z: (carry, jaxinv.inv(Z)), 0.0, stack(X)[:2])[1][0]


def while_loop(X):
    return lax.while_loop(lambda state: state[0] < 3, lambda state: (state[0] + 1, jaxinv.inv(state[1])), (0, X))[1]


def vmap_nested(X):
    stacked = jnp.stack([stack(X, 1), stack(2 * X, 1)])  # (2, n, 17, n)
    return jax.vmap(jax.vmap(jaxinv.inv, 1, -1), 0, 1)(stacked)[:, 0, :, 0]


def vmap_of_cond(X):
    branch = lambda p, Z: lax.cond(p, jaxinv.inv, lambda Z: Z, Z)
    return jax.vmap(branch)(jnp.arange(17) == 0, stack(X))[0]


def checkpointed(policy):
    policy = getattr(jax.checkpoint_policies, policy)
    return jax.checkpoint(lambda X: jaxinv.inv(jaxinv.inv(jaxinv.inv(X))), policy=policy)


CONTEXTS = {
    "leading batch": lambda X: jaxinv.inv(stack(X))[0],
    "vmap": lambda X: jax.vmap(jaxinv.inv)(stack(X))[0],
    "vmap in_axes=-1 out_axes=1": lambda X: jax.vmap(jaxinv.inv, in_axes=-1, out_axes=1)(stack(X, -1))[:, 0],
    "vmap nested with odd axes": vmap_nested,
    "scan": scan,
    "scan over inputs": scan_over_inputs,
    "vmap of scan": lambda X: jax.vmap(scan)(stack(X))[0],
    "scan of vmap": lambda X: lax.scan(lambda Z, _: (jax.vmap(jaxinv.inv)(Z), None), stack(X), length=3)[0][0],
    "while": while_loop,
    "vmap of cond": vmap_of_cond,
    "map in batches": lambda X: lax.map(jaxinv.inv, stack(X), batch_size=16)[0],
    "checkpoint nothing_saveable": checkpointed("nothing_saveable"),
    "checkpoint everything_saveable": checkpointed("everything_saveable"),
    "checkpoint dots_saveable": checkpointed("dots_saveable"),
    "scan of checkpoint": lambda X: lax.scan(lambda Z, _: (jax.checkpoint(jaxinv.inv)(Z), None), X, length=3)[0],
}
# The large size where a batch or a matmul policy makes a difference to it, to save compilations.
LARGE_TOO = ["vmap nested with odd axes", "scan", "vmap of scan", "map in batches", "checkpoint dots_saveable"]
# More contexts are in `test_table.py`.
AGAIN = ("scan over inputs", "vmap of cond", "checkpoint everything_saveable", "scan of checkpoint")
CASES = [pytest.param(context, 3, marks=[pytest.mark.long] if context in AGAIN else []) for context in CONTEXTS]
CASES += [pytest.param(context, 20, marks=pytest.mark.long) for context in LARGE_TOO]


def compare(f, names, n):
    X = jnp.asarray(example(n)[0])
    ours = jax.jit(lambda X: {name: DERIVATIVES[name](f, X) for name in names})(X)
    for name in names:
        assert_trees_close(ours[name], oracle(name, n), TOLERANCE)


@pytest.mark.parametrize(
    ("derivative", "n"),
    [
        pytest.param(name, n, marks=[pytest.mark.later if name in SHORT else pytest.mark.long] if n > 3 else [])
        for name in DERIVATIVES
        for n in SIZES
    ],
)
def test_derivative_equals_that_of_the_builtin(derivative, n):
    compare(jaxinv.inv, [derivative], n)
    theirs = oracle(derivative, n)
    with pytest.raises(AssertionError, match=r"error .* above"):
        assert_trees_close(jax.tree.map(lambda Z: Z * (1 + 10 * TOLERANCE), theirs), theirs, TOLERANCE)


@pytest.mark.parametrize("derivative", SHORT)
def test_eager_derivative_equals_that_of_the_builtin(derivative):
    X = jnp.asarray(example(3)[0])
    assert_trees_close(DERIVATIVES[derivative](jaxinv.inv, X), oracle(derivative, 3), TOLERANCE)


@pytest.mark.parametrize(("context", "n"), CASES)
def test_derivatives_inside_equal_those_of_the_builtin(context, n):
    """'while' has no reverse mode, of any function."""
    compare(CONTEXTS[context], SHORT if context != "while" else list(FORWARD), n)


@pytest.mark.parametrize(
    "derivative", [THIRD[1], *(pytest.param(name, marks=pytest.mark.long) for name in (THIRD[0], THIRD[2]))]
)
@pytest.mark.parametrize(
    "context",
    ["scan", *(pytest.param(c, marks=pytest.mark.long) for c in ("vmap", "vmap of scan", "checkpoint dots_saveable"))],
)
def test_third_order_inside_equals_that_of_the_builtin(context, derivative):
    compare(CONTEXTS[context], [derivative], 3)


@pytest.mark.parametrize(
    "derivative",
    [pytest.param(name, marks=[] if name in (*SHORT, "hessian") else [pytest.mark.long]) for name in DERIVATIVES],
)
def test_vmap_of_derivative_equals_that_of_the_builtin(derivative):
    """Nested, the outer over the last axis; sixteen matrices, four different ones."""
    n = 3
    theirs = [oracle(derivative, n, which) for which in range(4)]
    Xs = np.moveaxis(np.tile(example(n), (4, 1, 1)).reshape(8, 2, n, n), 0, -1)
    ours = jax.jit(jax.vmap(jax.vmap(partial(DERIVATIVES[derivative], jaxinv.inv)), in_axes=-1))(Xs)
    for which in range(16):
        mine = jax.tree.map(lambda Z, which=which: np.asarray(Z)[divmod(which, 2)], ours)
        assert_trees_close(mine, jax.tree.map(np.asarray, theirs[which % 4]), TOLERANCE)


@pytest.mark.parametrize("n", SIZES)
def test_holomorphic_gradient_equals_that_of_the_builtin(n):
    X = jnp.asarray(matrices(n, dtype=np.complex128, cond=4))
    ours, theirs = (jax.grad(loss(inv), holomorphic=True)(X) for inv in (jaxinv.inv, jnp.linalg.inv))
    assert_trees_close(ours, theirs, TOLERANCE)


@pytest.mark.parametrize("n", SIZES)
def test_gradient_of_real_loss_of_complex_inverse_equals_that_of_the_builtin(n):
    X = jnp.asarray(matrices(n, dtype=np.complex128, cond=4))
    gradient = lambda inv: jax.grad(lambda X: jnp.sum(jnp.abs(inv(X)) ** 2))(X)
    assert_trees_close(gradient(jaxinv.inv), gradient(jnp.linalg.inv), TOLERANCE)
