"""The product of three square matrices, with a minus, the one operation of the derivative rules of the inverse.

`minus_product("TNT", A, B, C)` is -A^T (B C^T): a letter for each factor, N as it is, T transposed. It is a
primitive, so that a batch of small matrices becomes one fused loop instead of XLA's batched dot. Its derivatives are
such products again, with the factors passed as they came, and a factor that occurs twice is one operand: residuals
are never stored twice.
"""

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching

from jaxinv._lowering import lower_by
from jaxinv._product_names import SUMS_ON_CPU
from jaxinv._products import matmul_product, product_kernel

_FLIP = {"N": "T", "T": "N"}


def minus_product(ops, A, B, C, precision):
    """-op(A) (op(B) op(C)) for matrices of one shape (..., n, n), with a letter N or T of `ops` for each."""
    return _product(ops, [A, B, C], precision)


def _product(ops, factors, precision):
    operands: list = []
    which = []
    for Z in factors:
        place = next((i for i, operand in enumerate(operands) if operand is Z), len(operands))
        operands += [Z] if place == len(operands) else []
        which.append(place)
    return product_p.bind(*operands, ops=ops, which=tuple(which), precision=precision)


def _product_jvp(operands, tangents, *, ops, which, precision):
    out = product_p.bind(*operands, ops=ops, which=which, precision=precision)
    factors = [operands[i] for i in which]
    terms = [
        _product(ops, [*factors[:place], tangents[i], *factors[place + 1 :]], precision)
        for place, i in enumerate(which)
        if not isinstance(tangents[i], ad.Zero)
    ]
    return out, sum(terms[1:], terms[0]) if terms else tangents[0]  # a symbolic zero of the same shape


def _product_transpose(ct, *operands, ops, which, precision):
    """The cotangent of the one unknown operand Z of M = -op(A) op(B) op(C), from the cotangent of M."""
    (unknown,) = (i for i, operand in enumerate(operands) if ad.is_undefined_primal(operand))
    cotangents = [None] * len(operands)
    if not isinstance(ct, ad.Zero):
        place = which.index(unknown)
        before = [(ops[k], operands[which[k]]) for k in range(place)]
        after = [(ops[k], operands[which[k]]) for k in range(place + 1, 3)]
        factors = [*_transposed(before), ("N", ct), *_transposed(after)]  # the cotangent of op(Z)
        letters, matrices = zip(*(factors if ops[place] == "N" else _transposed(factors)), strict=True)
        cotangents[unknown] = _product("".join(letters), matrices, precision)
    return cotangents


def _transposed(factors):
    return [(_FLIP[letter], Z) for letter, Z in reversed(factors)]


def _product_batch(operands, dims, *, ops, which, precision):
    n = operands[0].shape[-1]
    if None in dims and not (isinstance(n, int) and n <= SUMS_ON_CPU):  # a dot shares an operand uncopied

        def product(*operands):
            return -matmul_product(ops, [operands[i] for i in which], precision)

        return jax.vmap(product, in_axes=tuple(dims))(*operands), 0
    moved = [Z if d is None else jnp.moveaxis(Z, d, 0) for Z, d in zip(operands, dims, strict=True)]
    zeros = next(jnp.zeros_like(Z) for Z, d in zip(moved, dims, strict=True) if d is not None)
    moved = [zeros + Z[None] if d is None else Z for Z, d in zip(moved, dims, strict=True)]
    return product_p.bind(*moved, ops=ops, which=which, precision=precision), 0


product_p = Primitive("minus_product")
product_p.def_abstract_eval(lambda *operands, ops, which, precision: operands[0])
ad.primitive_jvps[product_p] = _product_jvp
ad.primitive_transposes[product_p] = _product_transpose
batching.primitive_batchers[product_p] = _product_batch
lower_by(product_p, product_kernel)
