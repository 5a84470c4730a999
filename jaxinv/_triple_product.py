"""The product of three square matrices, the one operation of the derivative rules of the inverse.

`triple_product("TNT", A, B, C)` is A^T (B C^T): a letter an operand, N as it is, T transposed. For small matrices it is a
primitive, so that a batch becomes one fused loop instead of XLA's batched dot; its derivatives and transposes are triple
products again, with operands passed as they came, so that a residual is never stored twice.
"""

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxinv._kernels import SMALL, matmul_product, product_kernel


def triple_product(ops, A, B, C, precision):
    """op(A) (op(B) op(C)) for matrices of one shape (..., n, n), `ops` a letter N or T for each."""
    return product_p.bind(A, B, C, ops=ops, precision=precision)


def _product_jvp(primals, tangents, *, ops, precision):
    out = triple_product(ops, *primals, precision)
    terms = [
        triple_product(ops, *primals[:i], dZ, *primals[i + 1 :], precision)
        for i, dZ in enumerate(tangents)
        if not isinstance(dZ, ad.Zero)
    ]
    return out, sum(terms[1:], terms[0]) if terms else ad.Zero.from_primal_value(out)


def _product_transpose(ct, A, B, C, *, ops, precision):
    """M = op(A) op(B) op(C): the cotangents of op(A), op(B) and op(C), transposed back where op transposes."""
    if isinstance(ct, ad.Zero):
        return None, None, None
    a, b, c = ops
    flip = {"N": "T", "T": "N"}
    ta, tb, tc = flip[a], flip[b], flip[c]
    if ad.is_undefined_primal(A):  # M_bar op(C)^T op(B)^T
        out = ("N" + tc + tb, ct, C, B) if a == "N" else (b + c + "T", B, C, ct)
        return triple_product(*out, precision), None, None
    if ad.is_undefined_primal(B):  # op(A)^T M_bar op(C)^T
        out = (ta + "N" + tc, A, ct, C) if b == "N" else (c + "T" + a, C, ct, A)
        return None, triple_product(*out, precision), None
    out = (tb + ta + "N", B, A, ct) if c == "N" else ("T" + a + b, ct, A, B)  # op(B)^T op(A)^T M_bar
    return None, None, triple_product(*out, precision)


def _product_batch(args, dims, *, ops, precision):
    if args[0].shape[-1] > SMALL and None in dims:  # a matmul shares an operand without copying it
        return jax.vmap(lambda *Z: matmul_product(ops, *Z, precision), in_axes=dims)(*args), 0
    args = [X if d is None else jnp.moveaxis(X, d, 0) for X, d in zip(args, dims, strict=True)]
    like = next(X for X, d in zip(args, dims, strict=True) if d is not None)
    args = [X + jnp.zeros_like(like) if d is None else X for X, d in zip(args, dims, strict=True)]
    return triple_product(ops, *args, precision), 0


product_p = Primitive("triple_product")
product_p.def_abstract_eval(lambda A, B, C, *, ops, precision: B)
product_p.def_impl(product_kernel)
ad.primitive_jvps[product_p] = _product_jvp
ad.primitive_transposes[product_p] = _product_transpose
batching.primitive_batchers[product_p] = _product_batch
mlir.register_lowering(product_p, mlir.lower_fun(product_kernel, multiple_results=False))
