"""The product of three matrices: values, derivatives, transposes and batches, for every choice of transposes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _cases import assert_trees_close, matrices

from jaxinv._triple_product import minus_product

pytestmark = pytest.mark.usefixtures("little_optimised")

HIGHEST = jax.lax.Precision.HIGHEST
OPS = ["".join(letters) for letters in itertools.product("NT", repeat=3)]
TOLERANCE = 1e-14  # a few eps: sums of at most 20 products of numbers below one
sizes = pytest.mark.parametrize("n", [3, 20])
all_ops = pytest.mark.parametrize("ops", OPS)


def product(ops):
    return lambda A, B, C: minus_product(ops, A, B, C, HIGHEST)


def plain(ops):
    """The same in jax.numpy, differentiated by JAX."""
    left, middle, right = (axes if op == "N" else axes[::-1] for op, axes in zip(ops, ("ij", "jk", "kl"), strict=True))
    spec = f"...{left},...{middle},...{right}->...il"
    return lambda A, B, C: -jnp.einsum(spec, A, B, C, precision=HIGHEST)


@sizes
@all_ops
def test_value_equals_einsum(ops, n):
    A, B, C = (jnp.asarray(matrices(n, (2,), seed=seed, dtype=np.complex128)) for seed in range(3))
    assert_trees_close(jax.jit(product(ops))(A, B, C), jax.jit(plain(ops))(A, B, C), TOLERANCE)
    assert_trees_close(product(ops)(A[0], B[0], C[0]), plain(ops)(A[0], B[0], C[0]), TOLERANCE)


@sizes
@all_ops
def test_derivatives_equal_those_of_einsum(ops, n):
    """The jvp; the transpose in each operand; and the jvp of the transpose, a derivative of second order."""
    operands = tuple(matrices(n, (3,), seed=0))
    tangents = tuple(matrices(n, (3,), seed=1))
    G = matrices(n, seed=2)

    @jax.jit
    def derivatives(operands, tangents, G):
        def of(f):
            pullback = lambda *operands: jax.vjp(f, *operands)[1](G)
            return jax.jvp(f, operands, tangents)[1], jax.jvp(pullback, operands, tangents)

        return of(product(ops)), of(plain(ops))

    ours, theirs = derivatives(operands, tangents, G)
    assert_trees_close(ours, theirs, TOLERANCE)
    with pytest.raises(AssertionError, match=r"error .* above"):
        assert_trees_close(jax.tree.map(lambda Z: Z * (1 + 1e-13), ours), theirs, TOLERANCE)


@sizes
@all_ops
def test_linear_transpose_of_each_operand_equals_that_of_einsum(ops, n):
    operands = jnp.asarray(matrices(n, (3,), seed=3))
    G = jnp.asarray(matrices(n, seed=4))
    for i in range(3):
        transposed = [
            jax.linear_transpose(lambda Z, f=f, i=i: f(*operands[:i], Z, *operands[i + 1 :]), G)(G)
            for f in (product(ops), plain(ops))
        ]
        assert_trees_close(*transposed, TOLERANCE)


@pytest.mark.parametrize("n", [3, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize("repeat", ["ABA", "AAB", "BAA", "AAA"])
@pytest.mark.parametrize("ops", ["TNT", "NNN", "NTT"])
def test_operand_that_occurs_twice_is_differentiated_in_both_places(ops, repeat, n):
    A, B, dA, dB, G = matrices(n, (5,), seed=7)

    @jax.jit
    def results(A, B, dA, dB, G):
        def of(f):
            of_two = lambda A, B: f(*({"A": A, "B": B}[letter] for letter in repeat))
            pullback = lambda A, B: jax.vjp(of_two, A, B)[1](G)
            return jax.jvp(of_two, (A, B), (dA, dB)), pullback(A, B), jax.jvp(pullback, (A, B), (dA, dB))

        return of(product(ops)), of(plain(ops))

    assert_trees_close(*results(A, B, dA, dB, G), 5 * TOLERANCE)  # up to six terms cancel


@sizes
@pytest.mark.parametrize("dims", [d for d in itertools.product((0, None), repeat=3) if d != (None,) * 3], ids=str)
def test_batch_with_unbatched_operands_equals_einsum(dims, n):
    ops = "TNT"
    operands = [matrices(n, () if d is None else (2,), seed=5) for d in dims]
    G = matrices(n, (2,), seed=6)

    @jax.jit
    def results(operands, G):
        def of(f):
            batched = jax.vmap(f, in_axes=dims)
            return batched(*operands), jax.vjp(batched, *operands)[1](G)

        return of(product(ops)), of(plain(ops))

    assert_trees_close(*results(operands, G), TOLERANCE)


@sizes
def test_batch_along_odd_axes_equals_einsum(n):
    A, B, C = (jnp.asarray(matrices(n, (2, 3), seed=seed)) for seed in range(3))
    swapped = (jnp.moveaxis(A, 0, -1), jnp.moveaxis(B, 0, 1), C)
    for f in (product("NTN"), plain("NTN")):
        nested = jax.vmap(jax.vmap(f, in_axes=(0, 0, 0), out_axes=1), in_axes=(-1, 1, 0), out_axes=-1)
        result = jnp.moveaxis(nested(*swapped), (-1, 1), (0, 1))
        assert_trees_close(result, plain("NTN")(A, B, C), TOLERANCE)


@pytest.mark.parametrize("shape", [(0, 0), (2, 0, 0), (0, 3, 3)], ids=str)
def test_product_of_nothing_is_empty(shape):
    A = jnp.zeros(shape)
    assert product("TNT")(A, A, A).shape == shape
