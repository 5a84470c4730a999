"""The inverses of many matrices of middle size: Gauss-Jordan elimination by panels of columns.

    Z = X.  For k = 1 .. n,  with p the row of the largest entry of column k, of the rows not taken yet; it is taken:

        m_i = Z_ik / Z_pk,    Z_ij  <-  Z_ij - m_i Z_pj,    Z_ik  <-  -m_i,    i other than p, j other than k
        Z_pj  <-  Z_pj / Z_pk,    Z_pk  <-  1 / Z_pk

    Then Y_ki = Z_pj with the rows p of step k and i of step j.

No row or column is moved before the end. Column k makes room for that of the inverse, as if it were appended to Z as a
column of the identity. A panel of w steps is eliminated in one loop over the batch with its n w entries in reach of the
processor; an unrolled elimination of the whole has too many from n = 9 on (LLVM leaves the loop scalar). It gives the
multipliers m, of the rows taken -1 / Z_pk, and with the rows R taken, less the multiples of those before them, the rest
is plain elementwise code:

    Z_ij  <-  Z_ij - m_i1 R_1j - .. - m_iw R_wj,    with 0 for Z_ij in the rows taken, and in the panel, where R was I

Matrices lie in tiles with the matrix index innermost, so that it is vector code.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 14.4, SIAM 2002,
https://doi.org/10.1137/1.9780898718027. Its errors are those of LU on the matrices of `tests/_matrices.py`.
"""

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxinv._chunks import batch_axes, filled, in_chunks, lanes, many, most_lanes
from jaxinv._lowering import device_count
from jaxinv._one_loop import computed, materialised, one_loop
from jaxinv._scalars import Pair, number_like, numbers, parts, pivot_size, quotient, reciprocal, select

# Columns a panel, but for the first where n is odd. On AMD EPYC of the third generation, JAX 0.12.0.1, 2026-11-27,
# float32, with 2, 3 and 4: n = 16 1.8, 1.8 and 2.1 us, n = 24 4.4, 5.2 and 6.8. LLVM gives up near 110 arrays in a
# loop, here n w + w^2 + w and a few.
WIDTH = 2
# Matrices that lie together. Over 16 LLVM unrolls short loops before it could make vectors of them: the update took
# 14 times as long. 64 are even.
TILE = 32
# Of batches of many chunks, on AMD EPYC of the third generation, 2026-11-27, with 2, 2.75, 3.5 and 5 MiB: n = 12 0.81,
# 0.81, 0.89, 0.97 us, n = 16 2.0, 2.0, 2.1, 2.1, n = 24 5.3, 5.3, 5.4, 6.3, float64 n = 12 1.54, 1.52, 1.60, 1.86, n =
# 20 6.6, 5.8, 5.9, 6.8: with 2 MiB XLA does not split its elimination over cores. On an Intel Xeon, which was not
# asked again, n = 16 was 1.49 with 5 MiB and 1.67 with 2.5.
CHUNK_BYTES = 11 * 2**18
# Bytes after which entries share a set of the cache. Rows of so many, or a multiple, take a column more: float32 n = 32
# 11.9 in place of 14.1 us.
CACHE_WAY = 4096
BITS = 32
# Rows of matrices so small are selected by comparisons, larger ones gathered. On AMD EPYC 9004, 2026-11-28, selected
# and gathered: complex64 n = 8 0.34 and 0.40 us, n = 10 0.60 and 0.61, n = 12 1.02 and 1.00, complex128 n = 7 0.56 and
# 0.65, float32 n = 9 0.19 and 0.20, n = 12 even, float64 n = 9 even, n = 16 1.45 and 1.40.
SELECTED_UP_TO = 10


def panel_gauss_jordan_inverse(X: Array, with_factors: bool = False) -> tuple[Array, ...]:
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
    more = n * tile * X.real.dtype.itemsize % CACHE_WAY == 0  # a column
    X = computed(jnp.pad(X, ((0, 0),) * 3 + ((0, int(more)),)))  # a copy in cache: n = 24 2.2 in place of 2.6 us
    tiles = _each(lambda X: computed(X.reshape(-1, tile, n, n + more).transpose(0, 2, 3, 1)))
    X_in_tiles = tiles(Pair(X.real, X.imag) if jnp.iscomplexobj(X) else X)
    Z, p, *pivots = _eliminated(X_in_tiles, with_factors)
    Y = materialised(_joined(_in_order(p, Z)).reshape(*chunk, n, n))  # or products would gather it
    if not with_factors:
        return (Y,)
    has_nan = jnp.isnan(_joined(X_in_tiles)).any((1, 2))
    pivots = jnp.where(has_nan[:, None], math.nan, _joined(*pivots))  # a pivot of zero may come before a nan
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


def _eliminated(Z, with_factors):
    """Z, shape (tiles, n, n or more, tile), after all steps; the rows p, shape (tiles, n, tile); if asked for, Z_pk."""
    like = jax.tree.leaves(Z)[0]
    _, n, columns, _ = like.shape

    def panel(width, k, state):
        Z, taken, p, *pivots = state
        M, U, p_panel, taken = _eliminated_panel(Z, k, width, taken, with_factors)
        column = lax.broadcasted_iota(jnp.int32, (1, 1, columns, 1), 2) - jnp.asarray(k, jnp.int32)
        step = lax.broadcasted_iota(jnp.int32, (1, width, 1, 1), 1)
        in_panel = (column >= 0) & (column < width)
        R = _each(partial(_rows, p_panel))(Z)
        R = _each(partial(jnp.where, in_panel))(_unit_like(Z, (column == step).astype(like.dtype)), R)
        for c in range(width - 1):
            R = R - _where(step > c, _at(U, np.s_[:, :, c, None])) * _at(R, np.s_[:, c, None])
        R = _each(computed)(R)
        row = lax.broadcasted_iota(p.dtype, (1, n, 1, 1), 1)
        is_left = ~in_panel
        for c in range(width):
            is_left &= p_panel[:, c, None, None] != row
        Z = _where(is_left, Z)
        for c in range(width):
            Z = Z - _at(M, np.s_[:, :, c, None]) * _at(R, np.s_[:, c, None])
        put = lambda old, new: lax.dynamic_update_slice_in_dim(old, new, k, axis=1)
        diagonal = _each(lambda U: jnp.stack([U[:, c, c] for c in range(width)], axis=1))
        return Z, taken, put(p, p_panel), *(_each(put)(old, diagonal(U)) for old in pivots)

    numbers_of_rows = _each(lambda Z: jnp.zeros_like(Z[:, :, 0]))(Z)
    p = jnp.zeros_like(like[:, :, 0], jnp.uint32)
    state = (Z, p[:, : -(-n // BITS)], p, *([numbers_of_rows] * with_factors))
    panels, first = divmod(n, WIDTH)
    if first:
        state = panel(first, 0, state)
    Z, _, *results = lax.fori_loop(
        0, panels, lambda i, state: panel(WIDTH, many(i, panels) * WIDTH + first, state), state
    )
    return Z, *results


def _unit_like(Z, unit):
    return Pair(unit, jnp.zeros_like(unit)) if isinstance(Z, Pair) else unit


def _rows(p, Z):
    """Rows p of each matrix, shape (tiles, rows, n, tile), p of shape (tiles, rows, tile)."""
    if Z.shape[1] > SELECTED_UP_TO:
        return jnp.take_along_axis(Z, p[:, :, None], axis=1, mode="promise_in_bounds")
    first, *others = (Z[:, i] for i in range(Z.shape[1]))
    out = [first] * p.shape[1]
    for i, row in enumerate(others, start=1):
        out = [jnp.where(p[:, c, None] == i, row, r) for c, r in enumerate(out)]
    return jnp.stack(out, axis=1)


def _eliminated_panel(Z, k, width, taken, with_factors):
    """Of the panel of Z from column k on: M; U; which rows are taken, shape (tiles, w, tile); and all taken so far.

    M holds the multipliers, shape (tiles, n, w, tile); U, shape (tiles, w, w, tile), the panel's part of the rows
    taken, each as it was then, with multipliers in its first columns.
    """
    is_complex = isinstance(Z, Pair)
    tiles, n, _, tile = jax.tree.leaves(Z)[0].shape

    def entry(i, c):  # a slice of its own: of the panel as an array there would be a copy
        start = (0, i, k + c, 0)
        return _each(lambda Z: lax.dynamic_slice(Z, start, (tiles, 1, 1, tile)).reshape(tiles, tile))(Z)

    entries = parts(entry(i, c) for i in range(n) for c in range(width))
    # XLA takes exponential time for a reduction with results that are not used.
    uses_U = width > 1 or with_factors
    zero, words = jnp.zeros_like(entries[0]), taken.shape[1]
    places = [zero] * (uses_U * width * width * (1 + is_complex)) + [zero.astype(jnp.uint32)] * width  # of more results
    f = partial(_eliminate, n, width, words, is_complex, uses_U)
    out = one_loop(f, *entries, *places, *(taken[:, word] for word in range(words)))
    results, p, taken = (
        numbers(out[: -width - words], of_complex=is_complex),
        out[-width - words : -words],
        out[-words:],
    )
    stacked = _each(lambda *entries: jnp.stack(entries, axis=1).reshape(tiles, -1, width, tile))
    M, U = stacked(*results[: n * width]), stacked(*results[n * width :]) if uses_U else None
    return M, U, jnp.stack(p, axis=1), jnp.stack(taken, axis=1)


def _eliminate(n, width, words, is_complex, uses_U, *scalars):
    """The scalars of `_eliminated_panel`, given those of a panel by rows."""
    entries, taken = numbers(scalars[: n * width * (1 + is_complex)], of_complex=is_complex), list(scalars[-words:])
    a = [entries[i * width : (i + 1) * width] for i in range(n)]
    integer = lambda value: lax.full_like(scalars[-1], value)
    zero, nan = (number_like(a[0][0], value) for value in (0, math.nan))
    bit = lambda i: integer(1 << i % BITS)
    is_taken = [(taken[i // BITS] & bit(i)) != integer(0) for i in range(n)]
    U, p = [], []
    for c in range(width):
        q, largest = integer(n), lax.full_like(scalars[0], -1)
        for i in range(n):
            size = pivot_size(a[i][c])
            larger = (size > largest) & ~is_taken[i]
            largest, q = lax.select(larger, size, largest), lax.select(larger, integer(i), q)
        is_q = [q == integer(i) for i in range(n)]
        row = [nan] * width  # if none is left with a number; it reaches the whole matrix
        for i in range(n):
            row = [select(is_q[i], x, r) for x, r in zip(a[i], row, strict=True)]
        over_pivot = reciprocal(row[c])
        of_q = [*[zero] * c, -over_pivot, *(r * over_pivot for r in row[c + 1 :])]
        for i in range(n):
            m = quotient(a[i][c], row[c], over_pivot)
            others = [*a[i][:c], m, *(x - m * r for x, r in zip(a[i][c + 1 :], row[c + 1 :], strict=True))]
            a[i] = [select(is_q[i], x, y) for x, y in zip(of_q, others, strict=True)]
        is_taken = [before | now for before, now in zip(is_taken, is_q, strict=True)]
        U.append(row)
        p.append(lax.min(q, integer(n - 1)))
    for i in range(n):
        word = i // BITS
        taken[word] = lax.select(is_taken[i], taken[word] | bit(i), taken[word])
    return *parts(x for row in (*a, *(U if uses_U else ())) for x in row), *p, *taken


def _in_order(p, Z):
    """Y, shape (tiles, tile, n, n)."""
    n = p.shape[1]
    row = lax.broadcasted_iota(p.dtype, p.shape, 1)
    step_of = jnp.zeros_like(p)
    for k in range(n):
        step_of = jnp.where(p[:, k, None] == row, jnp.asarray(k, p.dtype), step_of)
    p, step_of = (computed(each).transpose(0, 2, 1) for each in (p, step_of))
    # Of both parts the places on all axes would be written to memory. One index would be looked up on all devices.
    if isinstance(Z, Pair) and device_count() == 1:
        tiles, _, columns, tile = Z.re.shape
        t, lane = (lax.broadcasted_iota(p.dtype, (tiles, tile, n, n), axis) for axis in (0, 1))
        place = ((t * n + p[..., None]) * columns + step_of[:, :, None]) * tile + lane
        return _each(lambda part: part.reshape(-1).at[place].get(mode="promise_in_bounds"))(Z)
    one = lambda part, p, step_of: part.at[p[:, None], step_of].get(mode="promise_in_bounds")
    return _each(lambda part: jax.vmap(jax.vmap(one, (-1, 0, 0)))(part, p, step_of))(Z)


def _factors(p, pivots):
    """The factors of the determinant: the pivots, the first with the sign of P."""
    n = p.shape[1]
    inversions = sum((p[:, i] > p[:, j]).astype(jnp.int32) for j in range(n) for i in range(j))
    sign = 1 - 2 * (inversions % 2).astype(pivots.dtype)
    return jnp.concatenate([sign[:, None] * pivots[:, :1], pivots[:, 1:]], axis=1)
