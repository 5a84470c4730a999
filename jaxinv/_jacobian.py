"""`jaxinv.inv_jacobian`: the derivative of the inverse as a tensor."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxinv._checks import as_square, canonical_precision
from jaxinv._inv import inv


def inv_jacobian(a: ArrayLike, *, precision: Any = None) -> Array:
    """The derivative of Y = inv(a) with respect to each entry of a: dY_ij / dX_kl = -Y_ik Y_lj.

    This is the tensor that `jax.jacobian(jaxinv.inv)` gives for one matrix, and equation (1) of the rule of `inv`. It
    has n^4 entries a matrix: to apply it to a cotangent or a tangent use `jax.vjp` or `jax.jvp` of `inv`, at n^2.

    Args:
        a: array of shape (..., n, n), of the dtypes of `inv`.
        precision: of the products, as in `inv`.

    Returns:
        Array of shape (..., n, n, n, n), indices (..., i, j, k, l), of the dtype that `inv` returns. Its units are
        those of the inverse squared. Differentiable to any order, in both modes.

    Raises:
        TypeError, ValueError: as `inv`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import jaxinv
        >>> X = jnp.array([[2.0, 0.0], [1.0, 4.0]])
        >>> D = jaxinv.inv_jacobian(X)
        >>> D.shape
        (2, 2, 2, 2)
        >>> bool(jnp.allclose(D, jax.jacobian(jaxinv.inv)(X)))
        True
    """
    precision = canonical_precision("inv_jacobian", precision)
    Y = inv(as_square("inv_jacobian", a), precision=precision)
    return -jnp.einsum("...ik,...lj->...ijkl", Y, Y, precision=precision)  # (1)
