"""The triple product of small matrices, one after another, as elementwise operations on arrays of their shape.

    S_il = op(A)_ik op(B)_kl,    M_ij = S_il op(C)_lj        by rows i,
    T_kj = op(B)_kl op(C)_lj,    M_ij = op(A)_ik T_kj        by columns j

As in `_row_lu`, XLA:CPU makes one loop of it, whose rows or columns LLVM takes as the entries of a vector: each S_il is
computed once, since in it nothing depends on j, and no product of two factors is written to memory.
"""

import operator
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._one_loop import computed
from jaxinv._row_lu import picked
from jaxinv._scalars import Pair, parts

_sum = partial(reduce, operator.add)


def row_product(ops: str, factors: Sequence[Array], precision: Any) -> Array:
    """(op(A) op(B)) op(C) of matrices of one shape (..., n, n)."""
    a, b, c = (_Factor(op, Z) for op, Z in zip(ops, factors, strict=True))
    ks = range(factors[0].shape[-1])
    S = [_sum(a.column(k) * b.entry(k, l) for k in ks) for l in ks]
    return _one_loop_of([_sum(S[l] * c.entry(l, j) for l in _from(j, ks)) for j in ks], axis=-1)


def column_product(ops: str, factors: Sequence[Array], precision: Any) -> Array:
    """op(A) (op(B) op(C)) of matrices of one shape (..., n, n)."""
    a, b, c = (_Factor(op, Z) for op, Z in zip(ops, factors, strict=True))
    ks = range(factors[0].shape[-1])
    T = [_sum(b.entry(k, l) * c.row(l) for l in ks) for k in ks]
    return _one_loop_of([_sum(a.entry(i, k) * T[k] for k in _from(i, ks)) for i in ks], axis=-2)


class _Factor:
    """op(Z), of which parts are read from Z, as arrays of its shape: of Z^T as an array XLA would make a copy."""

    def __init__(self, op, Z):
        self.op, self.Z = op, Z

    def entry(self, i, j):
        return self._part(i, j, ())

    def column(self, k):
        return self._part(slice(None), k, (-2,))

    def row(self, k):
        return self._part(k, slice(None), (-1,))

    def _part(self, i, j, axes):
        part = self.Z[..., i, j] if self.op == "N" else self.Z[..., j, i]
        axes = (*range(self.Z.ndim - 2), *(self.Z.ndim + axis for axis in axes))
        part = lax.broadcast_in_dim(part, self.Z.shape, axes)
        return Pair(lax.real(part), lax.imag(part)) if jnp.iscomplexobj(part) else part


def _from(first, indices):
    """The indices, beginning with one of them and going round.

    If the sums of two columns ended alike, LLVM would take out the factor that they share, and choose between the
    others entry by entry.
    """
    return (*indices[first:], *indices[:first])


def _one_loop_of(vectors, axis):
    """The array with these slices along an axis, computed once: what uses few of its entries would compute it anew."""
    shape = parts(vectors[:1])[0].shape
    return computed(picked(vectors, lax.broadcasted_iota(jnp.int32, shape, len(shape) + axis)))
