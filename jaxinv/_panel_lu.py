"""The inverses of many matrices of middle size: LU with partial pivoting by panels of columns, then back substitution.

    P X = L U,    U Y = L^-1 P

Step k takes the row p_k that has the largest entry of column k among the rows not taken yet, and subtracts it from the
rows left, as often as clears their column k. A column that is cleared gives its place to the column of L^-1 that
appears, so Z holds U in the rows taken and what becomes L^-1 P elsewhere. Over a panel of w steps that is

    Z_ij  <-  Z_ij + M_i1 Z_p1,j + .. + M_iw Z_pw,j    j outside of the panel

with M the part of L^-1 in the panel. No row is moved before the end, and no column before Y is complete.

A panel is eliminated in one loop over the batch with its n w entries in reach of the processor; an unrolled elimination
of the whole matrix has too many entries from n = 9 on (LLVM leaves the loop scalar). The rest is plain elementwise
code. Matrices lie in tiles with the matrix index innermost, so that all of it is vector code without a gather.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxinv._fused import batch_axes, in_chunks, lanes, many, materialised, one_loop
from jaxinv._scalars import pivot_size
from jaxinv._triangular import padded

# Columns a panel: of these, the number that fits n best. Five compile for 12 s at n = 20: LLVM gives up near 110 arrays
# in a loop, here n w + w + 1.
WIDTHS = (4, 3)
WIDTH_3_FROM = 25
# Matrices that lie together: two AVX2 vectors of float32.
TILE = 16
# Bytes of a chunk of the batch: the L2 caches of two cores.
CHUNK_BYTES = 2**21 + 2**19
WORD = 32  # bits of the words that record which rows have been taken


def panel_lu_inverse(X: Array, with_factors: bool = False) -> tuple[Array, ...]:
    """The inverse of each matrix of X, shape (..., n, n), the batch of a known size; inf or nan where it is singular.

    If asked for, n factors of the determinant too, shape (..., n).
    """
    *shape, n, _ = X.shape
    batch = batch_axes(shape)
    step = panel_step(batch, n, X.dtype.itemsize)
    out = in_chunks(partial(_inverse_of_chunk, with_factors), batch, step, X.reshape(*batch, n, n))
    return tuple(Y.reshape(*shape, *Y.shape[len(batch) :]) for Y in out)


def panel_step(batch: Sequence[int], n: int, itemsize: int) -> int:
    """Matrices of a lane in a chunk: whole tiles, where these lie along the lane."""
    axis, _, length = lanes(batch)
    tile = TILE if axis == len(batch) - 1 else 1
    step = max(CHUNK_BYTES // (n * n * itemsize * (math.prod(batch) // length) * tile), 1) * tile
    return min(step, length)


def _inverse_of_chunk(with_factors, X):
    if X.ndim > 4:  # of a batch of several axes: tiles lie along the last one
        one = lambda X: tuple(Y[0] for Y in _inverse_of_chunk(with_factors, X[None]))
        for _ in X.shape[:-3]:
            one = jax.vmap(one)
        return one(X)
    *chunk, n, _ = X.shape
    width = 3 if n >= WIDTH_3_FROM else min(WIDTHS, key=lambda w: -n % w)
    X = padded(X, n + -n % width)
    step = X.shape[1]
    tile = TILE if step % TILE == 0 else step
    Z = materialised(X.reshape(-1, tile, *X.shape[-2:]).transpose(0, 2, 3, 1))
    LU, p, pivots = _factorise(Z, width)
    Y = materialised(_back_substitute(LU, p)).transpose(0, 3, 1, 2).reshape(X.shape)[..., :n, :n]
    return (Y, _factors(p, pivots).swapaxes(1, 2).reshape(*chunk, -1)[..., :n]) if with_factors else (Y,)


def _factorise(Z, width):
    """L^-1 and U of Z, shape (tiles, n, n, tile), in one array with the rows as they were taken; the order; the pivots.

    Where a pivot is zero, the pivots after it are nan, and U is nan where it has been taken before too.
    """
    n = Z.shape[1]
    p = taken_at = jnp.full_like(Z[:, :, 0], n, jnp.uint32)
    row = lax.broadcasted_iota(jnp.uint32, p.shape, 1)
    taken = (jnp.zeros_like(p[:, 0]),) * -(-n // WORD)

    def step(panel, state):
        Z, p, pivots, taken_at, taken = state
        k = many(panel, n // width) * width
        N = lax.dynamic_slice_in_dim(Z, k, width, axis=2)
        panel_entries = [N[:, i, c] for i in range(n) for c in range(width)]
        places = [jnp.zeros_like(taken[0])] * width  # of results
        out = one_loop(partial(_eliminate, n, width), *panel_entries, *places, *taken)
        entries, rows, taken = out[: n * width], out[n * width : -len(taken)], out[-len(taken) :]
        N = jnp.stack(entries, axis=1).reshape(N.shape)
        p_panel = jnp.stack(rows, axis=1)
        R = materialised(_rows(Z, p_panel))
        for c in range(width):
            taken_at = jnp.where(rows[c][:, None] == row, (k + c).astype(jnp.uint32), taken_at)
        for c in range(width):
            M = jnp.where(taken_at > (k + c).astype(jnp.uint32), N[:, :, c], 0)
            Z = Z + M[:, :, None] * R[:, c, None]
        in_panel = [p_panel, jnp.stack([_row(N, q)[:, c] for c, q in enumerate(rows)], axis=1)]
        p, pivots = (
            lax.dynamic_update_slice_in_dim(old, new, k, axis=1) for old, new in zip((p, pivots), in_panel, strict=True)
        )
        return lax.dynamic_update_slice_in_dim(Z, N, k, axis=2), p, pivots, taken_at, tuple(taken)

    start = (Z, p, jnp.zeros_like(Z[:, 0]), taken_at, taken)
    Z, p, pivots, _, _ = lax.fori_loop(0, n // width, step, start)
    in_order = Z[:, :1]
    for i in range(1, n):
        in_order = jnp.where(p[:, :, None] == i, Z[:, i, None], in_order)
    return materialised(in_order), p, pivots


def _rows(Z, p):
    """Rows p of each matrix, shape (tiles, rows, n, tile), p of shape (tiles, rows, tile)."""
    return jnp.take_along_axis(Z, p[:, :, None].astype(jnp.int32), axis=1, mode="promise_in_bounds")


def _row(Z, q):
    """Row q of each matrix, shape (tiles, n, tile), q of shape (tiles, tile)."""
    R = Z[:, 0]
    for i in range(1, Z.shape[1]):
        R = jnp.where(q[:, None] == i, Z[:, i], R)
    return R


def _eliminate(n, width, *scalars):
    """Eliminate a panel: its entries by rows, its pivot rows (found here) and the words of rows taken before."""
    a = [list(scalars[i * width : (i + 1) * width]) for i in range(n)]
    taken = list(scalars[(n + 1) * width :])
    integer = lambda value: lax.full_like(taken[0], value)
    p = []
    for c in range(width):
        is_left = [taken[i // WORD] & integer(1 << i % WORD) == integer(0) for i in range(n)]
        q, largest = integer(n), pivot_size(a[0][c])
        for i in range(n):  # the first row left if no entry is larger, so that nan and 0 reach the whole matrix
            size = pivot_size(a[i][c])
            better = is_left[i] & ((size > largest) | (q == integer(n)))
            largest, q = lax.select(better, size, largest), lax.select(better, integer(i), q)
        is_q = [q == integer(i) for i in range(n)]
        pivot_row = a[0]
        for i in range(1, n):
            pivot_row = [lax.select(is_q[i], x, r) for x, r in zip(a[i], pivot_row, strict=True)]
        for i in range(n):
            multiple = a[i][c] / pivot_row[c]
            cleared = [x - multiple * r for x, r in zip(a[i], pivot_row, strict=True)]
            cleared[c] = -multiple
            below = is_left[i] & ~is_q[i]
            a[i] = [lax.select(below, new, old) for new, old in zip(cleared, a[i], strict=True)]
            bit = lax.select(is_q[i], integer(1 << i % WORD), integer(0))
            taken[i // WORD] = taken[i // WORD] | bit
        p.append(q)
    return *(x for row in a for x in row), *p, *taken


def _back_substitute(LU, p):
    """Y from U Y = L^-1 P, with the diagonal and the upper triangle of U in `LU`, below it L^-1."""
    n = LU.shape[1]
    column = lax.broadcasted_iota(jnp.uint32, LU[:, 0].shape, 1)
    rows: list = []
    for k in reversed(range(n)):
        y = jnp.where(column < k, LU[:, k], (column == k).astype(LU.dtype))
        for l, Y_l in zip(range(n - 1, k, -1), rows, strict=True):
            y = y - LU[:, k, l, None] * Y_l
        rows.append(materialised(y / LU[:, k, k, None]))
    Y = jnp.stack(rows[::-1], axis=1)
    column = column[:, None]
    in_order = jnp.zeros_like(Y)
    for l in range(n):
        in_order = jnp.where(p[:, l, None, None] == column, Y[:, :, l, None], in_order)
    return in_order


def _factors(p, pivots):
    """The factors of the determinant: the pivots, the first with the sign of P."""
    n = p.shape[1]
    inversions = sum((p[:, i] > p[:, j]).astype(jnp.int32) for j in range(n) for i in range(j))
    sign = 1 - 2 * (inversions % 2).astype(pivots.dtype)
    return jnp.concatenate([sign[:, None] * pivots[:, :1], pivots[:, 1:]], axis=1)
