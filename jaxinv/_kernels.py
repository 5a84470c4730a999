"""The kernels that compute inverses, by their names, and the choice of one.

They are functions of validated arrays (..., n, n) that know no derivative, chosen at lowering, where the whole batch is
visible under any nesting of `vmap`, by the table in `_kernel_names`.
"""

import math
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array

from jaxinv._blocked_lu import blocked_lu_inverse
from jaxinv._fused import map_at_once, map_matrices
from jaxinv._gauss_jordan import gauss_jordan_inverse
from jaxinv._kernel_names import kernel_name
from jaxinv._lapack import LAPACK_BATCH_IS_SERIAL
from jaxinv._large_lu import large_lu_inverse
from jaxinv._lowering import device_count, on_shards
from jaxinv._lu import (
    lu_blocks_inverse,
    lu_inverse,
    lu_inverse_in_turn,
    lu_product_inverse,
    permutation_on_cpu,
    scaled_inverse,
    turned_lu_inverse,
)
from jaxinv._panel_gauss_jordan import panel_gauss_jordan_inverse
from jaxinv._products import small_or_large_matmul
from jaxinv._row_lu import row_lu_inverse
from jaxinv._structure import projection
from jaxinv._structured_kernels import STRUCTURED_KERNELS, elementwise_triangles, fused_triangles
from jaxinv._unrolled_lu import lu_inverse_entries

BLOCK_ON_GPU = 32  # rows of the blocks that the library factorises


def inverse_kernel(X: Array, structure: str, products_follow: bool, platform: str) -> Array:
    """The inverse of each matrix, all of the `structure`; inf or nan where it is singular."""
    return _inverse_kernel(X, structure, products_follow, platform, with_factors=False)[0]


def inverse_and_factors_kernel(X: Array, structure: str, products_follow: bool, platform: str) -> tuple[Array, Array]:
    """The inverse of each matrix, and n factors of its determinant, shape (..., n)."""
    Y, factors = _inverse_kernel(X, structure, products_follow, platform, with_factors=True)
    return Y, factors


def _inverse_kernel(X, structure, products_follow, platform, with_factors):
    if 0 in X.shape:
        return X, jnp.ones(X.shape[:-1], X.dtype)

    def kernel(X):
        batch = math.prod(X.shape[:-2])
        name = kernel_name(X.shape[-1], batch, X.dtype, platform, structure, products_follow)
        Y, *factors = KERNELS[name](X, with_factors)
        Y = projection(Y, structure) if structure in ("symmetric", "hermitian") else Y
        if platform == "cpu" or name.startswith(("elementwise", "reciprocal")):
            return Y, *factors
        return tuple(_nan_where_nan(X, out) for out in (Y, *factors))

    drop = (0, 1)[: 1 + with_factors]  # axes that the results lack
    return on_shards(kernel, X, drop=drop)


def _nan_where_nan(X, out):
    """`out` with nan for each matrix of X that has one, whatever a library on GPU makes of it.

    On an NVIDIA H200 the tests of one matrix with a nan failed without, from n = 9 on.
    """
    has_nan = jnp.isnan(X).any((-2, -1))
    has_nan = has_nan.reshape(has_nan.shape + (1,) * (out.ndim - has_nan.ndim))
    return jnp.where(has_nan, jnp.full_like(out, jnp.nan), out)


def _reciprocal(X, with_factors):
    return (jnp.ones_like(X) / X, X[..., 0])[: 1 + with_factors]


def _unrolled(run, X, with_factors):
    n = X.shape[-1]
    sizes = (n * n, n)[: 1 + with_factors]
    Y, *factors = run(lambda *entries: _inverse_entries(*entries)[: sum(sizes)], sizes, X)
    return Y.reshape(X.shape), *factors


def _batched(X, with_factors):
    return lu_inverse(X, permutation_on_cpu)[: 1 + with_factors]


def _by_library(X, with_factors):
    return lu_inverse(X)[: 1 + with_factors]


def _on_one_device(kernel, otherwise, X, with_factors):
    """`kernel`, unless X may be spread over devices, where it would communicate."""
    return (kernel if device_count() == 1 else otherwise)(X, with_factors)


def _turned(X, with_factors):
    return turned_lu_inverse(X)[: 1 + with_factors]


def _blocked(X, with_factors):
    if X.ndim > 3 and device_count() > 1:  # its loop merges short axes of the batch, which may be sharded
        return (_batched if LAPACK_BATCH_IS_SERIAL else lu_inverse_in_turn)(X, with_factors)
    return blocked_lu_inverse(fused_triangles, X, with_factors)


def _inverse_entries(*entries):
    """The entries of the inverse, row by row, and then the factors of the determinant."""
    n = math.isqrt(len(entries))
    Y, factors = lu_inverse_entries([list(entries[i * n : (i + 1) * n]) for i in range(n)])
    return tuple(y for row in [*Y, factors] for y in row)


_fused = partial(_unrolled, map_matrices)
KERNELS: dict[str, Callable[..., tuple[Array, ...]]] = {
    "reciprocal": _reciprocal,
    "fused LU": _fused,
    "row LU": partial(_on_one_device, row_lu_inverse, _fused),
    "panel Gauss-Jordan": panel_gauss_jordan_inverse,
    "blocked LU": _blocked,
    "large LU": large_lu_inverse,
    "batched LU": _batched,
    "turned LU": partial(_on_one_device, _turned, _batched),
    "elementwise Gauss-Jordan": gauss_jordan_inverse,
    "library LU": partial(scaled_inverse, _by_library),
    "LU and product": partial(
        scaled_inverse, partial(lu_product_inverse, elementwise_triangles, small_or_large_matmul)
    ),
    "LU and blocks": partial(lu_blocks_inverse, elementwise_triangles, BLOCK_ON_GPU),
    "LU in turn": lu_inverse_in_turn,
    "elementwise LU": partial(_unrolled, map_at_once),
    **STRUCTURED_KERNELS,
}
