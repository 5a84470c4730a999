"""The inverse of a large matrix: LU with partial pivoting by panels of columns, almost all of it matrix products.

    P X = L U,    U Y = L^-1 P

Step k factorises panel k, of K columns, from row k K on. Its rows of W become R = L_kk^-1 W, and those below W - L R.
A column of P is zero down to its one, so the columns of L^-1 P appear one by one, in the order of the pivots, and take
the place in W of those that are cleared. At the end W holds U above and L^-1 P below. Then Y, its last rows first:

    Y_i = U_ii^-1 (Z_i - sum over j > i of U_ij Y_j),    with Z = L^-1 P

LAPACK factorises a few columns at a time, see `_panel_lu`, and stays in the thread that calls it. Its threads would
wait for more for tens of milliseconds and keep cores from the matrix products, those of a gradient too.

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

from jaxinv._lapack import in_turn, triangular_inverses_in_one_thread
from jaxinv._panel_lu import panel_lu, rows_at_places
from jaxinv._panels import loop
from jaxinv._triangular import (
    blocked_triangular,
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
SOLVED = 64  # rows of a triangle that LAPACK inverts; of larger ones products are faster


class Cuts(NamedTuple):
    """How a matrix is cut."""

    panels: int
    width: int  # of a panel
    # Rows of the blocks on the diagonal that are inverted; errors grow with them. Over those of getrf and getri, for
    # rows from 1e-15 to 1e15, n = 256, 60 draws, 2.0 with 32 and 64, 1.65 with 32 and 32, 1.25 with 16 and 32, which
    # are faster too; n = 1024, 24 draws, 3.2 with 128 and 128, 1.6 with 64 and 128, 1.3 with 32 and 128.
    block_of_L: int = 16
    block_of_U: int = 32
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
    largest = max(width for start, width in WIDTHS if n >= start)
    panels = -(-n // largest)
    width = -(-n // panels)
    # Pieces of 128 and 256 rows: n = 640 9.2 and 9.8 ms, n = 1024 even, n = 1536 68 and 63. Blocks of U of 64 and 128
    # rows: n = 1024 24.9 and 23.7 ms.
    return Cuts(panels, width, block_of_U=32 if largest == 64 else width, piece=2 * width)


def large_lu_inverse(X: Array, with_factors: bool = False, cuts: Cuts | None = None) -> tuple[Array, ...]:
    """The inverse of each matrix of X, shape (..., n, n), one after the other; inf or nan where it is singular.

    If asked for, n factors of the determinant too, shape (..., n).
    """
    return in_turn(partial(_inverse, cuts or cuts_for(X.shape[-1]), with_factors), X)


def _inverse(cuts, with_factors, X):
    n = len(X)
    W, T, order = _factorised(cuts, padded(X, cuts.n))
    Y = _back_substituted(cuts, W, T, order)[:n, :n]
    return (Y, _factors(T, order)[:n]) if with_factors else (Y,)


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
    factors = [partial(_factorised_panel, height, at) for height in cuts.heights]
    L, pivots, LU = lax.switch(k * HEIGHTS // cuts.panels, factors, lax.dynamic_slice(W, (np.int32(0), at), (n, K)))
    row_of = rows_at_places(n, at, pivots)

    place = jnp.arange(n, dtype=jnp.int32)
    of_panel = ((place >= at) & (place < at + K))[None]
    above = lax.dynamic_slice(W, (at, np.int32(0)), (K, n))  # the only rows that go to others below
    P = (place[None] == at + place[:K, None]).astype(W.dtype)
    pivot_rows = jnp.where(of_panel, P, jnp.take(W, pivots, axis=0, mode="clip"))
    blocks = even_blocks(K, cuts.block_of_L)
    over = triangular_inverses_in_one_thread(True, with_unit_diagonal(diagonal_blocks(LU, blocks)))
    R = substituted(LU, over, True, blocks, pivot_rows)
    height = min(cuts.piece, n)

    def piece(i, W):
        start = jnp.maximum(n - (i + 1) * height, 0)
        here, come = (lax.dynamic_slice(rows, (start,), (height,)) for rows in (place, row_of))
        B = lax.dynamic_slice(W, (start, np.int32(0)), (height, n))
        LR = matmul(jnp.take(L, come, axis=0, mode="clip"), R)
        new = jnp.where((come != here)[:, None], jnp.take(above, come - at, axis=0, mode="clip"), B)
        new = jnp.where(of_panel, 0, new) - LR
        is_next = (here >= at + K) & (here < n - i * height)  # the last piece may begin above, and overlap
        return lax.dynamic_update_slice(W, jnp.where(is_next[:, None], new, B), (start, np.int32(0)))

    W = loop(0, -(-(n - at - K) // height), piece, W)
    W = lax.dynamic_update_slice(W, R, (at, np.int32(0)))
    T = lax.dynamic_update_slice(T, LU[None], (k, np.int32(0), np.int32(0)))
    return W, T, jnp.take(order, row_of, mode="clip")


def _factorised_panel(height, at, panel):
    """L, the pivots and L_kk U_kk of a panel of which the last rows alone are looked at; of the others L is zero."""
    start = len(panel) - height
    place = start + jnp.arange(height, dtype=jnp.int32)
    L, pivots, LU = panel_lu(panel[start:], place < at)
    return jnp.pad(L, ((start, 0), (0, 0))), start + pivots, LU


def _back_substituted(cuts, W, T, order):
    """Y in the place of W: groups of its rows, the last first, and at the end the columns of each in order."""
    n, K = cuts.n, cuts.width
    place = jnp.arange(n, dtype=jnp.int32)
    blocks = even_blocks(K, cuts.block_of_U)
    triangles = diagonal_blocks(T, blocks)
    over = blocked_triangular(partial(triangular_inverses_in_one_thread, False), SOLVED, False, triangles, matmul)
    groups = [(first, min(first + cuts.group, cuts.panels)) for first in range(0, cuts.panels, cuts.group)]
    for first, last in reversed(groups):
        at, end = first * K, last * K
        Z = jnp.where(place[None] // K <= place[at:end, None] // K, W[at:end], 0)
        Z = Z - matmul(W[at:end, end:], W[end:]) if end < n else Z
        U = W[at:end, at:end]
        for k in range(first, last) if len(blocks) > 1 else ():
            U = lax.dynamic_update_slice(U, T[k], (k * K - at, k * K - at))
        of_group = [slice(k + b.start, k + b.stop) for k in range(0, end - at, K) for b in blocks]
        Y = substituted(U, over[first:last].reshape(-1, *over.shape[2:]), False, of_group, Z)
        W = W.at[at:end].set(Y)
    place_of = jnp.zeros_like(order).at[order].set(place, mode="clip")
    for first, last in groups:
        Y = W[first * K : last * K]
        entry = n * place[: len(Y), None] + place_of[None]  # by `take` along the columns XLA would write the transpose
        W = W.at[first * K : last * K].set(jnp.take(Y.reshape(-1), entry, mode="clip"))
    return W


def _factors(T, order):
    """The factors of the determinant: the pivots, the first with the sign of P."""
    inversions = jnp.sum(jnp.tril(order[:, None] < order[None, :]), dtype=jnp.int32)
    pivots = jnp.diagonal(T, axis1=-2, axis2=-1).reshape(-1)
    return jnp.where(jnp.arange(len(pivots)) == 0, 1 - 2 * (inversions % 2), 1).astype(pivots.dtype) * pivots
