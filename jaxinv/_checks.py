"""What callers may pass: messages name the argument, the requirement and what came."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def as_square(name: str, a: Any) -> Array:
    """`a` as a JAX array of shape (..., n, n)."""
    if not (isinstance(a, jax.Array) and isinstance(a.dtype, np.dtype)):  # the dtype of PRNG keys is not NumPy's
        a = _as_array(name, a)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ValueError(f"{name}: a must have shape (..., n, n), got {a.shape}")
    return a


def check_matrices_whole(name: str, a: Array) -> None:
    """Each matrix of `a` must lie on one device, as far as its type says (explicit sharding)."""
    spec = tuple(jax.typeof(a).sharding.spec)
    if any(axis is not None for axis in spec[a.ndim - 2 :]):
        raise ValueError(f"{name}: the last two axes of a must not be sharded, got {jax.typeof(a)}; reshard it first")


def _as_array(name: str, a: Any) -> Array:
    if isinstance(a, (jax.Array, np.ndarray, np.generic)):
        numeric = isinstance(a.dtype, np.dtype) and (a.dtype == bool or jnp.issubdtype(a.dtype, np.number))
        numeric = numeric and a.dtype.type not in (np.longdouble, np.clongdouble)  # which JAX has not
    else:
        numeric = isinstance(a, (bool, int, float, complex)) or hasattr(a, "__jax_array__")
    if not numeric:
        kind = f"an array of dtype {a.dtype}" if isinstance(a, (jax.Array, np.ndarray)) else type(a).__name__
        raise TypeError(f"{name}: a must be a numeric array, got {kind}; jnp.asarray converts nested lists")
    return jnp.asarray(a)


def canonical_precision(name: str, precision: Any) -> Any:
    """`precision` as a hashable value of `jnp.matmul`; None, the default, is HIGHEST."""
    if precision is None:
        return lax.Precision.HIGHEST
    try:
        _check_precision(precision)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}: precision must be None (highest), 'highest', 'high', 'default' or another name that jnp.matmul "
            f"knows, a jax.lax.Precision, DotAlgorithm or DotAlgorithmPreset, or a tuple of two, got {precision!r}"
        ) from None
    return precision


@lru_cache
def _check_precision(precision):
    X = jax.ShapeDtypeStruct((1, 1), jnp.float32)
    jax.eval_shape(lambda X: jnp.matmul(X, X, precision=precision), X)
