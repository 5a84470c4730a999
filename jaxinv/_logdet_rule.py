"""The inverse and the log-determinant from one factorisation, and the one rule that differentiates both.

With Y = X^-1 and log det X = logabsdet + i theta, where sign = exp(i theta):

    d log det X = Y_lk dX_kl                                   Jacobi's formula                       (4)
    d logabsdet = Re(Y_lk dX_kl)                               for real matrices the whole of (4)     (5)
    d sign = i sign Im(Y_lk dX_kl)                             0 for real matrices                    (6)
    X_bar = c Y^T - Y^T (G Y^T)                                with (3) of the inverse                (7)

c is the cotangent of the trace in (4): that of logabsdet for real matrices, the linear transpose of (5) and (6) for
complex ones. The residuals are Y and the sign. Forward mode is the linear transpose of (7).

Source: M. B. Giles, "An extended collection of matrix derivative results for forward and reverse mode automatic
differentiation", sections 2.2.3 and 2.2.4, Oxford 2008, https://people.maths.ox.ac.uk/gilesm/files/NA-08-01.pdf
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching
from jax.sharding import NamedSharding, PartitionSpec

from jaxinv._kernels import inverse_and_factors_kernel
from jaxinv._log_product import log_product
from jaxinv._lowering import lower_by
from jaxinv._rule import transposed_jvp
from jaxinv._triple_product import minus_product


def inverse_logdet(X, precision, structure="general", products_follow=False):
    """Y = X^-1, sign and logabsdet of a validated `X`, shape (..., n, n), that has the `structure` in full."""
    return tuple(inverse_logdet_p.bind(X, precision=precision, structure=structure, products_follow=products_follow))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _inverse_logdet(X, precision, structure):
    return inverse_logdet(X, precision, structure)


def _inverse_logdet_fwd(X, precision, structure):
    Y, sign, logabsdet = inverse_logdet(X, precision, structure, products_follow=True)
    return (Y, sign, logabsdet), (Y, sign)


def _inverse_logdet_bwd(precision, structure, residuals, cotangents):
    Y, sign = residuals
    G, *of_determinant = cotangents
    (c,) = jax.linear_transpose(partial(_of_trace, sign), sign)(tuple(of_determinant))
    return (c[..., None, None] * Y.mT + minus_product("TNT", Y, G, Y, precision),)  # (7)


def _of_trace(sign, trace):
    """The derivatives of sign and logabsdet from that of log det X: (6) and (5)."""
    if jnp.iscomplexobj(trace):
        return lax.complex(jnp.zeros_like(trace.real), trace.imag) * sign, trace.real
    return jnp.zeros_like(trace), trace


_inverse_logdet.defvjp(_inverse_logdet_fwd, _inverse_logdet_bwd)


def _inverse_logdet_jvp(primals, tangents, *, precision, structure, **_):
    (X,), (dX,) = primals, tangents
    return transposed_jvp(lambda X: _inverse_logdet(X, precision, structure), X, ad.instantiate_zeros(dX))


def _inverse_logdet_batch(args, dims, **params):
    (X,), (dim,) = args, dims
    return inverse_logdet_p.bind(jnp.moveaxis(X, dim, 0), **params), (0, 0, 0)


def _kernel(X, *, precision, structure, products_follow, platform):
    Y, factors = inverse_and_factors_kernel(X, structure, products_follow, platform)
    size = jnp.abs(factors)
    singular = jnp.any(size == 0, axis=-1)  # beyond a pivot that is zero, the others are nan
    sign = jnp.where(singular, 0, jnp.prod(jnp.sign(factors), axis=-1))
    return Y, sign, jnp.where(singular, -jnp.inf, log_product(size))


def _abstract(X, **params):
    sharding = NamedSharding(X.sharding.mesh, PartitionSpec(*X.sharding.spec[:-2]))
    per_matrix = partial(X.update, shape=X.shape[:-2], sharding=sharding)
    return X, per_matrix(), per_matrix(dtype=jnp.finfo(X.dtype).dtype)


inverse_logdet_p = Primitive("inverse_logdet")
inverse_logdet_p.multiple_results = True
inverse_logdet_p.def_abstract_eval(_abstract)
ad.primitive_jvps[inverse_logdet_p] = _inverse_logdet_jvp
batching.primitive_batchers[inverse_logdet_p] = _inverse_logdet_batch
lower_by(inverse_logdet_p, _kernel)
