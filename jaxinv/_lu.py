"""The inverse by LAPACK's LU factorisation, or that of the platform."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from jaxinv._lapack import in_turn
from jaxinv._lowering import at_most
from jaxinv._one_loop import computed, materialised
from jaxinv._triangular import diagonal_blocks, even_blocks, substituted, with_unit_diagonal


def lu_inverse(X: Array, permutation: Callable[..., Array] | None = None) -> tuple[Array, Array]:
    """P X = L U with partial pivoting, then L Z = P and U Y = Z; and the n factors of the determinant.

    `permutation` makes P of the exchanges of rows, their order and a dtype, as `permutation_on_cpu` does.
    """
    LU, pivots, row_of = lax.linalg.lu(X)
    P = (permutation or _permutation_by_rows)(pivots, row_of, X.dtype)
    return _solved(LU, P), _factors(LU, pivots)


def lu_inverse_in_turn(X: Array, with_factors: bool) -> tuple[Array, ...]:
    """As `lu_inverse`, matrix by matrix."""

    def permutation(pivots, row_of, dtype):
        n = row_of.shape[-1]
        is_large = isinstance(n, int) and n >= PLACES_FROM
        return permutation_by_places(pivots, dtype) if is_large else _permutation_by_rows(pivots, row_of, dtype)

    return in_turn(lambda X: lu_inverse(X, permutation)[: 1 + with_factors], X)


# JAX runs a program of at most 1000 counted operations in the thread that calls it, and wakes another for more. It
# counts one for each entry of LAPACK's LU and some two for each row, and none for a constant or a gather. On AMD EPYC
# 9004, 2026-11-28, with the solutions, ten of n = 8 take 21 us, and counted or as by `jnp.linalg.inv` 49, two of n = 21
# 26 and 67, three of n = 17 25 and 68, one of n = 30 25 and 63.
FEW_OPERATIONS = 970


def _is_few(row_of):
    return at_most(math.prod(row_of.shape) * (row_of.shape[-1] + 2), FEW_OPERATIONS)


def _permutation_by_rows(pivots, row_of, dtype):
    """P, by the rows of the identity in their order."""
    n = row_of.shape[-1]
    identity = jnp.asarray(np.eye(n, dtype=dtype)) if _is_few(row_of) else jnp.eye(n, dtype=dtype)
    rows = lax.GatherDimensionNumbers(offset_dims=(row_of.ndim,), collapsed_slice_dims=(0,), start_index_map=(0,))
    in_bounds = lax.GatherScatterMode.PROMISE_IN_BOUNDS  # by `jnp` an index may be negative, which is counted
    return lax.gather(identity, row_of[..., None], rows, slice_sizes=(1, n), mode=in_bounds)


def permutation_on_cpu(pivots: Array, row_of: Array, dtype: DTypeLike) -> Array:
    """P, in the way that is fastest there."""
    *batch, n = row_of.shape
    is_known = all(isinstance(size, int) for size in row_of.shape)
    is_batch = is_known and math.prod(batch) > 1 and n <= PLACES_OF_BATCH_UP_TO and not _is_few(row_of)
    return permutation_by_places(pivots, dtype) if is_batch else _permutation_by_rows(pivots, row_of, dtype)


# Exchanges of rows, in a step of a loop, on AMD EPYC of the third generation (AVX2), 2026-11-26: chunks of n = 40 0.21
# us, and 1.0 by `lu_pivots_to_permutation`, n = 128 1.8 and 5.9. Matrix by matrix, with the inverse, n = 24 even, n =
# 64 57 us in place of 76. With the inverses of a batch, on AMD EPYC 9004, 2026-11-28: ten of n = 8 70 and 77 us, of n =
# 16 to 64 2 to 5 % less, three of n = 17 61 and 69, two of n = 22 78 and 93, ten of n = 256 even.
EXCHANGES = 4
PLACES_FROM = 30
PLACES_OF_BATCH_UP_TO = 128


def permutation_by_places(pivots: Array, dtype: DTypeLike) -> Array:
    """P, which makes the exchanges of rows `pivots`, shape (..., n), one after the other."""
    place = places(pivots)[..., None, :]
    return (place == lax.broadcasted_iota(pivots.dtype, (*pivots.shape, pivots.shape[-1]), pivots.ndim - 1)).astype(
        dtype
    )


def places(pivots: Array) -> Array:
    """The place to which the exchanges bring each row: each is followed alone, in vector code without a gather."""
    n = pivots.shape[-1]
    rows = lax.broadcasted_iota(pivots.dtype, pivots.shape, pivots.ndim - 1) + jnp.zeros_like(pivots)  # as sharded

    def exchanged(place, first, pivots):
        for u in range(pivots.shape[-1]):
            k, pivot = first + u, pivots[..., u, None]
            place = jnp.where(place == k, pivot, jnp.where(place == pivot, k, place))
        return place

    def body(i, place):
        first = jnp.asarray(i, place.dtype) * EXCHANGES  # i is no array where jit is disabled
        return exchanged(place, first, lax.dynamic_slice_in_dim(pivots, first, EXCHANGES, pivots.ndim - 1))

    rest = n - n % EXCHANGES
    place = lax.fori_loop(0, n // EXCHANGES, body, rows) if rest else rows
    return exchanged(place, rest, pivots[..., rest:])


def _solved(LU, P):
    Z = lax.linalg.triangular_solve(LU, P, left_side=True, lower=True, unit_diagonal=True)
    return lax.linalg.triangular_solve(LU, Z, left_side=True, lower=False)


def turned_lu_inverse(X: Array) -> tuple[Array, Array]:
    """As `lu_inverse`, by the LU of A = J (X S)^T J, where J is the identity with its rows in reverse.

        P A = L U,    Y = S (J U^-1 L^-1 P J)^T

    LAPACK takes matrices by columns, and X lies by rows: A is X read backwards, and no large matrix is transposed. An
    upper triangle remains one, with its small error. The pivots are found in the rows of X, so S, powers of two, gives
    its columns the same size; nothing is rounded.
    """
    scale = materialised(_column_scales(X))  # once, not for each entry
    LU, pivots, row_of = lax.linalg.lu(jnp.flip(X * scale[..., None, :], (-2, -1)).mT)
    Z = _solved(LU, _permutation_by_rows(pivots, row_of, X.dtype))
    Y = computed(scale[..., :, None] * jnp.flip(Z.mT, (-2, -1)))  # once, lest products keep both
    scale_of_row = jnp.take_along_axis(jnp.flip(scale, -1), row_of, axis=-1, mode="promise_in_bounds")
    return Y, _factors(LU, pivots) / scale_of_row


def _column_scales(X):
    """Powers of two by which the largest entries of all columns come to the size of the largest of all.

    That, or what X and Y have room for: 2^99 in single, 2^798 in double precision.
    """
    size = jnp.max(jnp.abs(X), axis=-2)
    least, most = (int(getattr(jnp.finfo(size.dtype), name)) for name in ("minexp", "maxexp"))
    exponent = jnp.frexp(size)[1]
    common = jnp.minimum(jnp.max(exponent, axis=-1, keepdims=True), most * 78 // 100)
    shift = jnp.clip(common - exponent, least, -least)
    shift = jnp.where(jnp.isfinite(size), shift, 0)  # of a complex number too the modulus may be inf
    return jnp.ldexp(jnp.ones_like(size), shift).astype(X.dtype)


def lu_product_inverse(
    triangles: Callable[[bool, Array], Array],
    product: Callable[[Array, Array], Array],
    X: Array,
    with_factors: bool = False,
) -> tuple[Array, ...]:
    """P X = L U and Y = (U^-1 L^-1) P, for batches on GPU, where substitution in a library takes most of the time.

    `triangles(lower, T)` gives the inverses of triangular matrices, `product(A, B)` products. If asked for, n factors
    of the determinant too.

    Source: J. J. Du Croz and N. J. Higham, "Stability of methods for matrix inversion", method D, IMA J. Numer. Anal.
    12, 1992, https://doi.org/10.1093/imanum/12.1.1
    """
    LU, pivots, row_of = lax.linalg.lu(X)
    Z = product(triangles(False, LU), triangles(True, with_unit_diagonal(LU)))
    place, column = (lax.broadcasted_iota(jnp.int32, X.shape, X.ndim - axis) for axis in (1, 2))
    is_place = row_of[..., None, :] == column
    place_of = jnp.sum(jnp.where(is_place, place, 0), axis=-1, dtype=jnp.int32)  # a sort would take longer
    Y = jnp.take_along_axis(Z, place_of[..., None, :], axis=-1, mode="promise_in_bounds")
    return (Y, _factors(LU, pivots))[: 1 + with_factors]


def scaled_inverse(kernel: Callable[..., tuple[Array, ...]], X: Array, with_factors: bool) -> tuple[Array, ...]:
    """By `kernel`, Y = s (s X)^-1 with powers of two s that bring the largest entry of each complex matrix near 1.

    The library that XLA calls on GPU squares complex entries: on an NVIDIA H200 its inverses of matrices near under-
    and overflow had errors of up to 1e10 times those of LAPACK. Real matrices are left alone.
    """
    if not jnp.iscomplexobj(X):
        return kernel(X, with_factors)
    size = jnp.max(jnp.maximum(jnp.abs(X.real), jnp.abs(X.imag)), axis=(-2, -1), keepdims=True)
    least = int(jnp.finfo(size.dtype).minexp)
    exponent = jnp.clip(jnp.where(jnp.isfinite(size), jnp.frexp(size)[1], 0), least, -least)
    s = jnp.ldexp(jnp.ones_like(size), -exponent)
    times = lambda Z, s: lax.complex(Z.real * s, Z.imag * s)  # a complex s would make nan of inf
    Y, *factors = kernel(times(X, s), with_factors)
    return times(Y, s), *(times(factor, 1 / s[..., 0]) for factor in factors)


def lu_blocks_inverse(
    triangles: Callable[[bool, Array], Array], largest: int, X: Array, with_factors: bool = False
) -> tuple[Array, ...]:
    """P X = L U, L W = P and U Y = W by substitution in halves, given the inverses of blocks of up to `largest` rows.

    As `_blocked_lu` on CPU, in one piece, for batches on GPU.
    """
    n = X.shape[-1]
    LU, pivots, row_of = lax.linalg.lu(X)
    P = (row_of[..., None] == lax.broadcasted_iota(row_of.dtype, X.shape, X.ndim - 1)).astype(X.dtype)
    blocks = even_blocks(n, largest)
    D = diagonal_blocks(LU, blocks)
    over_L, over_U = triangles(True, with_unit_diagonal(D)), triangles(False, D)
    Y = substituted(LU, over_U, False, blocks, substituted(LU, over_L, True, blocks, P))
    return (Y, _factors(LU, pivots))[: 1 + with_factors]


def _factors(LU, pivots):
    swaps = pivots != lax.broadcasted_iota(pivots.dtype, pivots.shape, pivots.ndim - 1)
    return jnp.where(swaps, -1, 1).astype(LU.dtype) * jnp.diagonal(LU, axis1=-2, axis2=-1)
