"""Which kernel computes an inverse or a product: chosen by platform, n and batch.

Kernels are functions of validated arrays (..., n, n) that know no derivative. They are chosen at lowering, where the whole
batch is visible under any nesting of `vmap`.

    platform   n        batch       inverse                                       why
    any        1        any         1 / x
    cpu        2..8     >= 16       LU unrolled over the batch (`_fused`)          3 to 50 times LAPACK
    cpu        any      otherwise   LAPACK's LU, one matrix after the other       never two LAPACK batches at once: on
                                                                                  JAX 0.10 they can wait for each other
    gpu, tpu   2..4     any         LU unrolled, elementwise                      no custom call; not yet measured
    gpu, tpu   >= 5     any         batched LU
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxinv._fused import map_matrices, materialised
from jaxinv._lu import lu_inverse
from jaxinv._unrolled_lu import lu_inverse_entries

UNROLLED_ON_CPU = 8
UNROLLED_ELSEWHERE = 4
SUMS_ON_CPU = 16  # products: n = 12 0.67 against 1.4 us, n = 16 1.3 against 1.5 us for two batched dots
RECOMPUTED_UP_TO = 4  # products in one loop, op(B) op(C) computed anew for each row: n = 4 13 against 22 ns for two loops
FUSED_FROM_BATCH = 16


def inverse_kernel(X: Array) -> Array:
    """The inverse of each matrix; inf or nan where it is singular."""
    if 0 in X.shape:
        return X
    if X.shape[-1] == 1:
        return jnp.ones_like(X) / X
    return _on_shards(lambda X: lax.platform_dependent(X, cpu=_inverse_on_cpu, default=_inverse_elsewhere), X)


def _inverse_on_cpu(X):
    n, batch = X.shape[-1], math.prod(X.shape[:-2])
    if n <= UNROLLED_ON_CPU and not (isinstance(batch, int) and batch < FUSED_FROM_BATCH):
        return map_matrices(_inverse_entries, X)
    return lax.map(lu_inverse, X.reshape(-1, n, n)).reshape(X.shape) if X.ndim > 2 else lu_inverse(X)


def _inverse_elsewhere(X):
    n = X.shape[-1]
    if n > UNROLLED_ELSEWHERE:
        return lu_inverse(X)
    entries = _inverse_entries(*(X[..., i, j] for i in range(n) for j in range(n)))
    return jnp.stack(lax.optimization_barrier(entries), axis=-1).reshape(X.shape)


def _inverse_entries(*entries):
    n = math.isqrt(len(entries))
    Y = lu_inverse_entries([list(entries[i * n : (i + 1) * n]) for i in range(n)])
    return tuple(y for row in Y for y in row)


def product_kernel(*operands: Array, ops: str, which: tuple[int, int, int], precision: Any) -> Array:
    """op(A) (op(B) op(C)), where A, B and C are the `operands` with the indices `which`."""
    n = operands[0].shape[-1]

    def by_sums(*operands):
        A, B, C = (operands[i] for i in which)
        BC = _sum_of_outer_products(ops[1:], B, C)
        return _sum_of_outer_products(ops[0] + "N", A, BC if n <= RECOMPUTED_UP_TO else materialised(BC))

    def by_matmul(*operands):
        return matmul_product(ops, *(operands[i] for i in which), precision=precision)

    cpu = by_sums if n <= SUMS_ON_CPU else by_matmul
    elsewhere = by_sums if n <= RECOMPUTED_UP_TO else by_matmul
    return _on_shards(lambda *operands: lax.platform_dependent(*operands, cpu=cpu, default=elsewhere), *operands)


def matmul_product(ops: str, A: Array, B: Array, C: Array, *, precision: Any) -> Array:
    """op(A) (op(B) op(C)) by two matrix products."""
    A, B, C = (Z.mT if op == "T" else Z for op, Z in zip(ops, (A, B, C), strict=True))
    return jnp.matmul(A, jnp.matmul(B, C, precision=precision), precision=precision)


def _sum_of_outer_products(ops, A, B):
    """op(A) op(B) as plain elementwise operations, which XLA fuses into one vectorised loop over the batch."""
    columns = [A[..., :, k] if ops[0] == "N" else A[..., k, :] for k in range(A.shape[-1])]
    rows = [B[..., k, :] if ops[1] == "N" else B[..., :, k] for k in range(A.shape[-1])]
    return sum(c[..., :, None] * r[..., None, :] for c, r in zip(columns, rows, strict=True))


def _on_shards(kernel, *operands):
    """`kernel` on each shard of a batch whose sharding is part of its type (explicit mode), else as it is."""
    sharding = jax.typeof(operands[0]).sharding
    if all(axis is None for axis in sharding.spec):
        return kernel(*operands)
    axes = {name for axis in sharding.spec if axis for name in (axis if isinstance(axis, tuple) else (axis,))}
    specs = (sharding.spec,) * len(operands)
    per_shard = jax.shard_map(kernel, mesh=sharding.mesh, in_specs=specs, out_specs=sharding.spec, axis_names=axes)
    return per_shard(*operands)
