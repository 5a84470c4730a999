"""What `inv` and `inv_jacobian` refuse, and in which words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxinv

FUNCTIONS = pytest.mark.parametrize("name", ["inv", "inv_jacobian", "inv_ex", "inv_logdet"])
PRECISIONS = [
    *("default", "high", "highest", "float32", "tensorfloat32", jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST),
    *(("high", "highest"), (jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST)),
]


class Wrapped:
    """An array in the clothes of another library."""

    def __init__(self, value):
        self.value = value

    def __jax_array__(self):
        return self.value


@FUNCTIONS
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 1), (5, 3, 2)], ids=str)
def test_wrong_shape_raises(name, shape):
    for make in (jnp.ones, np.ones):
        with pytest.raises(ValueError, match=rf"^{name}: a must have shape \(\.\.\., n, n\), got \("):
            getattr(jaxinv, name)(make(shape))
    with pytest.raises(ValueError, match=f"^{name}: a must have shape"):
        jax.jit(getattr(jaxinv, name))(jnp.ones(shape))


@FUNCTIONS
@pytest.mark.parametrize(
    ("a", "got"),
    [
        ([[1.0]], "list"),
        ([[1.0, 2.0], [3.0]], "list"),  # ragged
        (np.array([[1.0], [2.0, 3.0]], dtype=object), "an array of dtype object"),
        (b"one", "bytes"),
        ({"a": 1.0}, "dict"),
        (((1.0,),), "tuple"),
        ("one", "str"),
        (None, "NoneType"),
        (object(), "object"),
        (np.str_("one"), "str_"),
        (np.eye(2, dtype=object), "an array of dtype object"),
        (np.eye(2, dtype=np.longdouble), f"an array of dtype {np.dtype(np.longdouble)}"),
        (np.array([["one"]]), "an array of dtype <U3"),
        (np.zeros((2, 2), "datetime64[s]"), "an array of dtype datetime64"),
        (np.zeros((2, 2), jax.dtypes.float0), "an array of dtype .*float0"),
        (jax.ShapeDtypeStruct((2, 2), jnp.float32), "ShapeDtypeStruct"),
    ],
    ids=lambda x: x if isinstance(x, str) else type(x).__name__,
)
def test_wrong_type_raises(name, a, got):
    with pytest.raises(TypeError, match=f"^{name}: a must be a numeric array, got {got}"):
        getattr(jaxinv, name)(a)


@FUNCTIONS
def test_random_keys_raise(name):
    keys = jax.random.split(jax.random.key(0), (2, 2))
    with pytest.raises(TypeError, match=f"^{name}: a must be a numeric array, got an array of dtype key<"):
        getattr(jaxinv, name)(keys)
    with pytest.raises(TypeError, match="got an array of dtype key<"):
        jax.jit(getattr(jaxinv, name))(keys)


def test_scalar_raises_for_its_shape():
    with pytest.raises(ValueError, match=r"got \(\)$"):
        jaxinv.inv(2.0)


def test_numpy_and_wrapped_arrays_are_taken():
    X = np.array([[2.0, 3.0], [1.0, 2.0]])
    for a in (X, jnp.asarray(X), Wrapped(jnp.asarray(X)), X.astype(jnp.bfloat16)):
        Y = jaxinv.inv(a)
        assert isinstance(Y, jax.Array)
        np.testing.assert_array_equal(Y.astype(float), [[2.0, -3.0], [-1.0, 2.0]])


def test_options_are_keyword_only():
    with pytest.raises(TypeError, match="positional argument"):
        jaxinv.inv(jnp.eye(2), "highest")


@FUNCTIONS
@pytest.mark.parametrize("precision", ["hi", 3, (), ("high",) * 3, ("high", "hi"), ["high"], {}, True], ids=repr)
def test_wrong_precision_raises(name, precision):
    with pytest.raises(ValueError, match=f"^{name}: precision must be None .*'highest'.*, got "):
        getattr(jaxinv, name)(jnp.eye(2), precision=precision)


@FUNCTIONS
def test_unknown_option_raises(name):
    with pytest.raises(TypeError, match=rf"{name}\(\) got an unexpected keyword argument 'method'"):
        getattr(jaxinv, name)(jnp.eye(2), method="lu")


@pytest.mark.parametrize("precision", PRECISIONS, ids=str)
def test_precision_of_matmul_is_taken(precision):
    X = jnp.array([[2.0, 3.0], [1.0, 2.0]])
    gradient = jax.jit(jax.grad(lambda X: jnp.trace(jaxinv.inv(X, precision=precision))))(X)
    np.testing.assert_allclose(gradient, [[-7.0, 4.0], [12.0, -7.0]], rtol=1e-12)


@pytest.mark.parametrize(("precision", "dots"), [(None, "HIGHEST"), ("high", "HIGH"), ("default", "DEFAULT")])
@pytest.mark.parametrize("n", [33])
def test_precision_reaches_the_products_of_the_rule(n, precision, dots):
    X = jnp.eye(n, dtype=jnp.float32)
    pullback = jax.vjp(lambda X: jaxinv.inv(X, precision=precision), X)[1]
    text = jax.jit(lambda G: pullback(G)).lower(X).as_text()
    found = [line for line in text.splitlines() if "dot_general" in line]
    assert len(found) == 2
    assert all(f"[{dots}, {dots}]" in line for line in found)


def test_eval_shape_reads_a_struct():
    out = jax.eval_shape(jaxinv.inv, jax.ShapeDtypeStruct((5, 2, 2), jnp.int32))
    assert (out.shape, out.dtype) == ((5, 2, 2), jnp.linalg.inv(jnp.eye(2, dtype=jnp.int32)).dtype)
    out = jax.eval_shape(jaxinv.inv_jacobian, jax.ShapeDtypeStruct((5, 2, 2), jnp.float32))
    assert (out.shape, out.dtype) == ((5, 2, 2, 2, 2), jnp.float32)


@FUNCTIONS
@pytest.mark.usefixtures("on_cpu")
def test_matrix_beyond_memory_is_traced_and_refused_by_jax(name):
    """400 TB, which no machine grants, so that nothing is allocated."""
    n = 10**7
    f = getattr(jaxinv, name)
    leaves = jax.tree.leaves(jax.eval_shape(f, jax.ShapeDtypeStruct((n, n), jnp.float32)))
    assert leaves[0].shape == (n, n) * (2 if name == "inv_jacobian" else 1)
    if name != "inv_jacobian":  # whose size in bytes is no 64-bit number
        with pytest.raises(RuntimeError, match=r"Out of memory allocating \d{15,} bytes"):
            jax.block_until_ready(jax.jit(lambda x: f(jnp.full((n, n), x)))(jnp.float32(1)))
