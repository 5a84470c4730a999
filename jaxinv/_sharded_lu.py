"""The inverse of one matrix whose columns lie on many devices: LU with partial pivoting, by panels of columns.

    P X = L U,    U Y = L^-1 P

Forward, step k gathers panel k on every device, which factorises it; each device then exchanges its rows as the pivots
say, and eliminates in its own columns: those of W, which becomes U, and those of Z, which becomes L^-1 P. A column of P
is zero down to its one, so it is left out of Z until that row is a pivot: the columns of W get fewer as those of Z get
more. They stand in Z in the order in which they come, and `slot` says where. Backward, step k gathers panel k of U,
and each device substitutes in its own columns.

A device does 2 n^3 / P flops and receives n^2 words (with S = 8 stages 1.3 to 1.5 and 1 + 1/S times as much), and
2 n^2 / P to deal the columns out and collect them; it holds X, W, Z and a few panels. On each device a row of Z comes
at another step, but about as many at each, unless X is such that its pivots gather; all of Z from the beginning would
be 8/3 n^3 / P flops.

A positive definite X has its Cholesky factorisation in place of LU.

The devices factorise each panel alike and must find the same pivots: they have to be of one kind.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxinv._lapack import triangular_inverse_in_one_thread
from jaxinv._panel_lu import lu_in_one_thread
from jaxinv._panels import Panels, collected, dealt, loop, owner_and_place
from jaxinv._triangular import matmul, solved_triangular


def inverse_of_columns(X: Array, panels: Panels, positive: bool) -> Array:
    """The columns of the inverse on this device, from those of the matrix: n x n/P, inside `jax.shard_map`."""
    _, exponent = jnp.frexp(lax.pmax(jnp.max(jnp.abs(X)), panels.axes))
    # So nothing underflows. A power of two exactly, which `exp2` is not.
    scale = jnp.ldexp(jnp.ones((), X.real.dtype), -jnp.clip(exponent, -100, 100)).astype(X.dtype)
    W = dealt(scale * X, panels)
    slot = jnp.zeros(W.shape[1], jnp.int32)
    state = W, jnp.zeros_like(W), jnp.arange(panels.n, dtype=jnp.int32), slot, jnp.int32(0)
    for stage in range(panels.stages):
        step = partial(_eliminate, panels, positive, stage)
        state = loop(stage * panels.steps, (stage + 1) * panels.steps, step, state)
    W, Z, _, slot, _ = state
    for stage in reversed(range(panels.stages)):
        step = partial(_substitute, panels, stage, W)
        Z = loop(0, panels.steps, step, Z)
    return scale * collected(Z, slot, panels)


def _eliminate(panels, positive, stage, k, state):
    """Step k: the panel factorised, the rows exchanged, and all columns updated that are not zero."""
    W, Z, order, slot, count = state
    b, c, start, first = panels.block, panels.width, k * panels.block, stage * panels.height
    C = _panel_from(W, panels, stage, k)
    if positive:
        W, LU = lax.optimization_barrier((W, _positive_lu(C, b)))  # else XLA copies W for the panel
    else:
        LU, row_of = _lu(C)
        target = jnp.concatenate([jnp.arange(b, dtype=row_of.dtype), row_of[:b]])  # the rows that move, and others
        source = row_of[target] + start
        target = target + start
        W, Z, order = (A.at[target].set(A[source], mode="drop") for A in (W, Z, order))

    own = _own(W, panels, k, first, panels.n)
    own = jnp.where(_below(own, start - first), 0, own)
    W = lax.dynamic_update_slice(W, own, (np.int32(first), k * c))

    owner, place = owner_and_place(panels, lax.dynamic_slice_in_dim(order, start, b))
    mine = owner == lax.axis_index(panels.axes)
    new = jnp.where(mine, count + jnp.cumsum(mine, dtype=jnp.int32) - 1, len(slot))
    slot = slot.at[jnp.where(mine, place, len(slot))].set(new, mode="drop")
    Z = Z.at[start + jnp.arange(b, dtype=jnp.int32), new].set(1, mode="drop")
    count = count + jnp.sum(mine, dtype=jnp.int32)

    M = jnp.concatenate([jnp.zeros((panels.height + b, b), W.dtype), LU[b:]])
    M = lax.dynamic_slice_in_dim(M, panels.height + first - start, panels.n - first)
    T = jnp.tril(LU[:b], -1) + jnp.eye(b, dtype=W.dtype)
    inverse = _triangular_inverse(True, T)
    eliminated = partial(_eliminated, T=T, inverse=inverse, M=M, at=start, first=first, height=panels.height)
    W = eliminated(W, column=np.int32(stage * panels.chunk), width=(panels.stages - stage) * panels.chunk)
    width = 2 * panels.chunk
    Z = loop(0, -(-count // width), lambda i, Z: eliminated(Z, column=i * width, width=width), Z)
    U = lax.dynamic_slice_in_dim(jnp.triu(LU[:b]), lax.axis_index(panels.axes) * c, c, axis=1)
    W = lax.dynamic_update_slice(W, U, (start, k * c))
    return W, Z, order, slot, count


def _lu(C):
    """On CPU in one thread: devices that call LAPACK at once wait for each other's."""
    return lax.platform_dependent(C, cpu=lu_in_one_thread, default=lambda C: tuple(lax.linalg.lu(C)[::2]))


def _triangular_inverse(lower, T):
    in_one_thread = partial(triangular_inverse_in_one_thread, lower=lower)
    return lax.platform_dependent(T, cpu=in_one_thread, default=partial(solved_triangular, lower))


def _positive_lu(C, b):
    """L and U in one array, without pivoting, from the Cholesky factorisation L D L^H of the first b rows of C."""
    factor = lax.linalg.cholesky(C[:b])
    diagonal = jnp.diagonal(factor)
    L = factor / diagonal[None]
    U = diagonal[:, None] * factor.T.conj()
    below = matmul(C[b:], _triangular_inverse(False, U))
    return jnp.concatenate([jnp.tril(L, -1) + U, below])


def _panel_from(W, panels, stage, k):
    """Panel k on every device, from row k b on: as many rows as the stage has, those beyond the last one zero."""
    first = stage * panels.height
    C = _gathered(W, panels, k, first, panels.n)
    return lax.dynamic_slice_in_dim(jnp.pad(C, ((0, panels.height), (0, 0))), k * panels.block - first, C.shape[0])


def _gathered(W, panels, k, begin, end):
    parts = lax.all_gather(_own(W, panels, k, begin, end), panels.axes)  # of axis 1, XLA would transpose W for it
    return parts.swapaxes(0, 1).reshape(end - begin, panels.block)


def _own(W, panels, k, begin, end):
    """The columns of this device of panel k, from one row to another."""
    return lax.dynamic_slice(W, (np.int32(begin), k * panels.width), (end - begin, panels.width))


def _below(Z, row):
    """Whether a row of Z is the given one or one after it."""
    return jnp.arange(Z.shape[0], dtype=jnp.int32)[:, None] >= row


def _eliminated(Z, T, inverse, M, at, first, height, column, width):
    """Columns of Z: R = T^-1 Z in the rows from `at` on, and Z - M R in those from `first` on, some rows at a time.

    M is zero in the rows of R. The inverse of T alone gives errors up to 1.5 times as large as substitution; corrected
    once by what is left of Z, 1.2 times (n = 104, 40 draws).
    """
    B = lax.dynamic_slice(Z, (at, column), (inverse.shape[0], width))
    R = matmul(inverse, B)
    R = R + matmul(inverse, B - matmul(T, R))

    def rows(i, Z):
        place = i * height + first, column
        MR = matmul(lax.dynamic_slice_in_dim(M, i * height, height), R)
        return lax.dynamic_update_slice(Z, lax.dynamic_slice(Z, place, MR.shape) - MR, place)

    Z = loop(0, M.shape[0] // height, rows, Z)
    return lax.dynamic_update_slice(Z, R, (at, column))


def _substitute(panels, stage, W, i, Z):
    """The step for panel k of U, the last first: Y = U^-1 Z in its rows, and Z - U Y above."""
    k = (stage + 1) * panels.steps - 1 - i
    at = k * panels.block
    U = _gathered(W, panels, k, 0, (stage + 1) * panels.height)
    T = lax.dynamic_slice_in_dim(U, at, panels.block)
    M = jnp.where(_below(U, at), 0, U)
    inverse = _triangular_inverse(False, T)
    return _eliminated(Z, jnp.triu(T), inverse, M, at, 0, panels.height, np.int32(0), Z.shape[1])
