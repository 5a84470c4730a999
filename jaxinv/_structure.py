"""The structure that a matrix is taken to have, after `assume_a` and `lower` of SciPy: what is read, what is derived.

`structured` builds the whole matrix S(A) from the entries that are read; the others have no part in its value. A matrix
that has the structure is left as it is, and along the structure the derivative of S is the projection on it:

    symmetric                     dS = (dA + dA^T) / 2
    Hermitian                     dS = (dA + dA^H) / 2
    triangular, diagonal          dS = dA in the entries that are read, 0 elsewhere

Each is its own transpose, so cotangents have the structure too: a step along a gradient keeps it. That of a symmetric
matrix is shared by both triangles although one of them is read: derivatives are those along the structure. Where the
other triangle is not the mirror image, they are not those of S.

Source: M. B. Giles, "An extended collection of matrix derivative results for forward and reverse mode automatic
differentiation", section 2.2, Oxford 2008; for the convention, I. Murray, "Differentiation of the Cholesky
decomposition", section 3.1, 2016, https://arxiv.org/abs/1602.07527
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# Every spelling of `scipy.linalg.inv`, and the longer ones of `scipy.linalg.solve`.
KINDS = {
    None: "general",
    "general": "general",
    "gen": "general",
    "symmetric": "symmetric",
    "sym": "symmetric",
    "hermitian": "hermitian",
    "her": "hermitian",
    "positive definite": "positive definite",
    "pos": "positive definite",
    "upper triangular": "upper triangular",
    "lower triangular": "lower triangular",
    "diagonal": "diagonal",
}
HALVES = ("symmetric", "hermitian", "positive definite")  # of which one triangle is read


class Structure(NamedTuple):
    """One of the values of `KINDS`, and which triangle is read where that leaves a choice."""

    kind: str
    lower: bool


def canonical_structure(name: str, assume_a: Any, lower: Any) -> Structure:
    """The structure that the options of the public functions name."""
    if not isinstance(lower, (bool, np.bool_)):
        raise TypeError(f"{name}: lower must be True or False, got {lower!r}")
    kind = KINDS.get(assume_a) if assume_a is None or isinstance(assume_a, str) else None
    if kind is None:
        choices = ", ".join(repr(choice) for choice in KINDS)
        raise ValueError(f"{name}: assume_a must be one of {choices}, got {assume_a!r}")
    if lower and kind not in (*HALVES, "lower triangular"):
        raise ValueError(
            f"{name}: lower=True chooses the triangle that is read of a symmetric, hermitian or positive definite "
            f"matrix; assume_a must be one of these or 'lower triangular', got {assume_a!r}"
        )
    return Structure(kind, bool(lower) and kind in HALVES)


def structured(X: Array, structure: Structure) -> Array:
    """The matrix S(X) of the structure, shape (..., n, n), from the entries of X that are read."""
    if structure.kind in HALVES:
        return mirror_p.bind(X, kind=structure.kind, lower=structure.lower)
    return projection(X, structure.kind)


def projection(X: Array, kind: str) -> Array:
    """The nearest matrix of a structure, shape (..., n, n)."""
    if kind == "general":
        return X
    if kind in HALVES:
        return X / 2 + (X.mT if kind == "symmetric" else X.mT.conj()) / 2
    row, column = _indices(X)
    read = {"upper triangular": row <= column, "lower triangular": row >= column, "diagonal": row == column}[kind]
    return jnp.where(read, X, 0)


def _mirror(X, *, kind, lower):
    """One triangle of X and its mirror image."""
    row, column = _indices(X)
    image = X.mT if kind == "symmetric" else X.mT.conj()
    if kind != "symmetric" and jnp.iscomplexobj(X):
        X = jnp.where(row == column, X.real.astype(X.dtype), X)
    return jnp.where(row >= column if lower else row <= column, X, image)


def _indices(X):
    """Of the row and of the column of each entry, sharded as X is."""
    shape, ones = X.shape[-2:], jnp.ones_like(X, jnp.int32)
    indices = (lax.broadcasted_iota(jnp.int32, shape, axis) for axis in (0, 1))
    return (ones * index[(None,) * (X.ndim - 2)] for index in indices)


def _mirror_jvp(primals, tangents, *, kind, lower):
    (X,), (dX,) = primals, tangents
    S = mirror_p.bind(X, kind=kind, lower=lower)
    return S, dX if isinstance(dX, ad.Zero) else projection(dX, kind)


def _mirror_batch(args, dims, **params):
    (X,), (dim,) = args, dims
    return mirror_p.bind(jnp.moveaxis(X, dim, 0), **params), 0


mirror_p = Primitive("mirror")
mirror_p.def_abstract_eval(lambda X, **params: X)
mirror_p.def_impl(_mirror)
ad.primitive_jvps[mirror_p] = _mirror_jvp
batching.primitive_batchers[mirror_p] = _mirror_batch
mlir.register_lowering(mirror_p, mlir.lower_fun(_mirror, multiple_results=False))
