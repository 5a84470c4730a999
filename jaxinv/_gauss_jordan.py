"""The inverses of many matrices with too many entries for one kernel on GPU: an elimination of the whole in a few.

    Z = X.  For k = 1 .. n,  with p_k the row, from k on, of the largest entry of column k:

        rows k and p_k of Z change places
        m_i = Z_ik / Z_kk,    Z_ij  <-  Z_ij - m_i Z_kj,    Z_ik  <-  -m_i,    i and j other than k
        Z_kj  <-  Z_kj / Z_kk,    Z_kk  <-  1 / Z_kk

    and for k = n .. 1 columns k and p_k of Z change places.  Then Z = X^-1.

A thread holds a matrix in its registers and takes as many of these 2 n steps as XLA compiles well as one function; then
vectors of entries go on to the next kernel. Real entries go in pairs, as complex numbers, since XLA fuses what has at
most 96 operands and results.

Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., section 14.4, SIAM 2002,
https://doi.org/10.1137/1.9780898718027. Its errors are those of LU on the matrices of `tests/_matrices.py`.
"""

import math
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._fused import stacked, transposed
from jaxinv._one_loop import one_kernel_of_odd_length
from jaxinv._scalars import numbers, parts, quotient, reciprocal
from jaxinv._triangular import even_blocks
from jaxinv._unrolled_lu import exchange_rows, row_of_largest

# Operations of a kernel. XLA makes one function of up to 2000, and of more hundreds with all entries as arguments: LU
# of n = 9, with 3000, compiles for 13 s, of n = 10 for 25 s, n = 12 150 s, and n = 12 by these steps for 12 s.
OPERATIONS = 2300
# Entries that are stacked at once. Of more XLA's kernel needs four times the registers: n = 12 1.8 in place of 0.36 ns.
STACKED = 90


def gauss_jordan_inverse(X: Array, with_factors: bool) -> tuple[Array, ...]:
    """The inverse of each matrix of X, shape (..., n, n), the batch of a known size; inf or nan where it is singular.

    If asked for, n factors of the determinant too, shape (..., n).
    """
    *shape, n, _ = X.shape
    batch, is_complex = math.prod(shape), jnp.iscomplexobj(X)
    entries = [X.reshape(batch, n * n)[:, k] for k in range(n * n)]
    state = entries if is_complex else _in_pairs(entries)
    p: list[Array] = []
    pivots: list[Array] = []
    for steps in _steps_of_kernels(n, is_complex):
        new = sum(step < n for step in steps)
        zero = jnp.zeros_like(state[0] if is_complex else lax.real(state[0]))
        left = [zero] * (new * with_factors) + [jnp.zeros_like(zero, jnp.int32)] * new  # for as many results
        f = partial(_after, n, steps, len(state), is_complex, with_factors)
        results = iter(one_kernel_of_odd_length(f, *state, *p, *left))
        state, p = [next(results) for _ in state], [next(results) for _ in p]
        pivots += [next(results) for _ in range(new * with_factors)]
        p += results
    entries = [z[:batch] for z in (state if is_complex else parts(state)[: n * n])]
    rows = even_blocks(n, max(STACKED // n, 1))
    Y = jnp.concatenate([transposed(entries[block.start * n : block.stop * n]) for block in rows], axis=-1)
    Y = lax.optimization_barrier(Y).reshape(X.shape)
    if not with_factors:
        return (Y,)
    signed = [jnp.where(p_k == k, pivot, -pivot)[:batch] for k, (p_k, pivot) in enumerate(zip(p, pivots, strict=True))]
    return Y, stacked(signed).reshape(*shape, n)


def _in_pairs(numbers):
    """The parts of numbers as complex numbers."""
    real = parts(numbers)
    real += real[-1:] * (len(real) % 2)
    return [lax.complex(*pair) for pair in zip(real[::2], real[1::2], strict=True)]


def _steps_of_kernels(n, is_complex):
    """The steps of each kernel, counted from 0; step k from n on exchanges columns 2 n - 1 - k and p."""
    costs = [_operations(n, step, is_complex) for step in range(2 * n)]
    count = -(-sum(costs) // OPERATIONS)
    kernels: list[list[int]] = [[] for _ in range(count)]
    before = 0
    for step, cost in enumerate(costs):
        kernels[(2 * before + cost) * count // (2 * sum(costs))].append(step)
        before += cost
    return kernels


def _operations(n, step, is_complex):
    others = n - 1 - min(step, 2 * n - 1 - step)  # rows or columns after it
    exchange = others * (1 + (4 if is_complex else 2) * n)
    if step >= n:
        return exchange
    search, products = others * (5 if is_complex else 3), (n - 1) ** 2 + 2 * (n - 1)
    return exchange + search + products * (8 if is_complex else 2) + 20 * is_complex


def _after(n, steps, count, is_complex, with_factors, *scalars):
    """The scalars after these steps, of which the first `count` are the entries, and the next the p known so far.

    The others give way to the new pivots, if asked for, and the new p.
    """
    z = numbers(parts(scalars[:count])[: n * n * (1 + is_complex)], of_complex=is_complex)
    Z = [list(z[i * n : (i + 1) * n]) for i in range(n)]
    known = sum(step < n for step in range(steps[0]))
    p = list(scalars[count : count + known])
    pivots = []
    for step in steps:
        if step < n:
            p.append(row_of_largest(Z, step))
            exchange_rows(Z, step, p[step])
            pivots.append(Z[step][step])
            _eliminate(Z, step)
        else:
            k = 2 * n - 1 - step
            columns = [list(column) for column in zip(*Z, strict=True)]
            exchange_rows(columns, k, p[k])
            Z = [list(row) for row in zip(*columns, strict=True)]
    pivots = (_in_pairs(pivots) if is_complex else pivots) if with_factors else []
    return *_in_pairs(z for row in Z for z in row), *p[:known], *pivots, *p[known:]


def _eliminate(Z: list[list], k: int) -> None:
    n, pivot, over_pivot = len(Z), Z[k][k], reciprocal(Z[k][k])
    others = [i for i in range(n) if i != k]
    for i in others:
        m = quotient(Z[i][k], pivot, over_pivot)
        for j in others:
            Z[i][j] = Z[i][j] - m * Z[k][j]
        Z[i][k] = -m
    Z[k] = [over_pivot if j == k else Z[k][j] * over_pivot for j in range(n)]
