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

Why a primitive around a `custom_vjp`: a `custom_vjp` alone has no forward mode, hence no `jvp` and no `hessian`; and a
primitive is lowered where the whole batch is visible, however many `vmap`s it came through.

Source: M. B. Giles, "An extended collection of matrix derivative results for forward and reverse mode automatic
differentiation", section 2.2.3, Oxford 2008, https://people.maths.ox.ac.uk/gilesm/files/NA-08-01.pdf
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxinv._kernels import inverse_kernel
from jaxinv._triple_product import triple_product


def inverse(X, precision):
    """Y = X^-1 of a validated `X`, shape (..., n, n); `precision` is that of the rule's products."""
    return inverse_p.bind(X, precision=precision)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _inverse(X, precision):
    return inverse(X, precision)


def _inverse_fwd(X, precision):
    Y = inverse(X, precision)
    return Y, Y


def _inverse_bwd(precision, Y, G):
    return (-triple_product("TNT", Y, G, Y, precision),)  # (3)


_inverse.defvjp(_inverse_fwd, _inverse_bwd)


def _inverse_jvp(primals, tangents, *, precision):
    (X,), (dX,) = primals, tangents
    Y, pullback = jax.vjp(lambda X: _inverse(X, precision), X)
    if isinstance(dX, ad.Zero):
        return Y, dX
    (dY,) = jax.linear_transpose(lambda G: pullback(G)[0], Y)(dX)
    return Y, dY


def _inverse_batch(args, dims, *, precision):
    (X,), (dim,) = args, dims
    return inverse(jnp.moveaxis(X, dim, 0), precision), 0


inverse_p = Primitive("inverse")
inverse_p.def_abstract_eval(lambda X, *, precision: X)
inverse_p.def_impl(lambda X, *, precision: inverse_kernel(X))
ad.primitive_jvps[inverse_p] = _inverse_jvp
batching.primitive_batchers[inverse_p] = _inverse_batch
mlir.register_lowering(inverse_p, mlir.lower_fun(lambda X, *, precision: inverse_kernel(X), multiple_results=False))
