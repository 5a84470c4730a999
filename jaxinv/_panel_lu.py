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
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from jaxinv._fused import batch_axes, in_chunks, lanes, many, materialised, one_loop
from jaxinv._scalars import Pair, numbers, parts, pivot_size, quotient, reciprocal, select
from jaxinv._triangular import padded

# Columns a panel: of these, the number that fits n best. Five compile for 12 s at n = 20: LLVM gives up near 110 arrays
# in a loop, here n w + w + 1.
WIDTHS = (4, 3)
WIDTH_3_FROM = 25
# Complex entries are two arrays: n = 8 508 ns with 2 and 573 with 4, n = 12 1.13 us and 1.07 with 3, n = 16 2.2, 2.7.
WIDTH_COMPLEX = 2
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
    width = panel_width(n, X.dtype)
    X = padded(X, n + -n % width)
    step = X.shape[1]
    tile = TILE if step % TILE == 0 else step
    tiles = _each(lambda X: materialised(X.reshape(-1, tile, *X.shape[-2:]).transpose(0, 2, 3, 1)))
    LU, p, pivots = _factorise(tiles(Pair(X.real, X.imag) if jnp.iscomplexobj(X) else X), width)
    Y = _each(materialised)(_back_substitute(LU, p))
    Y = materialised(_joined(Y).transpose(0, 3, 1, 2).reshape(X.shape)[..., :n, :n])  # or products would gather it
    if not with_factors:
        return (Y,)
    return Y, _factors(p, _joined(pivots)).swapaxes(1, 2).reshape(*chunk, -1)[..., :n]


def panel_width(n: int, dtype: DTypeLike) -> int:
    """Columns a panel."""
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return WIDTH_COMPLEX
    return 3 if n >= WIDTH_3_FROM else min(WIDTHS, key=lambda w: -n % w)


def _each(f):
    """`f` of an array, or of both parts of a pair."""
    return partial(jax.tree.map, f)


def _at(Z, index):
    return _each(lambda part: part[index])(Z)


def _where(which, Z):
    return _each(lambda part: jnp.where(which, part, 0))(Z)


def _joined(Z):
    return lax.complex(*Z) if isinstance(Z, Pair) else Z


def _factorise(Z, width):
    """L^-1 and U of Z, shape (tiles, n, n, tile), in one array with the rows as they were taken; the order; the pivots.

    Of complex matrices all but the order are pairs. Where a pivot is zero, the pivots after it are nan, and U is nan
    where it has been taken before too.
    """
    is_complex = isinstance(Z, Pair)
    shape = jax.tree.leaves(Z)[0].shape
    n = shape[1]
    p = taken_at = jnp.full_like(jax.tree.leaves(Z)[0][:, :, 0], n, jnp.uint32)
    row = lax.broadcasted_iota(jnp.uint32, p.shape, 1)
    taken = (jnp.zeros_like(p[:, 0]),) * -(-n // WORD)

    def step(panel, state):
        Z, p, pivots, taken_at, taken = state
        k = many(panel, n // width) * width
        N = _each(lambda Z: lax.dynamic_slice_in_dim(Z, k, width, axis=2))(Z)
        panel_entries = parts(_at(N, np.s_[:, i, c]) for i in range(n) for c in range(width))
        places = [jnp.zeros_like(taken[0])] * width  # of results
        out = one_loop(partial(_eliminate, n, width, is_complex), *panel_entries, *places, *taken)
        entries = numbers(out[: len(panel_entries)], of_complex=is_complex)
        rows, taken = out[len(panel_entries) : -len(taken)], out[-len(taken) :]
        N = _each(lambda *entries: jnp.stack(entries, axis=1).reshape(shape[0], n, width, -1))(*entries)
        p_panel = jnp.stack(rows, axis=1)
        R = _each(lambda Z: materialised(_rows(Z, p_panel)))(Z)
        for c in range(width):
            taken_at = jnp.where(rows[c][:, None] == row, (k + c).astype(jnp.uint32), taken_at)
        for c in range(width):
            M = _where(taken_at > (k + c).astype(jnp.uint32), _at(N, np.s_[:, :, c]))
            Z = Z + _at(M, np.s_[:, :, None]) * _at(R, np.s_[:, c, None])
        panel_pivots = _each(lambda N: jnp.stack([_row(N, q)[:, c] for c, q in enumerate(rows)], axis=1))(N)
        p, pivots = (
            _each(lambda old, new: lax.dynamic_update_slice_in_dim(old, new, k, axis=1))(old, new)
            for old, new in ((p, p_panel), (pivots, panel_pivots))
        )
        Z = _each(lambda Z, N: lax.dynamic_update_slice_in_dim(Z, N, k, axis=2))(Z, N)
        return Z, p, pivots, taken_at, tuple(taken)

    start = (Z, p, _each(lambda Z: jnp.zeros_like(Z[:, 0]))(Z), taken_at, taken)
    Z, p, pivots, _, _ = lax.fori_loop(0, n // width, step, start)

    def in_order(Z):
        ordered = Z[:, :1]
        for i in range(1, n):
            ordered = jnp.where(p[:, :, None] == i, Z[:, i, None], ordered)
        return materialised(ordered)

    return _each(in_order)(Z), p, pivots


def _rows(Z, p):
    """Rows p of each matrix, shape (tiles, rows, n, tile), p of shape (tiles, rows, tile)."""
    return jnp.take_along_axis(Z, p[:, :, None].astype(jnp.int32), axis=1, mode="promise_in_bounds")


def _row(Z, q):
    """Row q of each matrix, shape (tiles, n, tile), q of shape (tiles, tile)."""
    R = Z[:, 0]
    for i in range(1, Z.shape[1]):
        R = jnp.where(q[:, None] == i, Z[:, i], R)
    return R


def _eliminate(n, width, is_complex, *scalars):
    """Eliminate a panel: its entries by rows, its pivot rows (found here) and the words of rows taken before."""
    size = n * width * (1 + is_complex)
    entries = numbers(scalars[:size], of_complex=is_complex)
    a = [entries[i * width : (i + 1) * width] for i in range(n)]
    taken = list(scalars[size + width :])
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
            pivot_row = [select(is_q[i], x, r) for x, r in zip(a[i], pivot_row, strict=True)]
        over_pivot = reciprocal(pivot_row[c])
        for i in range(n):
            multiple = quotient(a[i][c], pivot_row[c], over_pivot)
            cleared = [x - multiple * r for x, r in zip(a[i], pivot_row, strict=True)]
            cleared[c] = -multiple
            below = is_left[i] & ~is_q[i]
            a[i] = [select(below, new, old) for new, old in zip(cleared, a[i], strict=True)]
            bit = lax.select(is_q[i], integer(1 << i % WORD), integer(0))
            taken[i // WORD] = taken[i // WORD] | bit
        p.append(q)
    return *parts(x for row in a for x in row), *p, *taken


def _back_substitute(LU, p):
    """Y from U Y = L^-1 P, with the diagonal and the upper triangle of U in `LU`, below it L^-1."""
    n = p.shape[1]
    column = lax.broadcasted_iota(jnp.uint32, p.shape, 1)
    real = parts([LU])
    rows: list = []
    for k in reversed(range(n)):
        unit = (column == k).astype(real[0].dtype)
        y = [jnp.where(column < k, Z[:, k], one) for Z, one in zip(real, (unit, 0 * unit), strict=False)]
        (y,) = numbers(y, of_complex=isinstance(LU, Pair))
        for l, Y_l in zip(range(n - 1, k, -1), rows, strict=True):
            y = y - _at(LU, np.s_[:, k, l, None]) * Y_l
        pivot = _at(LU, np.s_[:, k, k, None])
        rows.append(_each(materialised)(quotient(y, pivot, reciprocal(pivot))))

    def in_order(*rows):
        Y = jnp.stack(rows[::-1], axis=1)
        ordered = jnp.zeros_like(Y)
        for l in range(n):
            ordered = jnp.where(p[:, l, None, None] == column[:, None], Y[:, :, l, None], ordered)
        return ordered

    return _each(in_order)(*rows)


def _factors(p, pivots):
    """The factors of the determinant: the pivots, the first with the sign of P."""
    n = p.shape[1]
    inversions = sum((p[:, i] > p[:, j]).astype(jnp.int32) for j in range(n) for i in range(j))
    sign = 1 - 2 * (inversions % 2).astype(pivots.dtype)
    return jnp.concatenate([sign[:, None] * pivots[:, :1], pivots[:, 1:]], axis=1)
