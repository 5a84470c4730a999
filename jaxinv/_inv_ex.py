"""`jaxinv.inv_ex`: the inverse with a diagnosis of each matrix, and no nan from singular ones."""

from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxinv._checks import as_square, canonical_precision, check_matrices_whole
from jaxinv._inv import dtypes_of
from jaxinv._lowering import at_most
from jaxinv._rule import inverse, is_zero
from jaxinv._structure import canonical_structure, structured

# XLA:CPU reduces short axes slowly: `inv_ex` of 262144 of n = 2 5.6 ms, with a sum of rows 1.3, of n = 3 8.4 and 4.2,
# of 65536 of n = 7 12.4 and 8.1, of n = 8 18.6 and 9.8, but in float64 30.6 and 32.2, in complex64 59 and 80, on AMD
# EPYC 9004, JAX 0.12.0.1, 2026-11-28. On GPU not measured.
ROWS_ADDED_UP_TO = 7


class InvEx(NamedTuple):
    """What `inv_ex` returns."""

    inverse: Array
    rcond: Array
    singular: Array


def inv_ex(a: ArrayLike, *, assume_a: str | None = None, lower: bool = False, precision: Any = None) -> InvEx:
    """The inverse of each matrix, its reciprocal condition number, and whether it is singular.

    Where `inv` gives inf or nan, this gives zero, and zero gradients: one singular matrix harms no other, neither
    directly nor through parameters that they share (one with nan or inf can: what made these has a derivative of its
    own). It never raises for values and never waits for the host.

    Args:
        a: array of shape (..., n, n), of the dtypes of `inv`.
        assume_a: the structure of the matrices, as in `inv`. One that is not positive definite where it should be is
            `singular`.
        lower: the triangle that is read, as in `inv`.
        precision: of the matrix products in the derivatives, as in `inv`.

    Returns:
        A named tuple of

        * `inverse`, shape (..., n, n), the dtype that `inv` returns: zero where `singular`, else the bits of `inv`;
        * `rcond`, shape (...), real: the reciprocal condition number 1 / (|a| |inverse|) in the 1-norm, exact, and 0
          where `singular` or a norm overflows. Below n eps the inverse may have no correct digit. float32 for bfloat16
          and float16;
        * `singular`, shape (...), bool: elimination met a zero pivot (Cholesky, one that is not positive), the inverse
          overflows or is rounded to zero, or what is read of `a` has a nan or inf.

    Raises:
        TypeError, ValueError: as `inv`.

    Notes:
        * Rounding hides singularity: a matrix that is singular in exact arithmetic is often inverted to large finite
          numbers. `rcond` shows it, `singular` does not.
        * The inverse has derivatives of any order, in both modes; where `singular` they are zero, whatever comes from
          above, nan too. `rcond` and `singular` have none.
        * `inv` keeps the inf and nan. A float16 inverse above 65504 is inf here too: it is rounded at the end.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import jaxinv
        >>> X = jnp.array([[[2.0, 3.0], [1.0, 2.0]], [[1.0, 1.0], [1.0, 1.0]]])
        >>> Y, rcond, singular = jaxinv.inv_ex(X)
        >>> print(rcond, singular)
        [0.04 0.  ] [False  True]
        >>> print(Y[1])
        [[0. 0.]
         [0. 0.]]
        >>> print(jax.grad(lambda X: jnp.trace(jaxinv.inv_ex(X).inverse.sum(0)))(X)[1])
        [[0. 0.]
         [0. 0.]]

    References:
        N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., chapter 15, SIAM 2002,
        https://doi.org/10.1137/1.9780898718027
    """
    a = as_square("inv_ex", a)
    return _inv_ex(a, canonical_structure("inv_ex", assume_a, lower), canonical_precision("inv_ex", precision))


@partial(jax.jit, static_argnums=(1, 2))
def _inv_ex(a, structure, precision):
    check_matrices_whole("inv_ex", a)
    compute_dtype, result_dtype = dtypes_of(a)
    X = structured(a.astype(compute_dtype), structure)
    Y = inverse(X, precision, zero_singular=True, structure=structure.kind)
    X_, Y_ = lax.stop_gradient((X, Y))
    empty = X.shape[-1] == 0
    singular = is_zero(Y_)[..., 0, 0] & (not empty)
    rcond = jnp.ones_like(_norm(X_)) if empty else jnp.where(singular, 0, 1 / _norm(X_) / _norm(Y_))
    return InvEx(Y.astype(result_dtype), rcond, singular)


def _norm(X):
    """The 1-norm of each matrix."""
    n = X.shape[-1]
    if n and at_most(n, ROWS_ADDED_UP_TO):
        sums = reduce(jnp.add, [jnp.abs(X[..., row, :]) for row in range(n)])
        return reduce(jnp.maximum, [sums[..., column] for column in range(n)])
    return jnp.max(jnp.sum(jnp.abs(X), axis=-2), axis=-1, initial=0)
