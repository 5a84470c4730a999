"""2 x 2 matrices: elementwise operations on arrays of the shape of the batch, in one loop on CPU, as fast as a copy.

LLVM unrolls the loops over rows and columns, and the loop over the batch that is left reads and writes four entries by
shuffles of vectors, of which it has none for more than eight. XLA must fuse all into that loop, see `quotient` in
`_scalars`, and nothing else into it, see `gathered`.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._scalars import number_like, numbers, parts, select


def map_in_place(
    f: Callable[..., Sequence], sizes: Sequence[int], reads: Sequence[int], places: Sequence[int | None], X: Array
) -> tuple[Array, ...]:
    """As `map_matrices` in `_fused`, for matrices of shape (..., 2, 2): each array of results in one loop."""
    out = []
    for size in sizes:
        entries = scattered(X)
        results = [*f(*(entries[k] for k in reads))]
        zero = number_like(entries[0], 0)
        values = [zero if k is None else results[k] for k in places[:size]]
        places = places[size:]
        Y = gathered(values if size == 4 else [*values, *values])
        out.append(Y.reshape(*X.shape[:-2], 4) if size == 4 else Y[..., 0, :])
        X = lax.optimization_barrier(X)  # so that the next array shares no division with this one
    return tuple(out)


def scattered(X: Array, shape: Sequence[int] | None = None, first: int = 0) -> list:
    """The entries of square matrices, row by row, each as an array of `shape`, by default that of X, or a pair.

    `first` is the first row of the matrix, where X has several on top of each other.
    """
    n, axes = X.shape[-1], range(X.ndim - 2)
    rows = range(first, first + n)
    entries = [lax.broadcast_in_dim(X[..., i, j], shape or X.shape, axes) for i in rows for j in range(n)]
    return numbers(parts(entries), of_complex=jnp.iscomplexobj(X))


def gathered(entries: Sequence) -> Array:
    """The inverse of `scattered`, for 2 x 2 matrices.

    LLVM unrolls the loops over rows and columns before it vectorises the one over the batch if each row is asked for,
    the last one too. The division, by what LLVM knows to be one, ends the loop: XLA computes no division for each use.
    """
    shape = parts(entries)[0].shape
    i, j = (lax.broadcasted_iota(jnp.int32, shape, len(shape) - axis) for axis in (2, 1))
    rows = [select(j == 0, *entries[:2]), select(j == 0, *entries[2:])]
    Y = parts([select(i == 0, rows[0], select(i == 1, rows[1], entries[3]))])
    Y = [y / lax.select(i == 2, y, lax.full_like(y, 1)) for y in Y]
    return lax.complex(*Y) if len(Y) == 2 else Y[0]
