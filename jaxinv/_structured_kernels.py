"""Which kernel computes the inverse of a matrix with structure, as in `_kernels` for general ones.

Symmetric and Hermitian matrices go through the general kernels.
"""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxinv._cholesky import cholesky_inverse
from jaxinv._fused import map_matrices
from jaxinv._lapack import over_batch
from jaxinv._small_structured import elementwise, small_positive_definite, small_triangular
from jaxinv._triangular import blocked_triangular, solved_triangular

STRUCTURES = ("diagonal", "upper triangular", "lower triangular", "positive definite")
# Limits
FUSED_UP_TO = 12
FUSED_COMPLEX_UP_TO = 6
FUSED_FROM_BATCH = 16
SOLVED_UP_TO = 128
LIBRARY_BLOCK = 64
ELEMENTWISE_UP_TO = 8


def structured_kernel_name(n: int, batch: int, dtype: DTypeLike, platform: str, structure: str) -> str:
    """The kernel for a batch of n x n matrices of one of the `STRUCTURES`; n and the batch may be symbolic."""
    if structure == "diagonal":
        return "reciprocals"
    if n == 1:
        return f"elementwise {structure}"
    if not isinstance(n, int):
        return f"solved {structure}"
    if platform != "cpu":
        return f"elementwise {structure}" if n <= ELEMENTWISE_UP_TO else f"elementwise blocks {structure}"
    if isinstance(batch, int) and batch < FUSED_FROM_BATCH:
        return f"solved {structure}" if n <= SOLVED_UP_TO else f"solved blocks {structure}"
    return f"fused {structure}" if n <= _fused_up_to(dtype) else f"fused blocks {structure}"


def _fused_up_to(dtype):
    return FUSED_COMPLEX_UP_TO if jnp.issubdtype(dtype, jnp.complexfloating) else FUSED_UP_TO


def _reciprocals(X, with_factors):
    row, column = (jnp.arange(X.shape[-1])[(None,) * (X.ndim - 2) + key] for key in ((..., None), (None, ...)))
    Y = jnp.where(row == column, 1 / X, 0)
    return (Y, jnp.diagonal(X, axis1=-2, axis2=-1))[: 1 + with_factors]


def _by_blocks(form, lower, X):
    if form == "solved":
        return blocked_triangular(partial(over_batch, partial(solved_triangular, lower)), LIBRARY_BLOCK, lower, X)
    run, largest = (map_matrices, _fused_up_to(X.dtype)) if form == "fused" else (elementwise, ELEMENTWISE_UP_TO)
    return blocked_triangular(lambda blocks: small_triangular(run, lower, blocks)[0], largest, lower, X)


def _with_diagonal(inverses, X, with_factors):
    return (inverses(X), jnp.diagonal(X, axis1=-2, axis2=-1))[: 1 + with_factors]


def _kernels() -> dict[str, Callable[[Array, bool], tuple[Array, ...]]]:
    kernels: dict[str, Callable] = {"reciprocals": _reciprocals}
    for form, run in (("elementwise", elementwise), ("fused", map_matrices)):
        for side in ("lower", "upper"):
            kernels[f"{form} {side} triangular"] = partial(small_triangular, run, side == "lower")
        kernels[f"{form} positive definite"] = partial(small_positive_definite, run)
    for form in ("elementwise blocks", "fused blocks", "solved blocks", "solved"):
        of = {
            side: partial(over_batch, partial(solved_triangular, side == "lower"))
            if form == "solved"
            else partial(_by_blocks, form.removesuffix(" blocks"), side == "lower")
            for side in ("lower", "upper")
        }
        for side, inverses in of.items():
            kernels[f"{form} {side} triangular"] = partial(_with_diagonal, inverses)
        kernels[f"{form} positive definite"] = partial(cholesky_inverse, of["upper"])
    return kernels


STRUCTURED_KERNELS = _kernels()
