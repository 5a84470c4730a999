"""`jaxinv.inv`: the public inverse."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxinv._checks import as_square, canonical_precision, check_matrices_whole
from jaxinv._rule import inverse
from jaxinv._structure import canonical_structure, structured


def inv(a: ArrayLike, *, assume_a: str | None = None, lower: bool = False, precision: Any = None) -> Array:
    """The inverse of a square matrix, or of each matrix of a batch.

    Takes the place of `jax.numpy.linalg.inv`, and works under every transformation of JAX that it works under.

    Args:
        a: array of shape (..., n, n), with any leading batch shape: float32, float64, complex64, complex128, bfloat16,
            float16, integers or bool.
        assume_a: the structure of every matrix of `a`, in the words of `scipy.linalg.inv`: see the notes. None, the
            default, is 'general': structure is never looked for in the values.
        lower: of symmetric, hermitian and positive definite matrices, read the lower triangle, not the upper one.
        precision: of the matrix products in the derivatives, as in `jax.numpy.matmul`. None, the default, is
            `jax.lax.Precision.HIGHEST`: less costs most of the digits on a GPU or a TPU. The inverse itself does not
            depend on it.

    Returns:
        Array of shape (..., n, n). Integers and bool give float32 (float64 if they have 64 bits), any other dtype is
        kept; bfloat16 and float16 are computed in float32. Its units are the reciprocal of those of `a`.

    Raises:
        TypeError: `a` is not a numeric array: a list, a string, None, an array of objects or of PRNG keys; or `lower`
            is not a bool.
        ValueError: `a` is not of shape (..., n, n), its last two axes are sharded in explicit mode, `precision` is not
            one that `jax.numpy.matmul` takes, `assume_a` is none of the structures, or `lower=True` contradicts it.

    Notes:
        * A singular matrix gives inf or nan and never raises; the other matrices of its batch are untouched. A matrix
          that is singular only up to rounding gives large finite numbers. A nan gives nan, in its own matrix alone.
        * n = 0 and empty batches give an empty array.
        * Derivatives of any order exist, in forward and reverse mode, for complex matrices too: a holomorphic function
          of them, so `jax.grad(..., holomorphic=True)` applies. Reverse mode keeps the inverse and nothing else.
        * Derivatives with `assume_a` are those along the structure: tangents, and cotangents of `a`, are projected on
          it, to (G + G^T) / 2, for Hermitian matrices (G + G^H) / 2, or to the triangle or the diagonal. So a step
          along a gradient keeps the structure, and each pair of mirrored entries has the sum of two equal halves. The
          Hermitian projection is not holomorphic. Build both triangles of `a` from your parameters: if only the
          one that is read is filled, the derivatives are not those of the computed value.
        * To solve a X = b use `jax.numpy.linalg.solve` (`jax.scipy.linalg.cho_solve` for positive definite `a`): for a
          few right-hand sides it is faster and more accurate. The inverse pays where its entries are wanted, where
          one matrix meets many right-hand sides, and for batches of small matrices.

        `assume_a` and what it makes of `a`, where the entries that are not read may be anything, nan too:

        | `assume_a`                     | read                 | computed by                             |
        |--------------------------------|----------------------|-----------------------------------------|
        | None, 'general', 'gen'         | all                  | LU with partial pivoting                |
        | 'symmetric', 'sym'             | one triangle         | the same, of the whole symmetric matrix |
        | 'hermitian', 'her'             | one triangle         | the same, of the whole Hermitian matrix |
        | 'positive definite', 'pos'     | one triangle         | Cholesky; nan if it is not              |
        | 'upper triangular'             | the upper triangle   | substitution by blocks                  |
        | 'lower triangular'             | the lower triangle   | substitution by blocks                  |
        | 'diagonal'                     | the diagonal         | reciprocals                             |

        The inverse has the structure, exactly. Complex 'symmetric' is without a conjugate; a complex 'positive
        definite' matrix is Hermitian, and of its diagonal and that of a 'hermitian' one the real part is read.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> import jaxinv
        >>> X = jnp.array([[2.0, 3.0], [1.0, 2.0]])
        >>> print(jaxinv.inv(X))
        [[ 2. -3.]
         [-1.  2.]]
        >>> print(jax.grad(lambda X: jnp.trace(jaxinv.inv(X)))(X))  # -(Y Y)^T
        [[-7.  4.]
         [12. -7.]]
        >>> jaxinv.inv(jnp.tile(X, (10, 3, 1, 1))).shape
        (10, 3, 2, 2)

    References:
        * LU with partial pivoting, and the inverse from it: N. J. Higham, "Accuracy and Stability of Numerical
          Algorithms", 2nd ed., chapter 14, SIAM 2002, https://doi.org/10.1137/1.9780898718027
        * The rule: M. B. Giles, "An extended collection of matrix derivative results for forward and reverse mode
          automatic differentiation", Oxford 2008, https://people.maths.ox.ac.uk/gilesm/files/NA-08-01.pdf
    """
    a = as_square("inv", a)
    return _inv(a, canonical_structure("inv", assume_a, lower), canonical_precision("inv", precision))


@partial(jax.jit, static_argnums=(1, 2))
def _inv(a, structure, precision):
    check_matrices_whole("inv", a)
    compute_dtype, result_dtype = dtypes_of(a)
    X = structured(a.astype(compute_dtype), structure)
    return inverse(X, precision, structure=structure.kind).astype(result_dtype)


def dtypes_of(a: Array) -> tuple[Any, Any]:
    """The dtypes in which the inverse of `a` is computed and returned."""
    result_dtype = jax.eval_shape(jnp.sqrt, a).dtype
    return (jnp.float32 if jnp.finfo(result_dtype).bits < 32 else result_dtype), result_dtype
