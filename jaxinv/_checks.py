"""What callers may pass: messages name the argument, the requirement and what came."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def as_square(name: str, a: Any) -> Array:
    """`a` as a JAX array of shape (..., n, n)."""
    if not isinstance(a, jax.Array):
        a = _as_array(name, a)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"{name}: a must have shape (..., n, n), got {a.shape}")
    return a


def _as_array(name: str, a: Any) -> Array:
    arraylike = isinstance(a, (np.ndarray, np.generic, bool, int, float, complex)) or hasattr(a, "__jax_array__")
    if not arraylike or (isinstance(a, np.ndarray) and a.dtype.kind not in "biufcV"):
        kind = f"an array of dtype {a.dtype}" if isinstance(a, np.ndarray) else type(a).__name__
        raise TypeError(f"{name}: a must be a numeric array, got {kind}; jnp.asarray converts nested lists")
    return jnp.asarray(a)


def canonical_precision(name: str, precision: Any) -> Any:
    """`precision` as a hashable value of `jax.lax`; None, the default, is HIGHEST."""
    if precision is None:
        return lax.Precision.HIGHEST
    return precision
