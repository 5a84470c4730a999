"""How the triple products of the derivatives are computed; `_product_names` chooses the form.

As the kernels of the inverse they know no derivative, and are chosen at lowering. A product is a sum of outer products,
in plain elementwise code, or of rows, see `_row_products`, or two matrix products, for which a transposed or complex
factor may be laid out anew, of a large matrix some rows at a time. The sign of the rules is taken here too.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxinv._lowering import on_shards
from jaxinv._one_loop import computed, materialised
from jaxinv._panels import loop
from jaxinv._product_names import STRIP, is_small_on_gpu, product_name
from jaxinv._row_products import column_product, row_product
from jaxinv._triangular import matmul as full_matmul
from jaxinv._two_by_two import gathered, scattered


def product_kernel(*operands: Array, ops: str, which: tuple[int, int, int], precision: Any, platform: str) -> Array:
    """-op(A) (op(B) op(C)), where A, B and C are the `operands` with the indices `which`."""
    if 0 in operands[0].shape:
        return operands[0]
    *batch, n, _ = operands[0].shape
    name = product_name(n, math.prod(batch), operands[0].dtype, platform, not batch, ops)
    return on_shards(lambda *operands: PRODUCTS[name](ops, [operands[i] for i in which], precision), *operands)


def small_or_large_matmul(A: Array, B: Array) -> Array:
    """A B at full precision, of square matrices, on GPU."""
    is_small = is_small_on_gpu(A.shape[-1], A.dtype)
    return lax.optimization_barrier(_sum_of_products(A, B)) if is_small else full_matmul(A, B)


def _by_entries(ops, factors, precision):
    """Of 2 x 2 matrices."""
    A, B, C = (
        [entries[i * 2 + j] if op == "N" else entries[j * 2 + i] for i in range(2) for j in range(2)]
        for op, entries in zip(ops, map(scattered, factors), strict=True)
    )
    return gathered(_product_of_entries(A, _product_of_entries(B, C)))


def _by_sums(ops, factors, precision, computed=lambda BC: BC):
    A, B, C = factors
    return _sum_of_outer_products(ops[0] + "N", A, computed(_sum_of_outer_products(ops[1:], B, C)))


def _by_sums_of_copies(ops, factors, precision):
    return _by_sums("NNN", _laid_out(ops, factors, computed), precision, computed)


def _by_sums_in_two_kernels(ops, factors, precision):
    A, B, C = _transposed(ops, factors)
    return _sum_of_products(A, lax.optimization_barrier(_sum_of_products(B, C)))


def _by_rows(ops, factors, precision):
    """(op(A) op(B)) op(C), a factor after the other, a row in each step of a loop."""
    A, B, C = _transposed(ops, factors)
    product = _row_times if jnp.iscomplexobj(A) else partial(jnp.matmul, precision=precision)
    times = lambda rows, M: (lax.map(lambda row: product(row, M), rows), None)
    rows, _ = lax.scan(times, jnp.moveaxis(A, -2, 0)[..., None, :], jnp.stack([B, C]))
    return jnp.moveaxis(rows[..., 0, :], 0, -2)


def _row_times(row, B):
    """As a sum: XLA's dots of a complex row take twice as long, of one matrix of n = 7 107 us in all and 63."""
    return jnp.sum(row.mT * B, axis=-2, keepdims=True)


def matmul_product(
    ops: str, factors: Sequence[Array], precision: Any, matmul: Callable[..., Array] = jnp.matmul
) -> Array:
    """op(A) (op(B) op(C)) by two matrix products."""
    A, B, C = _transposed(ops, factors)
    return matmul(A, matmul(B, C, precision=precision), precision=precision)


def _by_matmul_of_copies(ops, factors, precision):
    return matmul_product("NNN", _laid_out(ops, factors, materialised), precision)


def _by_matmul_of_strips(ops, factors, precision):
    """-(op(A) op(B)) op(C) of one matrix after another, some rows at a time, in less memory.

    The sign is taken within: a loop of its own would need another array.
    """
    shape, n = factors[0].shape, factors[0].shape[-1]
    matrices = {id(Z): Z.reshape(-1, n, n) for Z in factors}  # of a factor that occurs twice one copy is made
    A, B, C = (matrices[id(Z)] for Z in factors)
    strips = -(-n // STRIP)
    height = -(-n // strips)
    zero = np.int32(0)

    def times(Z, op, M):  # a transpose outside of the loop would be written to memory
        contracted = ((1,), (0 if op == "N" else 1,)), ((), ())
        dot = partial(lax.dot_general, dimension_numbers=contracted, precision=precision)
        return _of_parts(dot, Z, M) if jnp.iscomplexobj(M) else dot(Z, M)

    def of_matrix(k, M):
        a, b, c = (lax.dynamic_index_in_dim(Z, k, keepdims=False) for Z in (A, B, C))

        def place(i, M):
            start = jnp.minimum(i * height, n - height)  # the last strip may begin above, and overlap
            if ops[0] == "N":
                strip = lax.dynamic_slice(a, (start, zero), (height, n))
            else:  # no dot reads a transposed left factor fast
                strip = lax.optimization_barrier(lax.dynamic_slice(a, (zero, start), (n, height)).mT)
            rows = -times(times(strip, ops[1], b), ops[2], c)
            return lax.dynamic_update_slice(M, rows[None], (k, start, zero))

        return loop(0, strips, place, M)

    later = jnp.broadcast_to(A[0, 0], A.shape)  # of the values of A, lest it be written, and take memory, before A
    return loop(0, len(A), of_matrix, later).reshape(shape)


def _matmul_of_parts(A, B, precision):
    return _of_parts(partial(jnp.matmul, precision=precision), A, B)


def _of_parts(times, A, B):
    """The product of complex matrices by four of `times`, the product of real ones."""
    real = times(A.real, B.real) - times(A.imag, B.imag)
    return lax.complex(real, times(A.real, B.imag) + times(A.imag, B.real))


def _transposed(ops, factors):
    return [Z.mT if op == "T" else Z for op, Z in zip(ops, factors, strict=True)]


def _laid_out(ops, factors, copied):
    copies = {id(Z): copied(Z.mT) for op, Z in zip(ops, factors, strict=True) if op == "T"}
    return [copies[id(Z)] if op == "T" else Z for op, Z in zip(ops, factors, strict=True)]


def _product_of_entries(A, B):
    return [A[2 * i] * B[j] + A[2 * i + 1] * B[2 + j] for i in range(2) for j in range(2)]


def _sum_of_products(A, B):
    """A B in the form of which XLA:GPU makes one kernel that reads A and B; of outer products it copies all slices."""
    return jnp.sum(A[..., :, :, None] * B[..., None, :, :], axis=-2)


def _sum_of_outer_products(ops, A, B):
    """op(A) op(B) as plain elementwise operations, which XLA fuses into one vectorised loop over the batch."""
    columns = [A[..., :, k] if ops[0] == "N" else A[..., k, :] for k in range(A.shape[-1])]
    rows = [B[..., k, :] if ops[1] == "N" else B[..., :, k] for k in range(A.shape[-1])]
    return sum(c[..., :, None] * r[..., None, :] for c, r in zip(columns, rows, strict=True))


def _negative(product, *args):
    return -product(*args)


_Product = Callable[[str, Sequence[Array], Any], Array]
_OF_PLUS_SIGN: dict[str, _Product] = {
    "entries": _by_entries,
    "sums in one loop": _by_sums,
    "sums by rows": row_product,
    "sums by columns": column_product,
    "sums in two loops": partial(_by_sums, computed=computed),
    "sums of copies": _by_sums_of_copies,
    "sums in two kernels": _by_sums_in_two_kernels,
    "rows": _by_rows,
    "dots": matmul_product,
    "dots of copies": _by_matmul_of_copies,
    "dots of parts": partial(matmul_product, matmul=_matmul_of_parts),
}
PRODUCTS: dict[str, _Product] = {
    **{name: partial(_negative, product) for name, product in _OF_PLUS_SIGN.items()},
    "dots of strips": _by_matmul_of_strips,
}
