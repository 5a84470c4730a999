"""The triple product of small matrices, one after another, as elementwise operations on arrays of their shape.

    S_il = op(A)_ik op(B)_kl,    M_ij = S_il op(C)_lj

As in `_row_lu`, XLA:CPU makes one loop of it, whose rows i LLVM takes as the entries of a vector: each S_il is computed
once, since in it nothing depends on j, and no product of two factors is written to memory.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._one_loop import computed
from jaxinv._row_lu import picked
from jaxinv._scalars import Pair


def row_product(ops: str, factors: Sequence[Array], precision: Any) -> Array:
    """(op(A) op(B)) op(C) of matrices of one shape (..., n, n)."""
    A, B, C = factors
    n, shape, axes = A.shape[-1], A.shape, range(A.ndim - 2)
    k_th_of_row = lambda Z, k: Z[..., :, k] if ops[0] == "N" else Z[..., k, :]
    entry = lambda op, Z, i, j: _number(lax.broadcast_in_dim(Z[..., i, j] if op == "N" else Z[..., j, i], shape, axes))
    a = [_number(lax.broadcast_in_dim(k_th_of_row(A, k), shape, range(A.ndim - 1))) for k in range(n)]
    S = [_sum(a[k] * entry(ops[1], B, k, l) for k in range(n)) for l in range(n)]
    # The sum over l begins with j, or LLVM would choose between the C of two columns, which share S, entry by entry.
    columns = [_sum(S[l % n] * entry(ops[2], C, l % n, j) for l in range(j, j + n)) for j in range(n)]
    j = lax.broadcasted_iota(jnp.int32, shape, len(shape) - 1)
    return computed(picked(columns, j))  # or what uses few entries of M, or some twice, would compute all for each


def _number(Z):
    return Pair(lax.real(Z), lax.imag(Z)) if jnp.iscomplexobj(Z) else Z


def _sum(terms):
    first, *others = terms
    for term in others:
        first = first + term
    return first
