"""The inverses of small matrices, one after another, as elementwise operations on arrays of the shape of X.

The entry Y_ij is picked from row i of Y, and that row is the solution y of X^T y = e_i, see `lu_inverse_row`. XLA:CPU
makes one loop of this. It factorises each matrix once, since in that nothing depends on i or j, and LLVM solves for all
rows at once, as the entries of a vector. Only X is read and Y written. The loop of `_fused` is faster for many
matrices, but writes vectors besides, and in each call XLA allots a buffer to each of its operations.

Where the rows fill a vector the factorisation is faster as vector code, the same in each entry, since scalar selects
are branches. A zero of which the compilers know nothing keeps them from taking it out of the loop over rows. Two
matrices whose rows fill a vector together are factorised together, each in its half of it: they are seen as one of
twice as many rows, in which an entry is a choice between those of the two.

XLA would fuse the loop into what uses Y, and compute a whole inverse for each use of an entry. It fuses nothing through
a conditional, and does not know that this one takes its first branch, for the same zero.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._scalars import Pair, number_like, parts, select
from jaxinv._two_by_two import scattered
from jaxinv._unrolled_lu import lu_determinant_factors, lu_inverse_row

VECTOR_BYTES = 32  # as LLVM chooses on x86, also where AVX-512 has longer ones


def row_lu_inverse(X: Array, with_factors: bool) -> tuple[Array, ...]:
    """The inverse of each matrix, and if asked for n factors of its determinant, shape (..., n)."""
    shape = X.shape
    n = shape[-1]
    X = X.reshape(-1, n, n)
    together = 2 if 2 * n == _rows_of_vector(X) and len(X) % 2 == 0 else 1
    zero = _unknown_zero(X)

    def run(X, zero):
        stacks = X.reshape(-1, together * n, n)
        return (_inverse(stacks, zero), _factors(X)) if with_factors else (_inverse(stacks, zero),)

    def never(X, zero):
        nan = jnp.full_like(X, jnp.nan)  # for X itself XLA would copy X first
        return (nan.reshape(-1, together * n, n), nan[..., 0])[: 1 + with_factors]

    Y, *factors = lax.cond(zero == 0, run, never, X, zero)
    return Y.reshape(shape), *(f.reshape(shape[:-1]) for f in factors)


def _rows_of_vector(X):
    return VECTOR_BYTES // X.real.dtype.itemsize


def _inverse(X, zero):
    """The inverses of matrices that lie on top of each other."""
    _, height, n = X.shape
    row, j = (lax.broadcasted_iota(jnp.int32, X.shape, axis) for axis in (1, 2))
    x, *others = (scattered(X, X.shape, first) for first in range(0, height, n))
    for z in others:
        x = [select(row < n, *entries) for entries in zip(x, z, strict=True)]
    if height == n and _rows_of_vector(X) % n == 0:
        x[0] = x[0] + _same_for_all(zero * row.astype(zero.dtype), x[0])
    return picked(lu_inverse_row(_in_rows(x), row % n), j)


def _factors(X):
    shape = X.shape[:-1]
    k = lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    return picked(lu_determinant_factors(_in_rows(scattered(X, shape))), k)


def _in_rows(entries):
    n = math.isqrt(len(entries))
    return [entries[i * n : (i + 1) * n] for i in range(n)]


def picked(vectors: Sequence, j: Array) -> Array:
    """An array of the shape of j, of entries of the j-th of the `vectors`."""
    out = vectors[-1]
    for k, v in enumerate(vectors[:-1]):
        out = select(j == k, v, out)
    out = parts([out])
    return lax.complex(*out) if len(out) == 2 else out[0]


def _same_for_all(z, like):
    return Pair(z, number_like(z, 0)) if isinstance(like, Pair) else z


def _unknown_zero(X):
    """A zero with the sign of the first entry."""
    x = jnp.real(X.reshape(-1)[0])
    sign = lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32) & jnp.iinfo(jnp.int32).min
    return lax.bitcast_convert_type(sign, jnp.float32).astype(x.dtype)
