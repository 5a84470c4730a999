"""Calls of LAPACK: over a batch, where that is safe, and in one thread, where others compute beside them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
from jax import Array, lax
from jax.typing import DTypeLike

# Before jaxlib 0.11, LAPACK calls over a batch wait for the threads they run on: two at once can hang for ever on
# few cores. Matrix by matrix they cannot, but the batch takes up to twice as long (n = 12: 4.8 against 2.4 us).
LAPACK_BATCH_IS_SERIAL = tuple(int(part) for part in jaxlib.__version__.split(".")[:2]) >= (0, 11)


def in_turn(f: Callable[[Array], Any], X: Array) -> Any:
    """`f` of each matrix of X, shape (..., n, n), one after the other."""
    out = lax.map(f, X.reshape(-1, *X.shape[-2:]))
    return jax.tree.map(lambda Y: Y.reshape(*X.shape[:-2], *Y.shape[1:]), out)


def over_batch(f: Callable[[Array], Any], X: Array) -> Any:
    """`f`, which calls LAPACK, of the matrices of X: together where that is safe."""
    return f(X) if LAPACK_BATCH_IS_SERIAL or X.ndim == 2 else in_turn(f, X)


# From so many entries on OpenBLAS, which JAX calls on CPU, factorises a matrix with all cores, and from so many of the
# right-hand side on it solves with all (of SciPy 1.17 and 1.18). Then its threads wait for more for tens of
# milliseconds: what XLA computes is slowed down, and so are calls side by side: n = 2048 on two devices of two cores
# took 398 ms, and takes 220; on an Intel Xeon float64 matrices of n = 192 of a batch take 381 us, and 114 for half of
# their columns. Four columns are never too many to factorise.
ENTRIES_OF_MANY_THREADS = {"float32": 80000, "float64": 20000, "complex64": 10000, "complex128": 10000}
SOLVED_BY_MANY_THREADS = {"float32": 1024, "float64": 1024, "complex64": 512, "complex128": 512}
FEWEST_COLUMNS = 4


def is_one_thread(m: int, k: int, dtype: DTypeLike) -> bool:
    """Whether LAPACK factorises an m x k matrix in the thread that calls it."""
    return k <= FEWEST_COLUMNS or m * k < ENTRIES_OF_MANY_THREADS[jnp.dtype(dtype).name]


def triangular_inverse_in_one_thread(T: Array, *, lower: bool) -> Array:
    """T^-1 of each triangular matrix of T."""
    identity = jnp.broadcast_to(jnp.eye(T.shape[-1], dtype=T.dtype), T.shape)
    return solved_in_one_thread(T, identity, lower=lower)


def solved_in_one_thread(T: Array, B: Array, *, lower: bool, unit_diagonal: bool = False) -> Array:
    """T^-1 B of each triangular matrix of T, shape (..., n, n), and B, shape (..., n, k), a few columns at a time."""
    *batch, n, k = B.shape
    solve = partial(lax.linalg.triangular_solve, T, left_side=True, lower=lower, unit_diagonal=unit_diagonal)
    most = max(1, (SOLVED_BY_MANY_THREADS[T.dtype.name] - 1) // n)
    groups = -(-k // most)
    if groups == 1:
        return solve(B)
    columns = -(-k // groups)
    B = jnp.pad(B, (*((0, 0),) * (B.ndim - 1), (0, groups * columns - k)))
    parts = jnp.moveaxis(B.reshape(*batch, n, groups, columns), -2, 0)
    return jnp.moveaxis(lax.map(solve, parts), 0, -2).reshape(B.shape)[..., :k]


def triangular_inverses_in_one_thread(lower: bool, X: Array) -> Array:
    """The inverse of each triangular matrix of X, each in the thread that calls."""
    return over_batch(partial(triangular_inverse_in_one_thread, lower=lower), X)
