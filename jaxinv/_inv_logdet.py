"""`jaxinv.inv_logdet`: the inverse and the log-determinant from one factorisation."""

from functools import partial
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.typing import ArrayLike

from jaxinv._checks import as_square, canonical_precision, check_matrices_whole
from jaxinv._inv import dtypes_of
from jaxinv._logdet_rule import inverse_logdet
from jaxinv._structure import canonical_structure, structured


class InvLogdet(NamedTuple):
    """What `inv_logdet` returns."""

    inverse: Array
    sign: Array
    logabsdet: Array


def inv_logdet(a: ArrayLike, *, assume_a: str | None = None, lower: bool = False, precision: Any = None) -> InvLogdet:
    """The inverse of each matrix and the logarithm of its determinant, from one factorisation.

    For log densities and their gradients: `jaxinv.inv` and `jax.numpy.linalg.slogdet` would factorise twice, and in
    their gradients once more.

    Args:
        a: array of shape (..., n, n), of the dtypes of `inv`.
        assume_a: the structure of the matrices, as in `inv`.
        lower: the triangle that is read, as in `inv`.
        precision: of the matrix products in the derivatives, as in `inv`.

    Returns:
        A named tuple of `inverse`, shape (..., n, n) and the dtype that `inv` returns; `sign`, shape (...), of the same
        dtype: 1 or -1, for complex matrices a number of modulus 1; and `logabsdet`, shape (...), real. The determinant
        is sign exp(logabsdet). For bfloat16 and float16, `sign` and `logabsdet` are float32. With `a` in units of u,
        `inverse` is in 1/u and the determinant in u^n.

    Raises:
        TypeError, ValueError: as `inv`.

    Notes:
        * A singular matrix has inf or nan in its inverse, sign 0 and logabsdet -inf; its gradient is nan. A matrix that
          is not positive definite where `assume_a` says so gives nan in all three, a singular one too.
        * A nan gives nan, but sign 0 and logabsdet -inf if elimination meets a pivot of zero first, as
          `jax.numpy.linalg.slogdet` does: which it is may depend on the batch. Its inverse has a nan.
        * Derivatives of any order exist, in both modes: X_bar = c Y^T - Y^T (G Y^T) with the cotangent c of logabsdet.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import jaxinv
        >>> X = jnp.array([[2.0, 3.0], [1.0, 2.0]])
        >>> Y, sign, logabsdet = jaxinv.inv_logdet(X)
        >>> bool(jnp.allclose(sign * jnp.exp(logabsdet), 1.0))
        True
        >>> print(jax.grad(lambda X: jaxinv.inv_logdet(X).logabsdet)(X))  # Y^T
        [[ 2. -1.]
         [-3.  2.]]

    References:
        M. B. Giles, "An extended collection of matrix derivative results for forward and reverse mode automatic
        differentiation", Oxford 2008, https://people.maths.ox.ac.uk/gilesm/files/NA-08-01.pdf
    """
    a = as_square("inv_logdet", a)
    structure = canonical_structure("inv_logdet", assume_a, lower)
    return _inv_logdet(a, structure, canonical_precision("inv_logdet", precision))


@partial(jax.jit, static_argnums=(1, 2))
def _inv_logdet(a, structure, precision):
    check_matrices_whole("inv_logdet", a)
    compute_dtype, result_dtype = dtypes_of(a)
    X = structured(a.astype(compute_dtype), structure)
    inverse, sign, logabsdet = inverse_logdet(X, precision, structure.kind)
    return InvLogdet(inverse.astype(result_dtype), sign, logabsdet)
