"""The inverse of one matrix whose columns lie on many devices: LU with partial pivoting, by panels of columns.

    P X = L U,    U Y = L^-1 P

Forward, step k gathers panel k on every device, which factorises it; each device then exchanges its rows as the pivots
say, and eliminates in its own columns. A column that is cleared gives its place to the column of L^-1 that appears, so
every column is worked on in every step and W ends as U above L^-1. Between, the columns of L^-1 go to where P puts
them. Backward, step k gathers panel k of U, and each device substitutes in its own columns.

A device does 2 n^3 / P flops and receives 3/2 n^2 words, a third of them between (with stages, 1 + 1/S times as much);
it holds X, W, Z and a few panels. A positive definite X needs no pivoting: with its Cholesky factorisation in place of
LU, L^-1 is in place already, and n^2 words are received.

The devices factorise each panel alike and must find the same pivots: they have to be of one kind.
"""

from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._panels import Panels, from_positions, loop, own_positions, to_positions


def inverse_of_columns(X: Array, panels: Panels, positive: bool) -> Array:
    """The columns of the inverse on this device, from those of the matrix: n x n/P, inside `jax.shard_map`."""
    _, exponent = jnp.frexp(lax.pmax(jnp.max(jnp.abs(X)), panels.axes))
    scale = jnp.exp2(-jnp.clip(exponent, -100, 100).astype(X.real.dtype)).astype(X.dtype)  # so nothing underflows
    W, order = to_positions(scale * X, panels), jnp.arange(panels.n, dtype=jnp.int32)
    eliminate = _eliminate_positive if positive else _eliminate
    for stage in range(panels.stages):
        step = partial(eliminate, panels, stage)
        W, order = loop(stage * panels.steps, (stage + 1) * panels.steps, step, (W, order))
    Z = _unit_lower(W, 0, own_positions(panels)) if positive else _permuted(W, order, panels)
    for stage in reversed(range(panels.stages)):
        step = partial(_substitute, panels, stage, W)
        Z = loop(0, panels.steps, step, Z)
    return scale * from_positions(Z, panels)


def _eliminate(panels, stage, k, state):
    """Step k: the panel factorised with partial pivoting, the rows exchanged, all columns updated."""
    W, order = state
    start, b = k * panels.block, panels.block
    LU, pivots, row_of = lax.linalg.lu(_panel_from(W, panels, stage, k))
    target = jnp.concatenate([jnp.arange(b, dtype=pivots.dtype), pivots])  # the rows that move, and more than once
    source = row_of[target] + start
    target = target + start
    W, order = (Z.at[target].set(Z[source], mode="drop") for Z in (W, order))
    return _update(W, LU, panels, stage, k), order


def _eliminate_positive(panels, stage, k, state):
    """Step k without pivoting, from the Cholesky factorisation L D L^H of the diagonal block."""
    W, order = state
    b = panels.block
    C = _panel_from(W, panels, stage, k)
    factor = lax.linalg.cholesky(C[:b])
    diagonal = jnp.diagonal(factor)
    U = diagonal[:, None] * factor.T.conj()
    below = jnp.matmul(C[b:], _triangular_inverse(U, lower=False), precision=lax.Precision.HIGHEST)
    LU = jnp.concatenate([jnp.tril(factor / diagonal[None], -1) + U, below])
    return _update(W, LU, panels, stage, k), order


def _panel_from(W, panels, stage, k):
    """Panel k on every device, from row k b on: as many rows as the stage has, those beyond the last one zero."""
    first = stage * panels.height
    C = _gathered(W[first:], panels, k)
    return lax.dynamic_slice_in_dim(jnp.pad(C, ((0, panels.height), (0, 0))), k * panels.block - first, C.shape[0])


def _gathered(W, panels, k):
    own = lax.dynamic_slice_in_dim(W, k * panels.width, panels.width, axis=1)
    return lax.all_gather(own, panels.axes, axis=1, tiled=True)


def _update(W, LU, panels, stage, k):
    """Rows k b and on of W by the factorised panel: R = L^-1 W in the panel's rows, W - M R below."""
    b, c, height = panels.block, panels.width, panels.height
    first = stage * height
    offset = k * b - first
    own = lax.dynamic_slice(W, (first, k * c), (panels.n - first, c))
    own = jnp.where(
        jnp.arange(own.shape[0], dtype=jnp.int32)[:, None] < offset, own, 0
    )  # cleared; then I in the panel's rows
    W = lax.dynamic_update_slice(W, own, (first, k * c))
    identity = jnp.eye(b, dtype=W.dtype)
    W = lax.dynamic_update_slice(W, _own_columns(identity, panels), (k * b, k * c))
    L = _triangular_inverse(LU[:b], lower=True)
    R = jnp.matmul(L, lax.dynamic_slice_in_dim(W, k * b, b), precision=lax.Precision.HIGHEST)
    M = jnp.concatenate([jnp.zeros((height + b, b), W.dtype), LU[b:]])
    M = lax.dynamic_slice_in_dim(M, height - offset, panels.n - first)
    W = _minus_product(W, M, R, panels, stage, panels.stages, first)
    U = _own_columns(jnp.triu(LU[:b]) - identity, panels)
    R = lax.dynamic_update_slice(R, lax.dynamic_slice_in_dim(R, k * c, c, axis=1) + U, (0, k * c))
    return lax.dynamic_update_slice_in_dim(W, R, k * b, axis=0)


def _own_columns(Z, panels):
    return lax.dynamic_slice_in_dim(Z, lax.axis_index(panels.axes) * panels.width, panels.width, axis=1)


def _triangular_inverse(T, lower):
    identity = jnp.eye(T.shape[0], dtype=T.dtype)
    return lax.linalg.triangular_solve(T, identity, left_side=True, lower=lower, unit_diagonal=lower)


def _minus_product(Z, M, R, panels, begin, end, first):
    """Z - M R, half the rows of a stage at a time to save memory, for M with the rows from `first` on."""
    pieces = 2 - panels.height % 2
    height = panels.height // pieces

    def rows(i, Z):
        at = i * height
        MR = jnp.matmul(lax.dynamic_slice_in_dim(M, at - first, height), R, precision=lax.Precision.HIGHEST)
        return lax.dynamic_update_slice_in_dim(Z, lax.dynamic_slice_in_dim(Z, at, height) - MR, at, axis=0)

    return loop(begin * pieces, end * pieces, rows, Z)


def _unit_lower(W, start, column):
    """L^-1 in the rows of W that begin with `start`, for columns at the positions `column`."""
    row = start + jnp.arange(W.shape[0], dtype=jnp.int32)[:, None]
    return jnp.where(row > column[None], W, (row == column[None]).astype(W.dtype))


def _permuted(W, order, panels):
    """The columns of L^-1 P that belong to this device, gathered half a panel of rows at a time to save memory."""
    b, c = panels.block, panels.width
    halves = 2 - b % 2
    rows_at_once = b // halves
    column = own_positions(panels)
    wanted = jnp.argsort(order).astype(jnp.int32)[
        column[: panels.own]
    ]  # the place among the pivots of each of our rows
    k, q, t = wanted // b, wanted % b // c, wanted % c
    Z = W[:, : panels.own]  # all rows are written; zeros would be allocated before W is needed no more
    for stage in range(panels.stages):
        width = (stage + 1) * panels.steps * c  # the columns beyond are zero
        index = jnp.where(k * c < width, q * width + k * c + t, panels.devices * width)

        def rows(i, Z, width=width, index=index):
            at = i * rows_at_once
            L = _unit_lower(lax.dynamic_slice(W, (at, 0), (rows_at_once, width)), at, column[:width])
            L = lax.all_gather(L, panels.axes, axis=1, tiled=True)
            return lax.dynamic_update_slice_in_dim(Z, jnp.take(L, index, axis=1, mode="fill", fill_value=0), at, axis=0)

        steps = panels.steps * halves
        Z = loop(stage * steps, (stage + 1) * steps, rows, Z)
    return Z


def _substitute(panels, stage, W, i, Z):
    """The step for panel k of U, the last first: Y = U^-1 Z in its rows, and Z - U Y above."""
    b = panels.block
    k = (stage + 1) * panels.steps - 1 - i
    U = _gathered(W[: (stage + 1) * panels.height], panels, k)
    U_inverse = _triangular_inverse(lax.dynamic_slice_in_dim(U, k * b, b), lower=False)
    Y = jnp.matmul(U_inverse, lax.dynamic_slice_in_dim(Z, k * b, b), precision=lax.Precision.HIGHEST)
    U = jnp.where(jnp.arange(U.shape[0], dtype=jnp.int32)[:, None] < k * b, U, 0)
    Z = _minus_product(Z, U, Y, panels, 0, stage + 1, 0)
    return lax.dynamic_update_slice_in_dim(Z, Y, k * b, axis=0)
