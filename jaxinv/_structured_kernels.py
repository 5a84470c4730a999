"""Which kernel computes the inverse of a matrix with structure, as `_kernel_names` does for general ones.

Symmetric and Hermitian matrices go through the general kernels.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxinv._cholesky import cholesky_inverse, inverse_factor_in_one_thread, library_inverse_factor
from jaxinv._fused import map_at_once, map_blocks_at_once, map_matrices
from jaxinv._lapack import over_batch, triangular_inverses_in_one_thread
from jaxinv._products import small_or_large_matmul
from jaxinv._small_structured import small_inverse_factor, small_positive_definite, small_triangular
from jaxinv._triangular import blocked_triangular, matmul, solved_triangular

STRUCTURES = ("diagonal", "upper triangular", "lower triangular", "positive definite")
# Limits, measured on AMD EPYC 7003 (2 shared cores), float32, JAX 0.12.0, 2026-11-24.
# n = 12: 0.28 us triangular, 0.35 positive definite, against 0.76 of LU by panels. Compiling takes 1.5 s.
FUSED_UP_TO = 12
FUSED_COMPLEX_UP_TO = 6
# A call of the loop costs as much as LAPACK at batches of 60 of n = 6 and 200 of n = 12, positive definite 60 and 500.
# Of triangular matrices, the blocks on the diagonal go through it together.
TRIANGULAR_FROM_BATCH = 1.5  # n^2
POSITIVE_DEFINITE_FROM_BATCH = 4  # n^2
# Fewer do not fill the vectors.
FEWEST_FUSED = 16
# Triangular, one matrix: n = 128 80 us by one call against 100 to 250 by blocks, n = 256 390 against 330. Positive
# definite: n = 64 31 us, 34 by blocks of 32, n = 128 82 by blocks of 64, 111 by one call.
LIBRARY_UP_TO = 128
LIBRARY_POSITIVE_DEFINITE_UP_TO = 64
# Rows of the blocks of few matrices: positive definite, n = 256 267 us with 64 against 299 with 32.
LIBRARY_BLOCK = 32
LIBRARY_POSITIVE_DEFINITE_BLOCK = 64
# LAPACK's threads would take a core from the matrix products: triangular, n = 512 0.7 against 1.3 ms, n = 2048 22
# against 36; positive definite, n = 512 1.7 against 1.9, n = 2048 46 against 85. n = 256 is faster with them.
ONE_THREAD_FROM = 512
# Rows of the blocks that LAPACK factorises of many matrices: n = 64 30 us with 16, 50 with 64.
SMALL_LIBRARY_BLOCK = 16
# On GPU and TPU, as of general matrices. Positive definite ones, by the library, on an NVIDIA H200: n = 64 0.24 us, and
# 0.47 of general ones, n = 256 5 and 12 us.
ELEMENTWISE_UP_TO = 8
BLOCKS = ("fused blocks", "elementwise blocks", "library blocks", "single-thread blocks")


def structured_kernel_name(n: int, batch: int, dtype: DTypeLike, platform: str, structure: str) -> str:
    """The kernel for a batch of n x n matrices of one of the `STRUCTURES`; n and the batch may be symbolic."""
    if structure == "diagonal":
        return "reciprocals"
    if n == 1:
        return f"elementwise {structure}"
    if not _is_known(n):
        return f"library {structure}"
    if platform != "cpu":
        return f"elementwise {structure}" if n <= _elementwise_up_to(dtype) else f"elementwise blocks {structure}"
    positive_definite, fused_up_to = structure == "positive definite", _fused_up_to(dtype)
    block = min(n, fused_up_to)
    if positive_definite:
        from_batch = POSITIVE_DEFINITE_FROM_BATCH * block**2 if n <= 2 * fused_up_to else 0
    else:
        from_batch = TRIANGULAR_FROM_BATCH * block**2 / (n // block)
    if _is_known(batch) and batch < max(FEWEST_FUSED, from_batch):
        if n <= (LIBRARY_POSITIVE_DEFINITE_UP_TO if positive_definite else LIBRARY_UP_TO):
            return f"library {structure}"
        return f"library blocks {structure}" if n < ONE_THREAD_FROM else f"single-thread blocks {structure}"
    if positive_definite and n > 2 * fused_up_to:
        return f"small library blocks {structure}"
    return f"fused {structure}" if n <= fused_up_to else f"fused blocks {structure}"


def _is_known(size):
    return isinstance(size, int)


def _fused_up_to(dtype):
    return FUSED_COMPLEX_UP_TO if jnp.issubdtype(dtype, jnp.complexfloating) else FUSED_UP_TO


def _elementwise_up_to(dtype):
    return min(ELEMENTWISE_UP_TO, _fused_up_to(dtype))


def fused_triangles(lower: bool, X: Array) -> Array:
    """The inverses of many triangular matrices, on CPU."""
    return _by_blocks("fused blocks", lower, X)


def elementwise_triangles(lower: bool, X: Array) -> Array:
    """As `fused_triangles`, on GPU."""
    return _by_blocks("elementwise blocks", lower, X)


def _reciprocals(X, with_factors):
    row, column = (jnp.arange(X.shape[-1])[(None,) * (X.ndim - 2) + key] for key in ((..., None), (None, ...)))
    Y = jnp.where(row == column, 1 / X, 0)
    return (Y, jnp.diagonal(X, axis1=-2, axis2=-1))[: 1 + with_factors]


def _by_library(lower, X):
    return over_batch(partial(solved_triangular, lower), X)


def _by_blocks(form, lower, X):
    small: dict[str, tuple[int, Callable[[Array], Array]]] = {
        "fused blocks": (_fused_up_to(X.dtype), lambda X: small_triangular(map_matrices, lower, X)[0]),
        "elementwise blocks": (
            _elementwise_up_to(X.dtype),
            lambda X: small_triangular(map_blocks_at_once, lower, X)[0],
        ),
        "library blocks": (LIBRARY_BLOCK, partial(_by_library, lower)),
        "single-thread blocks": (LIBRARY_BLOCK, partial(triangular_inverses_in_one_thread, lower)),
    }
    largest, inverses = small[form]
    product = small_or_large_matmul if form == "elementwise blocks" else matmul
    return blocked_triangular(inverses, largest, lower, X, product)


def _cholesky_in_halves(X, with_factors):
    inverse_factor = partial(small_inverse_factor, map_matrices)
    return cholesky_inverse(inverse_factor, _fused_up_to(X.dtype), X, with_factors)


def _with_diagonal(inverses, X, with_factors):
    return (inverses(X), jnp.diagonal(X, axis1=-2, axis2=-1))[: 1 + with_factors]


def _kernels() -> dict[str, Callable[[Array, bool], tuple[Array, ...]]]:
    kernels: dict[str, Callable] = {"reciprocals": _reciprocals}
    for side in ("lower", "upper"):
        lower = side == "lower"
        kernels |= {
            f"elementwise {side} triangular": partial(small_triangular, map_at_once, lower),
            f"fused {side} triangular": partial(small_triangular, map_matrices, lower),
            f"library {side} triangular": partial(_with_diagonal, partial(_by_library, lower)),
        }
        for form in BLOCKS:
            kernels[f"{form} {side} triangular"] = partial(_with_diagonal, partial(_by_blocks, form, lower))
    return kernels | {
        "elementwise positive definite": partial(small_positive_definite, map_at_once),
        "fused positive definite": partial(small_positive_definite, map_matrices),
        "fused blocks positive definite": _cholesky_in_halves,
        "small library blocks positive definite": partial(
            cholesky_inverse, library_inverse_factor, SMALL_LIBRARY_BLOCK
        ),
        "library blocks positive definite": partial(
            cholesky_inverse, library_inverse_factor, LIBRARY_POSITIVE_DEFINITE_BLOCK
        ),
        "single-thread blocks positive definite": partial(
            cholesky_inverse, inverse_factor_in_one_thread, LIBRARY_POSITIVE_DEFINITE_BLOCK
        ),
        "elementwise blocks positive definite": partial(cholesky_inverse, library_inverse_factor, None),
        "library positive definite": partial(cholesky_inverse, library_inverse_factor, None),
    }


STRUCTURED_KERNELS = _kernels()
