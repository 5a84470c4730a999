"""The inverse of one large matrix: LU with partial pivoting by panels of columns, almost all of it matrix products.

    P X = L U,    U Y = L^-1 P

Step k factorises panel k, of K columns, from row k K on. Its rows of W become R = L_kk^-1 W, and those below W - L R.
A column of P is zero down to its one, so the columns of L^-1 P appear one by one, in the order of the pivots, and take
the place in W of those that are cleared. At the end W holds U above and L^-1 P below. Then Y, its last rows first:

    Y_i = U_ii^-1 (Z_i - sum over j > i of U_ij Y_j),    with Z = L^-1 P

A panel is factorised by halves of its columns, until LAPACK stays in the thread that calls it. Its threads would wait
for more for tens of milliseconds and keep cores from the matrix products, those of a gradient too.

One loop goes over the panels, since each would take long to compile; in it, panels of several heights, since LAPACK
needs its sizes when a program is compiled. Updates go by pieces of rows, which stay in cache.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 9.3, 13.1 and 14.3, SIAM 2002,
https://doi.org/10.1137/1.9780898718027
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxinv._lapack import lu_in_one_thread, triangular_inverses_in_one_thread
from jaxinv._one_loop import materialised
from jaxinv._panels import loop
from jaxinv._triangular import (
    diagonal_blocks,
    even_blocks,
    matmul,
    padded,
    substituted,
    with_unit_diagonal,
)

# Measured on an Intel Xeon of the fourth generation (2 cores, AVX-512), float32, JAX 0.12.0.1, 2026-11-26.
# Columns of a panel, at most, and the n from which on: n = 1024 26.7 ms with 64 and 23.8 with 128, n = 2048 140 with
# 64, 125 with 128, 126 with 256, which compile longer; on AMD EPYC 9004 n = 768 9.1 with 64 and 11.5 with 128.
WIDTHS = ((0, 64), (900, 128))
# Heights for which a panel is compiled: n = 2048 163 ms with 1, 144 with 2, 139 with 4 and with 8, which takes longer.
HEIGHTS = 4


class Cuts(NamedTuple):
    """How a matrix is cut."""

    panels: int
    width: int  # of a panel
    # Rows of the blocks on the diagonal of a panel that are inverted. Errors grow with those of L (1.5 times with 128),
    # not with those of U.
    block_of_L: int = 32
    block_of_U: int = 64
    piece: int = 128  # rows
    group: int = 4  # panels whose rows of Y come at once, in larger products: n = 2048 169 ms with 1, 159 with 2, 156

    @property
    def n(self) -> int:
        return self.panels * self.width

    @property
    def heights(self) -> list[int]:
        """The heights for which a panel is compiled, in rows, the largest first."""
        return [-(-self.panels * (HEIGHTS - s) // HEIGHTS) * self.width for s in range(HEIGHTS)]


def cuts_for(n: int) -> Cuts:
    """As few panels as their width allows."""
    panels = -(-n // max(width for start, width in WIDTHS if n >= start))
    width = -(-n // panels)
    # Pieces of 128 and 256 rows: n = 640 9.2 and 9.8 ms, n = 1024 even, n = 1536 68 and 63.
    return Cuts(panels, width, block_of_U=-(-width // 2), piece=2 * width)


def large_lu_inverse(X: Array, with_factors: bool = False, cuts: Cuts | None = None) -> tuple[Array, ...]:
    """The inverse of the one matrix of X, shape (..., n, n); inf or nan where it is singular.

    If asked for, n factors of the determinant too, shape (..., n).
    """
    n = X.shape[-1]
    cuts = cuts or cuts_for(n)
    W, T, order = _factorised(cuts, padded(X.reshape(n, n), cuts.n))
    Y = _back_substituted(cuts, W, T, order)[:n, :n].reshape(X.shape)
    if not with_factors:
        return (Y,)
    return Y, _factors(T, order)[:n].reshape(X.shape[:-1])


def _factorised(cuts, X):
    """W; the blocks T_k on the diagonal that hold L_kk and U_kk; and which row of X each row of W is."""
    zero = jnp.zeros_like(X[0, 0])  # that varies over a mesh as X does
    T = jnp.zeros((cuts.panels, cuts.width, cuts.width), X.dtype) + zero
    order = jnp.arange(cuts.n, dtype=jnp.int32) + zero.real.astype(jnp.int32)
    return loop(0, cuts.panels, partial(_eliminate, cuts), (X, T, order))


def _eliminate(cuts, k, state):
    """Step k: panel k factorised, rows exchanged, and all other columns updated."""
    W, T, order = state
    n, K = cuts.n, cuts.width
    at = k * K
    row, column = (jnp.arange(n, dtype=jnp.int32)[key] for key in ((slice(None), None), (None, slice(None))))
    panel = _up(lax.dynamic_slice(W, (np.int32(0), at), (n, K)), at)
    factors = [partial(_factorised_panel, height) for height in cuts.heights]
    LU, row_of = lax.switch(k * HEIGHTS // cuts.panels, factors, panel)  # both from row `at` on

    of_panel = (column >= at) & (column < at + K)
    above = lax.dynamic_slice(W, (at, np.int32(0)), (K, n))  # the only rows that go to others below
    pivot_rows = jnp.where(of_panel, (column == at + row[:K]).astype(W.dtype), W[at + row_of[:K]])
    blocks = even_blocks(K, cuts.block_of_L)
    over = triangular_inverses_in_one_thread(True, with_unit_diagonal(diagonal_blocks(LU[:K], blocks)))
    R = substituted(LU[:K], over, True, blocks, pivot_rows)
    L = _down(jnp.where(row < K, 0, LU), at)
    place = jnp.arange(n, dtype=jnp.int32)
    source = _down(jnp.where((row_of == place) | (place < K), K, row_of), at)  # a row of `above`, or K: no other
    height = min(cuts.piece, n)

    def piece(i, W):
        start = jnp.maximum(n - (i + 1) * height, 0)
        B = lax.dynamic_slice(W, (start, np.int32(0)), (height, n))
        LR = matmul(lax.dynamic_slice(L, (start, np.int32(0)), (height, K)), R)
        come = lax.dynamic_slice(source, (start,), (height,))
        new = jnp.where((come < K)[:, None], jnp.take(above, come, axis=0, mode="clip"), B)
        new = jnp.where(of_panel, 0, new) - LR
        place = start + row[:height]
        is_next = (place >= at + K) & (place < n - i * height)  # the last piece may begin above, and overlap
        return lax.dynamic_update_slice(W, jnp.where(is_next, new, B), (start, np.int32(0)))

    W = loop(0, -(-(n - at - K) // height), piece, W)
    W = lax.dynamic_update_slice(W, R, (at, np.int32(0)))
    T = lax.dynamic_update_slice(T, LU[None, :K], (k, np.int32(0), np.int32(0)))
    order = jnp.where(place < at, order, _down(_up(order, at)[row_of], at))
    return W, T, order


def _factorised_panel(height, panel):
    """L and U, in one array, and the order of the rows, of the first rows of a panel; it is zero beyond."""
    LU, _, row_of = lu_in_one_thread(panel[:height])
    rest = len(panel) - height
    beyond = jnp.arange(height, len(panel), dtype=row_of.dtype)
    return jnp.pad(LU, ((0, rest), (0, 0))), jnp.concatenate([row_of, beyond])


def _back_substituted(cuts, W, T, order):
    n, K = cuts.n, cuts.width
    place = jnp.arange(n, dtype=jnp.int32)
    place_of = jnp.zeros_like(order).at[order].set(place, unique_indices=True)
    is_in_Z = (place_of // K)[None] <= (place // K)[:, None]
    Z = materialised(jnp.where(is_in_Z, jnp.take(W, place_of, axis=1, mode="clip"), 0))
    blocks = even_blocks(K, cuts.block_of_U)
    identity = jnp.zeros_like(T) + jnp.eye(K, dtype=T.dtype)[None]
    over = substituted(T, triangular_inverses_in_one_thread(False, diagonal_blocks(T, blocks)), False, blocks, identity)
    for first in reversed(range(0, cuts.panels, cuts.group)):
        last = min(first + cuts.group, cuts.panels)
        at, end = first * K, last * K
        Y = Z[at:end] - matmul(W[at:end, end:], Z[end:]) if end < n else Z[at:end]
        Y = substituted(W[at:end, at:end], over[first:last], False, even_blocks(end - at, K), Y)
        Z = Z.at[at:end].set(Y)
    return Z


def _factors(T, order):
    """The factors of the determinant: the pivots, the first with the sign of P."""
    inversions = jnp.sum(jnp.tril(order[:, None] < order[None, :]), dtype=jnp.int32)
    pivots = jnp.diagonal(T, axis1=-2, axis2=-1).reshape(-1)
    return jnp.where(jnp.arange(len(pivots)) == 0, 1 - 2 * (inversions % 2), 1).astype(pivots.dtype) * pivots


def _up(A, at):
    """A from row `at` on, then zeros."""
    return _rows(jnp.pad(A, ((0, len(A)), *((0, 0),) * (A.ndim - 1))), at, len(A))


def _down(A, at):
    """Zeros for `at` rows, then A."""
    return _rows(jnp.pad(A, ((len(A), 0), *((0, 0),) * (A.ndim - 1))), len(A) - at, len(A))


def _rows(A, start, size):
    return lax.dynamic_slice_in_dim(A, start, size)
