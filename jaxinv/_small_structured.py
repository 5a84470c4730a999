"""Small triangular and positive definite matrices, many at once: one triangle goes through the loop, not the whole."""

from collections.abc import Callable
from itertools import islice

import jax.numpy as jnp
from jax import Array

from jaxinv._unrolled_structured import conjugate, inverse_factor_entries, positive_definite_entries, triangular_entries


def small_triangular(run: Callable, lower: bool, X: Array, with_factors: bool = False) -> tuple[Array, ...]:
    """The inverse of each triangular matrix of X, shape (..., n, n), and n factors of its determinant if asked for.

    `run` is `map_matrices` or `map_at_once`.
    """
    n = X.shape[-1]
    reads = [i * n + j if lower else j * n + i for i, j in _triangle(n)]
    place_of = {place: k for k, place in enumerate(reads)}
    f = lambda *entries: _flat(triangular_entries(_rows(entries)))
    (Y,) = run(f, (n * n,), X, reads, [place_of.get(place) for place in range(n * n)])
    return (Y.reshape(X.shape), jnp.diagonal(X, axis1=-2, axis2=-1))[: 1 + with_factors]


def small_positive_definite(run: Callable, X: Array, with_factors: bool = False) -> tuple[Array, ...]:
    """The inverse of each positive definite matrix of X, the whole matrix of it exactly Hermitian; else nan."""
    n = X.shape[-1]
    triangle = _triangle(n)
    place_of = {place: k for k, place in enumerate(triangle)}
    images = len(triangle) if jnp.iscomplexobj(X) else 0  # of the entries below the diagonal, which are conjugates

    count = len(triangle) + images + n * with_factors

    def f(*entries):
        Y, factors = positive_definite_entries(_rows(entries))
        lower = _flat(Y)
        return (*lower, *(conjugate(y) for y in lower[:images]), *factors)[:count]

    places = [place_of[i, j] if j <= i else place_of[j, i] + images for i in range(n) for j in range(n)]
    places += range(len(triangle) + images, count)
    sizes = (n * n, n)[: 1 + with_factors]
    reads = [i * n + j for i, j in triangle]
    Y, *factors = run(f, sizes, X, reads, places)
    return Y.reshape(X.shape), *factors


def small_inverse_factor(run: Callable, X: Array) -> Array:
    """The upper triangular N with X^-1 = N N^H for each positive definite matrix of X; else nan."""
    n = X.shape[-1]
    triangle = _triangle(n)
    place_of = {j * n + i: k for k, (i, j) in enumerate(triangle)}
    f = lambda *entries: _flat(inverse_factor_entries(_rows(entries)))
    reads, places = [i * n + j for i, j in triangle], [place_of.get(place) for place in range(n * n)]
    return run(f, (n * n,), X, reads, places)[0].reshape(X.shape).conj()


def _triangle(n):
    return [(i, j) for i in range(n) for j in range(i + 1)]


def _rows(entries):
    """The rows of a triangle from its entries."""
    entries = iter(entries)
    rows: list[list] = []
    while row := list(islice(entries, len(rows) + 1)):
        rows.append(row)
    return rows


def _flat(rows):
    return [entry for row in rows for entry in row]
