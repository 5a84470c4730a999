"""The inverse of one large matrix: LU with partial pivoting by panels of columns, almost all of it matrix products.

    P X = L U,    U Y = L^-1 P

Step k factorises panel k, of K columns, from row k K on. Its rows of W become R = L_kk^-1 W, and those below W - L R.
A column of P is zero down to its one, so the columns of L^-1 P appear one by one, in the order of the pivots, and take
the place in W of those that are cleared. At the end W holds U above and L^-1 P below. Then Y, its last rows first:

    Y_k = U_kk^-1 Z_k,    Z_i <- Z_i - U_ik Y_k    for i < k,    with Z = L^-1 P

LAPACK factorises strips of a panel that are small enough for it to stay in the thread that calls it. Its threads would
wait for more for tens of milliseconds and keep cores from the matrix products, those of a gradient too.

A program has one loop over the panels, so that its time of compiling does not grow with n; in it, panels of several
heights, since LAPACK needs its sizes when a program is compiled. Updates go by pieces of rows, which stay in cache.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., sections 9.3, 13.1 and 14.3, SIAM 2002,
https://doi.org/10.1137/1.9780898718027
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxinv._fused import materialised
from jaxinv._lapack import (
    ENTRIES_OF_MANY_THREADS,
    triangular_inverse_in_one_thread,
    triangular_inverses_in_one_thread,
)
from jaxinv._panels import loop
from jaxinv._triangular import (
    diagonal_blocks,
    even_blocks,
    matmul,
    padded,
    substituted,
    with_unit_diagonal,
)

# Measured on AMD EPYC 9004 (2 cores, AVX-512), float32, JAX 0.12.0.1, 2026-11-25.
# Columns of a panel, at most, and the n from which on: n = 768 9.1 ms with 64 and 11.5 with 128, n = 4096 704 with 128
# and 820 with 256.
WIDTHS = ((0, 64), (900, 128))
# Heights for which a panel is compiled: n = 2048 113 ms with 4, 125 with 2, 111 with 8, which compile longer (of
# panels of 256 columns).
HEIGHTS = 4


class Cuts(NamedTuple):
    """How a matrix is cut."""

    panels: int
    width: int  # of a panel
    strips: int  # of the highest panel
    strip_entries: int = ENTRIES_OF_MANY_THREADS  # fewer in each strip
    # Rows of the blocks on the diagonal of a panel that are inverted. Errors grow with those of L (1.5 times with 128),
    # not with those of U.
    block_of_L: int = 32
    block_of_U: int = 64
    piece: int = 128  # rows: n = 640 6.5 ms with 128 and 7.1 with 256, larger n are even

    @property
    def n(self) -> int:
        return self.panels * self.width

    @property
    def heights(self) -> list[int]:
        """The heights for which a panel is compiled, in rows, the largest first."""
        return [-(-self.panels * (HEIGHTS - s) // HEIGHTS) * self.width for s in range(HEIGHTS)]

    def strips_at(self, height: int) -> int:
        """The fewest strips of a panel, all alike, that LAPACK factorises in one thread."""
        divisors = (s for s in range(1, self.strips) if self.width % s == 0)
        return next((s for s in divisors if height * self.width // s < self.strip_entries), self.strips)


def cuts_for(n: int) -> Cuts:
    """As few panels as their width allows, and strips of which the panels fit n best."""
    largest = max(width for start, width in WIDTHS if n >= start)
    panels = -(-n // largest)
    width = -(-n // panels)
    fewest = next((s for s in range(1, width) if n * -(-width // s) < ENTRIES_OF_MANY_THREADS), width)
    strips = min(range(fewest, 2 * fewest), key=lambda s: -width % s)
    width += -width % strips
    return Cuts(panels, width, strips, block_of_U=-(-width // 2))


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
    factors = [partial(_factorised_panel, cuts.strips_at(height), height) for height in cuts.heights]
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


def _factorised_panel(strips, height, panel):
    """L and U, in one array, and the order of the rows, of the first rows of a panel; it is zero beyond."""
    LU, row_of = _factorised_by_strips(strips, panel[:height])
    rest = len(panel) - height
    beyond = jnp.arange(height, len(panel), dtype=row_of.dtype)
    return jnp.pad(LU, ((0, rest), (0, 0))), jnp.concatenate([row_of, beyond])


def _factorised_by_strips(strips, C):
    m, K = C.shape
    if strips == 1:
        LU, _, row_of = lax.linalg.lu(C)
        return LU, row_of
    width = K // strips
    row, column = (jnp.arange(size, dtype=jnp.int32)[key] for size, key in ((m, (..., None)), (K, (None, ...))))

    def strip(j, state):
        C, order = state
        at = j * width
        B = lax.dynamic_slice(C, (at, np.int32(0)), (m, K))
        LU, _, row_of = lax.linalg.lu(lax.dynamic_slice(B, (np.int32(0), at), (m, width)))
        B = B[row_of]
        over = triangular_inverse_in_one_thread(LU[:width], lower=True, unit_diagonal=True)
        R = matmul(over, jnp.where(column < at + width, 0, B[:width]))
        new = jnp.where(row < width, jnp.where(column < at + width, B, jnp.pad(R, ((0, m - width), (0, 0)))), B)
        new = new - matmul(jnp.where(row < width, 0, LU), R)
        C = lax.dynamic_update_slice(C, new, (at, np.int32(0)))
        moved = lax.dynamic_slice(order, (at,), (m,))[row_of]
        return lax.dynamic_update_slice(C, LU, (at, at)), lax.dynamic_update_slice(order, moved, (at,))

    order = jnp.arange(m + K, dtype=jnp.int32) + jnp.zeros_like(C[0, 0]).real.astype(jnp.int32)
    C, order = loop(0, strips, strip, (jnp.pad(C, ((0, K), (0, 0))), order))
    return C[:m], order[:m]


def _back_substituted(cuts, W, T, order):
    n, K = cuts.n, cuts.width
    place = jnp.arange(n, dtype=jnp.int32)
    place_of = jnp.zeros_like(order).at[order].set(place, unique_indices=True)
    is_in_Z = (place_of // K)[None] <= (place // K)[:, None]
    Z = materialised(jnp.where(is_in_Z, jnp.take(W, place_of, axis=1, mode="clip"), 0))
    blocks = even_blocks(K, cuts.block_of_U)
    identity = jnp.zeros_like(T) + jnp.eye(K, dtype=T.dtype)[None]
    over = substituted(T, triangular_inverses_in_one_thread(False, diagonal_blocks(T, blocks)), False, blocks, identity)
    for k in reversed(range(cuts.panels)):
        at = k * K
        Y = matmul(over[k], Z[at : at + K])
        Z = Z.at[:at].add(-matmul(W[:at, at : at + K], Y)) if k else Z
        Z = Z.at[at : at + K].set(Y)
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
