"""The table of every name, transformation and dtype: each cell has the values of formulas in NumPy.

A batch of seventeen goes through the fused kernels. Each name is taken as a function M of X, a matrix again, that
depends on all that it differentiates:

    inv, inv_ex     M = Y
    inv_logdet      M = Y + logabsdet, added to each entry
    inv_jacobian    M = dY along a matrix A, contracted from the tensor: -Y A Y

CONTEXTS wrap M and leave its value as it is, DERIVATIVES are taken of each, and each has one right answer. All cells of
a name and a dtype are compiled together, which costs a fraction of compiling one by one.
"""

import itertools
from functools import partial, reduce

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import matrices
from jax import lax
from jax.experimental.jet import jet
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import jaxinv

pytestmark = pytest.mark.usefixtures("little_optimised")

BATCH = 17
DTYPES = ["float32", "float64", "complex64", "complex128", "bfloat16", "float16", "int32"]


def of_logdet(X):
    Y, _, logabsdet = jaxinv.inv_logdet(X)
    return Y + logabsdet[..., None, None].astype(Y.dtype)


def of_jacobian(X):
    D = jaxinv.inv_jacobian(X)
    return jnp.einsum("...ijkl,kl->...ij", D, A(X.shape[-1]).astype(D.dtype))


NAMES = {
    "inv": jaxinv.inv,
    "inv_ex": lambda X: jaxinv.inv_ex(X).inverse,
    "inv_logdet": of_logdet,
    "inv_jacobian": of_jacobian,
}


def A(n):
    return matrices(n, seed=5)


# The formulas, in float64 or complex128. Derivatives of order k are sums over the permutations of k directions.
def chain(Y, directions):
    """Y (-V_1) Y .. (-V_k) Y."""
    return reduce(lambda Z, V: Z @ -V @ Y, directions, Y)


def inverse_along(X, *directions):
    Y = np.linalg.inv(X)
    return sum(chain(Y, order) for order in itertools.permutations(directions))


def inverse_against(X, W, *directions):
    """The gradient of the sum of W times `inverse_along`, with one direction E more: P E Q becomes P^T W Q^T."""
    Y, terms = np.linalg.inv(X), []
    for order in itertools.permutations([*directions, None]):
        place = next(i for i, V in enumerate(order) if V is None)
        P, Q = chain(Y, order[:place]), chain(Y, order[place + 1 :])
        terms.append(-P.mT @ W @ Q.mT)
    return sum(terms)


def along(name, X, *directions):
    """M, or its derivative along directions."""
    if name == "inv_jacobian":
        return inverse_along(X, A(X.shape[-1]), *directions)
    M = inverse_along(X, *directions)
    if name == "inv_logdet" and directions:  # the real part of that of log det X
        trace = np.trace(inverse_along(X, *directions[1:]) @ directions[0], axis1=-2, axis2=-1)
        return M + trace.real[..., None, None]
    return M + np.linalg.slogdet(X)[1][..., None, None] if name == "inv_logdet" else M


def against(name, X, W, *directions):
    """The gradient of the sum of W times M, or of its derivative along directions."""
    if name == "inv_jacobian":
        return inverse_against(X, W, A(X.shape[-1]), *directions)
    X_bar = inverse_against(X, W, *directions)
    total = W.sum((-2, -1), keepdims=True)
    return X_bar + total * inverse_along(X, *directions).mT if name == "inv_logdet" else X_bar


# What is taken of M in each context, and the formula it equals.
BASIC = {
    "value": (lambda f, X, V, W: f(X), lambda name, X, V, W: along(name, X)),
    "jvp": (lambda f, X, V, W: jax.jvp(f, (X,), (V,))[1], lambda name, X, V, W: along(name, X, V)),
    "vjp": (lambda f, X, V, W: jax.vjp(f, X)[1](W)[0], lambda name, X, V, W: against(name, X, W)),
    "fwd-over-rev": (
        lambda f, X, V, W: jax.jvp(lambda X: jax.vjp(f, X)[1](W)[0], (X,), (V,))[1],
        lambda name, X, V, W: against(name, X, W, V),
    ),
}


def pushforward(f, X):
    return lambda V: jax.jvp(f, (X,), (V,))[1]


def scalar(f, W):
    return lambda X: jnp.sum(f(X) * W)


def gradient(f, X, W):
    return jax.grad(scalar(f, W), holomorphic=jnp.iscomplexobj(X))(X)


def contracted(tensors, V):
    return jnp.einsum("b...kl,bkl->b...", tensors, V)


# More derivatives, taken of M alone.
MORE = {
    "linearize": (lambda f, X, V, W: jax.linearize(f, X)[1](V), BASIC["jvp"][1]),
    "jacfwd": (  # with real directions: logabsdet is not a holomorphic function
        lambda f, X, V, W: contracted(
            jax.vmap(jax.jacfwd(f, holomorphic=jnp.iscomplexobj(X)))(X), V.real.astype(V.dtype)
        ),
        lambda name, X, V, W: along(name, X, V.real),
    ),
    "fwd-over-fwd": (
        lambda f, X, V, W: jax.jvp(lambda X: pushforward(f, X)(V), (X,), (W,))[1],
        lambda name, X, V, W: along(name, X, V, W),
    ),
    "grad": (lambda f, X, V, W: gradient(f, X, W), BASIC["vjp"][1]),
    "value_and_grad": (
        lambda f, X, V, W: jax.value_and_grad(scalar(f, W), holomorphic=jnp.iscomplexobj(X))(X)[1],
        BASIC["vjp"][1],
    ),
    "vmap of grad": (
        lambda f, X, V, W: jax.vmap(partial(gradient, f))(X, W),
        BASIC["vjp"][1],
    ),
    "jacrev": (
        lambda f, X, V, W: jnp.einsum("bijkl,bij->bkl", jax.vmap(jax.jacrev(f, holomorphic=jnp.iscomplexobj(X)))(X), W),
        BASIC["vjp"][1],
    ),
    "linear_transpose of jvp": (
        lambda f, X, V, W: jax.linear_transpose(pushforward(f, X), X)(W)[0],
        BASIC["vjp"][1],
    ),
    "linear_transpose of linearize": (
        lambda f, X, V, W: jax.linear_transpose(jax.linearize(f, X)[1], X)(W)[0],
        BASIC["vjp"][1],
    ),
    "rev-over-rev": (
        lambda f, X, V, W: jax.vjp(lambda X: jax.vjp(f, X)[1](W)[0], X)[1](V)[0],
        BASIC["fwd-over-rev"][1],
    ),
    "rev-over-fwd": (
        lambda f, X, V, W: jax.vjp(lambda X: pushforward(f, X)(V), X)[1](W)[0],
        BASIC["fwd-over-rev"][1],
    ),
    "hessian": (
        lambda f, X, V, W: contracted(
            jax.vmap(lambda X, W: jax.hessian(scalar(f, W), holomorphic=jnp.iscomplexobj(X))(X))(X, W), V
        ),
        BASIC["fwd-over-rev"][1],
    ),
}


def zeros_of(f, X):
    out = jax.eval_shape(f, X)
    return jnp.zeros(out.shape, out.dtype)


def nested_with_odd_axes(f):
    def wrapped(X):
        stacked = jnp.moveaxis(jnp.stack([X, 2 * X]), (0, 1), (-1, 1))  # (n, batch, n, 2)
        return jnp.moveaxis(jax.vmap(jax.vmap(f, 1, -1), -1, 0)(stacked)[0], -1, 0)

    return wrapped


def in_custom_vjp(f):
    wrapped = jax.custom_vjp(f)
    wrapped.defvjp(lambda X: (f(X), X), lambda X, G: jax.vjp(f, X)[1](G))
    return wrapped


def in_custom_jvp(f):
    wrapped = jax.custom_jvp(f)
    wrapped.defjvp(lambda primals, tangents: jax.jvp(f, primals, tangents))
    return wrapped


def is_large(X):
    return (X[0, 0].real > 99).astype(int)


def in_shard_map(f):
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(AxisType.Auto,))
    return jax.shard_map(f, mesh=mesh, in_specs=P("batch"), out_specs=P("batch"))


CONTEXTS = {
    "alone": lambda f: f,
    "jit": jax.jit,
    "vmap": jax.vmap,
    "vmap nested with odd axes": nested_with_odd_axes,
    "scan": lambda f: lambda X: lax.scan(lambda _, X: (None, f(X)), None, jnp.stack([2 * X, X]))[1][1],
    "map": lambda f: lambda X: lax.map(f, X),
    "fori_loop": lambda f: lambda X: lax.fori_loop(0, 2, lambda i, M: f(X), zeros_of(f, X)),
    "while": lambda f: lambda X: lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, f(X)), (0, zeros_of(f, X)))[1],
    "cond": lambda f: lambda X: lax.cond(X[0, 0, 0].real < 99, f, partial(zeros_of, f), X),
    "switch in vmap": lambda f: jax.vmap(
        lambda X: lax.switch((X[0, 0].real > 99).astype(int), [f, partial(zeros_of, f)], X)
    ),
    "checkpoint": jax.checkpoint,
    "custom_vjp": in_custom_vjp,
    "custom_jvp": in_custom_jvp,
    "shard_map": in_shard_map,
}
LARGE = ("vmap nested with odd axes", "scan", "checkpoint")  # where a batch makes a difference
OF_NO_FUNCTION = {
    ("while", "vjp"),
    ("while", "fwd-over-rev"),
    ("custom_vjp", "jvp"),
    ("custom_vjp", "fwd-over-rev"),
}
CELLS = {
    (context, derivative): of
    for context in CONTEXTS
    for derivative, of in BASIC.items()
    if (context, derivative) not in OF_NO_FUNCTION
} | {("alone", derivative): of for derivative, of in MORE.items()}


def cells_of(n, dtype):
    """All in float64, n = 3. In other dtypes, of each context the highest derivative, which has the others in it: in
    complex128 of all, in single precision of three of them, in half precision of none.
    """
    if dtype == "int32":
        return [cell for cell in CELLS if cell[1] == "value"]
    if (n, dtype) == (3, "float64"):
        return list(CELLS)
    highest = {context: derivative for context, derivative in CELLS if context != "alone"}
    everywhere = (n, dtype) == (3, "complex128")
    contexts = [cell for cell in highest.items() if everywhere or (cell[0] in LARGE and "16" not in dtype)]
    return [("alone", derivative) for derivative in (BASIC | MORE if everywhere else BASIC)] + contexts


def example(n, dtype):
    """X, a direction V, which is the one of second order too, and a cotangent W, whose entries have a real sum."""
    if dtype == "int32":
        X = np.random.default_rng(n).integers(-1, 2, (BATCH, n, n)) + 2 * n * np.eye(n, dtype=int)
        return (X.astype(dtype),) * 3
    wide = np.complex128 if "complex" in dtype else np.float64
    X, V, W = (matrices(n, (BATCH,), cond=4, dtype=wide, seed=seed) for seed in range(3))
    W = W - 1j * W.imag.mean((-2, -1), keepdims=True) if "complex" in dtype else W
    return tuple(Z.astype(jnp.dtype(dtype)) for Z in (X, V, W))


def results(name, n, dtype):
    f = NAMES[name]
    row = jax.jit(lambda X, V, W: {cell: CELLS[cell][0](CONTEXTS[cell[0]](f), X, V, W) for cell in cells_of(n, dtype)})
    return row(*example(n, dtype))


def wrong_cells(name, n, dtype, row, factor=1.0):
    """Those more than 4 n eps of the largest entry away from their formula, in half precision two eps."""
    wide = [np.asarray(Z).astype(np.complex128 if "complex" in dtype else np.float64) for Z in example(n, dtype)]
    wrong = {}
    for cell, got in row.items():
        want, eps = CELLS[cell][1](name, *wide), float(jnp.finfo(got.dtype).eps)
        assert got.dtype == jax.eval_shape(jnp.sqrt, jax.ShapeDtypeStruct((), dtype)).dtype, cell
        error = np.abs(factor * np.asarray(got).astype(want.dtype) - want).max() / np.abs(want).max()
        tolerance = (2 if "16" in dtype else 4 * n) * eps
        if not error <= tolerance:
            wrong[cell] = f"{error:.1e} above {tolerance:.1e}"
    return wrong


ROWS = [(name, 3, dtype) for dtype in DTYPES for name in NAMES]
ROWS += [(name, n, dtype) for n, dtype in ((12, "complex128"), (33, "float32")) for name in NAMES]
ROWS.remove(("inv_jacobian", 33, "float32"))  # n^4 entries


def is_long(name, n, dtype):
    """What compiles for seconds, and much of which other rows have: all cells in two types, the others of one name."""
    return dtype in ("float64", "complex64", "float16") or (name != "inv" and (n > 3 or dtype == "complex128"))


@pytest.mark.parametrize(
    ("name", "n", "dtype"),
    [pytest.param(*row, marks=[pytest.mark.long] if is_long(*row) else []) for row in ROWS],
)
def test_row_equals_the_formulas(name, n, dtype):
    row = results(name, n, dtype)
    assert not wrong_cells(name, n, dtype, row)
    eps = float(jnp.finfo(jnp.float32 if dtype == "int32" else dtype).eps)
    assert wrong_cells(name, n, dtype, row, 1 + (4 if "16" in dtype else 8 * n) * eps).keys() == row.keys()


CALLS = {  # that a jit cannot hold
    "eager": lambda f: f,
    "export": lambda f: lambda X: jax.export.deserialize(jax.export.export(jax.jit(f))(X).serialize()).call(X),
    "pmap": lambda f: lambda X: jax.pmap(f, devices=jax.devices()[:1])(X[None])[0],
    "ahead of time": lambda f: lambda X: jax.jit(f).lower(X).compile()(X),
    "vectorize": lambda f: jnp.vectorize(f, signature="(n,n)->(n,n)"),
}


CALLS_AND_DTYPES = [(call, "float64") for call in CALLS]
CALLS_AND_DTYPES += [(call, dtype) for call in ("eager", "export") for dtype in ("complex64", "bfloat16", "int32")]


@pytest.mark.parametrize(("call", "dtype"), CALLS_AND_DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_call_equals_the_formula(name, call, dtype):
    X = jnp.asarray(example(3, dtype)[0])
    assert not wrong_cells(name, 3, dtype, {("alone", "value"): CALLS[call](NAMES[name])(X)})


@pytest.mark.parametrize("name", NAMES)
def test_integers_have_no_gradient(name):
    X = jnp.asarray(example(3, "int32")[0])
    with pytest.raises(TypeError, match="grad requires real- or complex-valued inputs"):
        jax.grad(lambda X: NAMES[name](X).sum())(X)
    assert jax.vjp(NAMES[name], X)[1](jnp.ones(X.shape, NAMES[name](X).dtype))[0].dtype == jax.dtypes.float0


@pytest.mark.parametrize("f", [jnp.linalg.inv, *NAMES.values()], ids=["builtin", *NAMES])
def test_exception_jet_has_no_rule(f):
    """The one transformation that the builtin does not have either."""
    X = jnp.asarray(example(3, "float64")[0][0])
    with pytest.raises((NotImplementedError, KeyError)):  # of the primitive, in its table of rules
        jet(f, (X,), ((X,),))
