"""LU with partial pivoting of a panel, a few columns of a large matrix, in the thread that calls.

    P [A C] = L U,  by halves of the columns:    P_1 A = L_1 U_1,    V = L_11^-1 C_1,    P_2 (C - L_1 V) = L_2 U_2

where L_11 and C_1 are the pivot rows of L_1 and C. Halves are factorised so too, until LAPACK stays in one thread, see
`is_one_thread`.

Rows stay where they are: to exchange them in both halves at each level would take most of the time. L is given in the
order of the rows of the panel; the pivot rows, once they are that, are zero for LAPACK, which so takes others.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxinv._lapack import is_one_thread, solved_in_one_thread
from jaxinv._triangular import matmul


class PanelLU(NamedTuple):
    """L and U of an m x k panel."""

    L: Array  # m x k; only rows that are neither done nor pivots
    pivots: Array  # k rows of the panel, in their order
    LU: Array  # k x k, of the pivot rows: U, and below it L without its diagonal


def panel_lu(X: Array, is_done: Array) -> PanelLU:
    """LU of a panel, shape (m, k), of which only rows that are not `is_done`, shape (m,), at least k, may be pivots."""
    m, k = X.shape
    if is_one_thread(m, k, X.dtype):
        LU, _, row_of = lax.linalg.lu(jnp.where(is_done[:, None], 0, X))
        LU = LU + jnp.sum(0 * LU[:, -1])  # a nan, which may come to a row that is done, is to come to all rows
        place = jnp.zeros_like(row_of).at[row_of].set(jnp.arange(m, dtype=row_of.dtype), unique_indices=True)
        return PanelLU(_rows(LU, place), row_of[:k], LU[:k])
    h = k // 2
    A, C = X[:, :h], X[:, h:]
    left = panel_lu(A, is_done)
    V = solved_in_one_thread(left.LU, _rows(C, left.pivots), lower=True, unit_diagonal=True)
    right = panel_lu(C - matmul(left.L, V), is_done.at[left.pivots].set(True, mode="clip"))
    L = jnp.concatenate([left.L, right.L], axis=1)
    LU = jnp.block([[left.LU, V], [_rows(left.L, right.pivots), right.LU]])
    return PanelLU(L, jnp.concatenate([left.pivots, right.pivots]), LU)


def rows_at_places(n: int, start: Array | np.int32, pivots: Array) -> Array:
    """The row that comes to each of n places: the pivots from `start` on, and to theirs the rows that were there."""
    size = pivots.size
    place = jnp.arange(n, dtype=pivots.dtype)
    is_pivot = jnp.zeros_like(place, bool).at[pivots].set(True, mode="clip")
    here = start + place[:size]
    ousted = jnp.sort(jnp.where(lax.dynamic_slice(is_pivot, (start,), (size,)), n, here))
    vacant = jnp.sort(jnp.where(pivots < start + size, n, pivots))
    return lax.dynamic_update_slice(place.at[vacant].set(ousted, mode="drop"), pivots, (start,))


def lu_in_one_thread(X: Array) -> tuple[Array, Array]:
    """L and U, in one array, of an m x k matrix with m >= k, and the row of it that each of their rows is."""
    m, k = X.shape
    if is_one_thread(m, k, X.dtype):
        LU, _, row_of = lax.linalg.lu(X)
        return LU, row_of
    L, pivots, LU = panel_lu(X, jnp.zeros_like(X[:, 0], bool))
    row_of = rows_at_places(m, np.int32(0), pivots)
    return jnp.concatenate([LU, _rows(L, row_of[k:])]), row_of


def _rows(X, rows):
    return jnp.take(X, rows, axis=0, mode="clip")
