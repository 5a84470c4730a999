"""The inverse as a primitive, and the one rule that differentiates it.

Derivation, for a square matrix X with inverse Y and a scalar loss L:

    X_ij Y_jk = delta_ik                               definition of Y
    dX_ij Y_jk + X_ij dY_jk = 0                        product rule
    dY_ij / dX_kl = -Y_ik Y_lj                         multiplied by Y from the left    (1)
    X_bar_kl = G_ij dY_ij / dX_kl = -Y_ik G_ij Y_lj    chain rule, G = dL/dY            (2)
    X_bar = -Y^T (G Y^T)                               (2) in matrix form               (3)

`_inverse` states the forward Y = X^-1 and the cotangent (3), with Y as its only residual. Forward mode, dY = -Y dX Y,
is not stated again: it is the linear transpose of (3). JAX's cotangents are plain transposes, so nothing is conjugated,
for complex matrices either.

With `zero_singular`, a matrix without a finite inverse has Y = 0 and X_bar = 0, whatever its G is: nan too. No inverse
is zero, unless it underflows, so Y = 0 tells which they are.

Why a primitive around a `custom_vjp`: a `custom_vjp` alone has no forward mode, hence no `jvp` and no `hessian`; and a
primitive is lowered where the whole batch is visible, however many `vmap`s it came through.

Source: M. B. Giles, "An extended collection of matrix derivative results for forward and reverse mode automatic
differentiation", section 2.2.3, Oxford 2008, https://people.maths.ox.ac.uk/gilesm/files/NA-08-01.pdf
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from jaxinv._kernels import inverse_kernel
from jaxinv._lowering import lower_by
from jaxinv._triple_product import minus_product


def inverse(X, precision, zero_singular=False, structure="general", products_follow=False):
    """Y = X^-1 of a validated `X`, shape (..., n, n); `precision` is that of the rule's products.

    `X` has the `structure` in full: that selects a kernel, and leaves the rule as it is. So does `products_follow`,
    whether the products of the rule will be computed too: some kernels keep the cores from them.
    """
    return inverse_p.bind(
        X, precision=precision, zero_singular=zero_singular, structure=structure, products_follow=products_follow
    )


def is_zero(Y):
    """Where a matrix of Y is zero, shape (..., 1, 1)."""
    return jnp.all(Y == 0, axis=(-2, -1), keepdims=True)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _inverse(X, precision, zero_singular, structure):
    return inverse(X, precision, zero_singular, structure)


def _inverse_fwd(X, precision, zero_singular, structure):
    Y = inverse(X, precision, zero_singular, structure, products_follow=True)
    return Y, Y


def _inverse_bwd(precision, zero_singular, structure, Y, G):
    X_bar = minus_product("TNT", Y, G, Y, precision)  # (3)
    return (jnp.where(is_zero(Y), 0, X_bar) if zero_singular else X_bar,)


_inverse.defvjp(_inverse_fwd, _inverse_bwd)


def transposed_jvp(f, X, dX):
    """f(X), and its derivative along dX as the linear transpose of the pullback of f."""
    Y, pullback = jax.vjp(f, X)
    (dY,) = jax.linear_transpose(lambda G: pullback(G)[0], Y)(dX)
    return Y, dY


def _inverse_jvp(primals, tangents, *, precision, zero_singular, structure, products_follow):
    (X,), (dX,) = primals, tangents
    if isinstance(dX, ad.Zero):
        return inverse(X, precision, zero_singular, structure, products_follow), dX
    return transposed_jvp(lambda X: _inverse(X, precision, zero_singular, structure), X, dX)


def _inverse_batch(args, dims, **params):
    (X,), (dim,) = args, dims
    return inverse_p.bind(jnp.moveaxis(X, dim, 0), **params), 0


def _kernel(X, *, precision, zero_singular, structure, products_follow, platform):
    Y = inverse_kernel(X, structure, products_follow, platform)
    if not zero_singular:
        return Y
    finite = jnp.all(jnp.isfinite(X) & jnp.isfinite(Y), axis=(-2, -1), keepdims=True)
    return jnp.where(finite, Y, 0)


inverse_p = Primitive("inverse")
inverse_p.def_abstract_eval(lambda X, **params: X)
ad.primitive_jvps[inverse_p] = _inverse_jvp
batching.primitive_batchers[inverse_p] = _inverse_batch
lower_by(inverse_p, _kernel)
