"""`jaxinv.inv`: the public inverse."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxinv._checks import as_square, canonical_precision
from jaxinv._rule import inverse


def inv(a: ArrayLike, *, precision: Any = None) -> Array:
    """The inverse of a square matrix, or of each matrix of a batch."""
    a = as_square("inv", a)
    return _inv(a, canonical_precision("inv", precision))


@partial(jax.jit, static_argnums=1)
def _inv(a, precision):
    result_dtype = jax.eval_shape(jnp.sqrt, a).dtype
    compute_dtype = jnp.float32 if jnp.finfo(result_dtype).bits < 32 else result_dtype
    return inverse(a.astype(compute_dtype), precision).astype(result_dtype)
