"""The inverses of many matrices of middle size: LU with partial pivoting by panels of columns, then back substitution.

    P X = L U,    U Y = L^-1 P

Step k takes the row p_k that has the largest entry of column k among the rows not taken yet, and subtracts it from the
rows left, as often as clears their column k. A column that is cleared gives its place to the column of L^-1 that
appears, so in a row that is taken Z holds U, and before it what becomes L^-1 P. Over a panel of w steps that is

    Z_ij  <-  Z_ij + M_i1 Z_p1,j + .. + M_iw Z_pw,j    j outside of the panel

with M the part of L^-1 in the panel. A row that is taken goes to its place in the factors at once, and is nan in Z from
then on: it is never the largest, so no step asks which rows are left. No column is moved before the end.

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

from jaxinv._chunks import batch_axes, filled, in_chunks, lanes, many, most_lanes
from jaxinv._one_loop import computed, materialised, one_loop
from jaxinv._scalars import Pair, number_like, numbers, parts, pivot_size, quotient, reciprocal, select

# Measured on AMD EPYC 9004 (2 cores, AVX-512), float32, JAX 0.12.0.1, 2026-11-25.
# Columns a panel, but for the first where n is odd: 2 to 4 are even at n = 12 .. 28; LLVM gives up near 110 arrays in
# a loop, here n w + w^2 + w.
WIDTH = 2
# Matrices that lie together. Over 16 LLVM unrolls short loops before it could make vectors of them: the update took
# 14 times as long. 64 are even.
TILE = 32
# Of batches of many chunks, on AMD EPYC of the third generation, 2026-11-27, with 2, 2.75, 3.5 and 5 MiB: n = 12 0.81,
# 0.81, 0.89, 0.97 us, n = 16 2.0, 2.0, 2.1, 2.1, n = 24 5.3, 5.3, 5.4, 6.3, float64 n = 12 1.54, 1.52, 1.60, 1.86, n =
# 20 6.6, 5.8, 5.9, 6.8: with 2 MiB XLA does not split its elimination over cores. On an Intel Xeon, which was not
# asked again, n = 16 was 1.49 with 5 MiB and 1.67 with 2.5.
CHUNK_BYTES = 11 * 2**18


def panel_lu_inverse(X: Array, with_factors: bool = False) -> tuple[Array, ...]:
    """The inverse of each matrix of X, shape (..., n, n), the batch of a known size; inf or nan where it is singular.

    If asked for, n factors of the determinant too, shape (..., n).
    """
    *shape, n, _ = X.shape
    matrices, *others = batch_axes(shape)
    X = X.reshape(matrices, *others, n, n)
    if not others and most_lanes() == 1 and X.nbytes <= CHUNK_BYTES:
        X = filled(X, TILE)
    batch = X.shape[:-2]
    step = panel_step(batch, n, X.dtype.itemsize)
    out = in_chunks(partial(_inverse_of_chunk, with_factors), batch, step, X, most_lanes())
    return tuple(Y[:matrices].reshape(*shape, *Y.shape[len(batch) :]) for Y in out)


def panel_step(batch: Sequence[int], n: int, itemsize: int) -> int:
    """Matrices of a lane in a chunk: whole tiles, where these lie along the lane.

    Alone on an axis it is an odd number of tiles, or the vectors of a panel share the same sets of the cache.
    """
    axis, count, length = lanes(batch, most_lanes())
    tile = TILE if axis == len(batch) - 1 else 1
    tiles = max(CHUNK_BYTES // (n * n * itemsize * (math.prod(batch) // length) * tile), 1)
    if count == 1:
        chunks = -(-length // (tiles * tile))
        tiles = -(-length // (chunks * tile)) | 1
    return min(tiles * tile, length)


def _inverse_of_chunk(with_factors, X):
    if X.ndim > 4:  # of a batch of several axes: tiles lie along the last one
        one = lambda X: tuple(Y[0] for Y in _inverse_of_chunk(with_factors, X[None]))
        for _ in X.shape[:-3]:
            one = jax.vmap(one)
        return one(X)
    *chunk, n, _ = X.shape
    step = X.shape[1]
    tile = TILE if step % TILE == 0 else step
    tiles = _each(lambda X: computed(X.reshape(-1, tile, n, n).transpose(0, 2, 3, 1)))
    X = computed(X)  # a copy in cache: n = 24 2.2 in place of 2.6 us
    Z = tiles(Pair(X.real, X.imag) if jnp.iscomplexobj(X) else X)
    LU, p = _factorise(Z)
    Y = _joined(_each(materialised)(_back_substitute(LU, p)))
    Y = materialised(Y.transpose(0, 3, 1, 2).reshape(X.shape))  # or products would gather it
    if not with_factors:
        return (Y,)
    has_nan = jnp.isnan(_joined(Z)).any((1, 2))
    pivots = _joined(_each(_diagonals)(LU))
    pivots = jnp.where(has_nan[:, None], math.nan, pivots)  # a pivot of zero may come before a nan
    return Y, _factors(p, pivots).swapaxes(1, 2).reshape(*chunk, n)


def _each(f):
    """`f` of an array, or of both parts of a pair."""
    return partial(jax.tree.map, f)


def _at(Z, index):
    return _each(lambda part: part[index])(Z)


def _where(which, Z):
    return _each(lambda part: jnp.where(which, part, 0))(Z)


def _joined(Z):
    return lax.complex(*Z) if isinstance(Z, Pair) else Z


def _factorise(Z):
    """L^-1 and U of Z, shape (tiles, n, n, tile), in one array with the rows as they were taken; and their order.

    Of complex matrices the first is a pair. Where a pivot is zero, the rows after it are nan.
    """
    like = jax.tree.leaves(Z)[0]
    n = like.shape[1]

    def step(width, k, state):
        Z, LU, p = state
        M, T, p_panel = _eliminated(Z, k, width)
        column = lax.broadcasted_iota(jnp.int32, (1, 1, n, 1), 2) - jnp.asarray(k, jnp.int32)
        row = lax.broadcasted_iota(jnp.int32, (1, width, 1, 1), 1)
        in_panel = (column >= 0) & (column < width)
        # In the columns of the panel Z is zero and R the identity, so that their sum is M there.
        unit = (column == row).astype(like.dtype)
        R = _each(lambda Z: _rows(Z, p_panel))(Z)
        R = _each(lambda R, unit: computed(jnp.where(in_panel, unit, R)))(R, _unit_like(Z, unit))
        Z = _where(~in_panel, Z)
        for c in range(width):
            Z = Z + _at(M, np.s_[:, :, c, None]) * _at(R, np.s_[:, c, None])
        taken = R
        for c in range(width):
            taken = taken + _where(row > c, _at(T, np.s_[:, :, c, None])) * _at(R, np.s_[:, c, None])
        for c in range(width):
            taken = _each(partial(jnp.where, column == c))(_at(T, np.s_[:, :, c, None]), taken)
        put = lambda old, new: lax.dynamic_update_slice_in_dim(old, new, k, axis=1)
        return Z, _each(put)(LU, taken), put(p, p_panel)

    state = (Z, _each(jnp.zeros_like)(Z), jnp.zeros_like(like[:, :, 0], jnp.uint32))
    panels, first = divmod(n, WIDTH)
    if first:
        state = step(first, 0, state)
    panel = lambda i, state: step(WIDTH, many(i, panels) * WIDTH + first, state)
    return lax.fori_loop(0, panels, panel, state)[1:]


def _unit_like(Z, unit):
    return Pair(unit, jnp.zeros_like(unit)) if isinstance(Z, Pair) else unit


def _eliminated(Z, k, width):
    """Of the panel of Z from column k on: M; the rows taken, shape (tiles, w, w, tile); and which they are."""
    is_complex = isinstance(Z, Pair)
    tiles, n, _, tile = jax.tree.leaves(Z)[0].shape

    def entry(i, c):  # a slice of its own: of the panel as an array there would be a copy
        start = (0, i, k + c, 0)
        return _each(lambda Z: lax.dynamic_slice(Z, start, (tiles, 1, 1, tile)).reshape(tiles, tile))(Z)

    entries = parts(entry(i, c) for i in range(n) for c in range(width))
    zero = jnp.zeros_like(entries[0])
    places = [zero] * (width * width * (1 + is_complex)) + [zero.astype(jnp.uint32)] * width  # of more results
    out = one_loop(partial(_eliminate, n, width, is_complex), *entries, *places)
    results, p = numbers(out[:-width], of_complex=is_complex), out[-width:]
    stacked = _each(lambda *entries: jnp.stack(entries, axis=1).reshape(tiles, -1, width, tile))
    return stacked(*results[: n * width]), stacked(*results[n * width :]), jnp.stack(p, axis=1)


def _eliminate(n, width, is_complex, *scalars):
    """The scalars of `_eliminated`, given those of a panel by rows. The rows of M that are taken are nan."""
    entries = numbers(scalars[: n * width * (1 + is_complex)], of_complex=is_complex)
    a = [entries[i * width : (i + 1) * width] for i in range(n)]
    integer = lambda value: lax.full_like(scalars[-1], value)
    nan = number_like(a[0][0], math.nan)
    rows, p = [], []
    for c in range(width):
        q, largest = integer(0), lax.full_like(scalars[0], -1)
        for i in range(n):
            size = pivot_size(a[i][c])
            larger = size > largest
            largest, q = lax.select(larger, size, largest), lax.select(larger, integer(i), q)
        is_q = [q == integer(i) for i in range(n)]
        row = a[0]  # nan if none is left with a number, so that nan and 0 reach the whole matrix
        for i in range(1, n):
            row = [select(is_q[i], x, r) for x, r in zip(a[i], row, strict=True)]
        over_pivot = reciprocal(row[c])
        for i in range(n):
            multiple = select(is_q[i], nan, quotient(a[i][c], row[c], over_pivot))
            a[i] = [x - multiple * r for x, r in zip(a[i], row, strict=True)]
            a[i][c] = -multiple
        rows.append(row)
        p.append(q)
    return *parts(x for row in (*a, *rows) for x in row), *p


def _rows(Z, p):
    """Rows p of each matrix, shape (tiles, rows, n, tile), p of shape (tiles, rows, tile); a gather would be scalar."""
    rows = Z[:, 0, None]
    for i in range(1, Z.shape[1]):
        rows = jnp.where(p[:, :, None] == i, Z[:, i, None], rows)
    return rows


def _back_substitute(LU, p):
    """Y from U Y = L^-1 P, with the diagonal and the upper triangle of U in `LU`, below it L^-1."""
    n = p.shape[1]
    real = parts([LU])
    over_pivots = reciprocal(_each(_diagonals)(LU))  # at once: there would be a loop for each
    column = np.arange(n)[None, :, None]  # constants: XLA would compute each of the vectors below in its own loop
    rows: list = []
    for k in reversed(range(n)):
        unit = (column == k).astype(real[0].dtype)
        y = [jnp.where(column < k, Z[:, k], one) for Z, one in zip(real, (unit, 0 * unit), strict=False)]
        (y,) = numbers(y, of_complex=isinstance(LU, Pair))
        for l, Y_l in zip(range(n - 1, k, -1), rows, strict=True):
            y = y - _at(LU, np.s_[:, k, l, None]) * Y_l
        rows.append(_each(computed)(y * _at(over_pivots, np.s_[:, k, None])))

    place = lax.broadcasted_iota(jnp.uint32, p.shape, 1)

    def in_order(*rows):
        Y = jnp.stack(rows[::-1], axis=1)
        ordered = jnp.full_like(Y, math.nan)  # a matrix without n pivots lacks columns
        for l in range(n):
            ordered = jnp.where(p[:, l, None, None] == place[:, None], Y[:, :, l, None], ordered)
        return ordered

    return _each(in_order)(*rows)


def _diagonals(LU):
    """Of matrices of shape (tiles, n, n, tile), shape (tiles, n, tile)."""
    tiles, n, _, tile = LU.shape
    return LU.reshape(tiles, n * n, tile)[:, :: n + 1]


def _factors(p, pivots):
    """The factors of the determinant: the pivots, the first with the sign of P."""
    n = p.shape[1]
    inversions = sum((p[:, i] > p[:, j]).astype(jnp.int32) for j in range(n) for i in range(j))
    sign = 1 - 2 * (inversions % 2).astype(pivots.dtype)
    return jnp.concatenate([sign[:, None] * pivots[:, :1], pivots[:, 1:]], axis=1)
