"""The name of the form of a triple product: chosen by platform, dtype, n and batch.

`product_name` is the table, with the measured reasons beside its limits; `_products` has the forms by these names.
Those of CPU are measured by `notebooks/limits.py`.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxinv._lapack import LAPACK_BATCH_IS_SERIAL
from jaxinv._lowering import at_most, device_count

# Limits, measured on AMD EPYC 9004 (2 cores, AVX-512), float32, JAX 0.12.0.1, 2026-11-25.
# Products as sums against two batched dots: n = 4 0.013 against 1.5 us, n = 12 0.7 against 1.4, n = 16 1.3 against 1.5.
SUMS_ON_CPU = 16
# Beyond this n only of many matrices: for ten of n = 12 98 us as sums, 27 as dots. In float64, 2026-11-28, with the
# inverse, dots and sums: ten of n = 9 101 and 91 us, of n = 12 168 and 113, of n = 13 163 and 178, forty of n = 12 243
# and 177; before jaxlib 0.11 alike. In float32 ten of n = 10 106 and 80, but twenty 136 and 184; complex ones are even.
SUMS_OF_FEW_UP_TO = {"float32": 8, "float64": 12, "complex64": 8, "complex128": 8}
SUMS_FROM_BATCH = 64
# Transposed factors copied before a batched dot, which reads them slowly: n = 32 2.2 against 3.1 us, n = 128 65 against
# 82; before jaxlib 0.11 n = 17 0.9 against 2.0, n = 64 even. But not of few, with the inverse, 2026-11-28: ten of n =
# 40 415 and 344 us not copied, of n = 64 even, forty of n = 32 806 to 1010 and 720 to 740, in float64 1180 to 1530 and
# 1030 to 1100, ten of n = 64 in float64 1690 to 1870 and 1350 to 1530; 100 of n = 24 1300 and 1660, of n = 17 even.
TRANSPOSED_FROM_TO = (17, 256) if LAPACK_BATCH_IS_SERIAL else (17, 48)
TRANSPOSED_FROM_ENTRIES = 42_000
# Products go some rows at a time from n = 384 on, in strips of up to 700, in less memory. On AMD EPYC 9004, 2026-11-28,
# of one matrix, with the inverse, by dots and by strips: float64 n = 384 7.88 and 7.69 ms, n = 512 16.2 and 15.9, n =
# 1024 87.0 and 86.6, n = 2048 655 and 638 (temporaries 32 and 21 MiB), float32 n = 512 9.2 and 8.3, n = 1024 45.3 and
# 44.3, n = 2048 316 and 308, but n = 256 1.58 and 1.61, before jaxlib 0.11 2.52 and 2.62 in float64. Alone float64 n =
# 2048 359, in strips of 256, 512 and 683 rows 362, 351 and 344. Of 32 matrices of n = 512, one after another, 275 and
# 261 ms (temporaries 32 and 4 MiB), in float64 547 and 504, of eight in complex64 267 and 258 (48 and 16 MiB). One
# complex matrix would take 8 % more. Not over several devices: a matrix may lie on all of them.
STRIPS_FROM = 384
STRIP = 700
# Complex products as four real ones, two products of a batch: n = 17 4.4 against 2.0 us, n = 32 8.2 against 9.0, n = 64
# 30 against 65, n = 128 162 against 272; of one matrix n = 512 7.3 against 16 ms, n = 1024 45 against 124. On AMD
# EPYC of the third generation (AVX2), 2026-11-27, with the inverse, ten of n = 32 1.5 against 0.93 ms, of n = 40 2.2
# against 1.4, of n = 48 2.6 against 2.1, of n = 64 even; 200 of n = 32 19 against 15, of n = 48 even.
COMPLEX_IN_PARTS_FROM = 48
# Of few only larger ones, on AMD EPYC 9004, 2026-11-28, with the inverse, in parts and not: two of n = 48 361 and 245
# us, of n = 64 490 and 364, five of n = 48 541 and 477, of n = 64 883 and 836, ten of n = 48 even, of n = 56 1600 and
# 1570; one of n = 64 264 and 236, of n = 80 329 and 348; before jaxlib 0.11 even.
COMPLEX_IN_PARTS_OF_FEW_FROM = 72
COMPLEX_FEW_ENTRIES = 24_000
# Products in one loop, which computes op(B) op(C) anew for each row, against two loops: n = 4 13 against 22 ns, but
# complex ones, on an Intel Xeon of the fourth generation, are even at n = 3, and n = 4 126 against 91.
RECOMPUTED_UP_TO, RECOMPUTED_COMPLEX_UP_TO = 4, 3
# The n of many matrices whose products go matrix by matrix, in one loop that computes nothing anew, on AMD EPYC 9004,
# 2026-11-27, in batches of 2 MiB, by rows, in two loops and in one: n = 4 6 to 13, 11 to 17 and 13 ns, n = 8 40, 54 and
# 486, n = 9 188, 285 and 830, but n = 5 54, 47 and 29, n = 6 62 to 101, 68 to 77 and 166, n = 10 and more even or
# slower; float64 n = 8 83, 145 and 527; complex64 n = 4 24, 47 and 146, n = 8 139, 179 and 2104. With AVX2 alone alike.
# Two loops write a product besides: with the inverse and its pages, 65536 of n = 6 in float64 161 against 288.
SUMS_BY_ROWS = {
    "float32": (4, 7, 8, 9),
    "float64": (4, 6, 7, 8, 9),
    **dict.fromkeys(("complex64", "complex128"), (4, 5, 6, 8)),
}
RECOMPUTED_OF_MANY_UP_TO = 5
# By columns, which are read as they lie where op(C) is C, by rows and in two loops, Y dX Y: n = 5 12, 33 and 32 ns, n =
# 6 27, 96 and 92, n = 7 36, 146 and 138, n = 8 24, 33 and 62, with AVX2 alone 18, 28 and 37, 50, 96 and 61, 43, 92 and
# 99, even; float64 n = 5 35, 59 and 45. Others are even or slower.
SUMS_BY_COLUMNS = {"float32": (5, 6, 7, 8), "float64": (5,)}
# Transposed factors copied before two loops, on AMD EPYC 9004, 2026-11-28, in batches of 2 MiB, and not copied: n = 11
# 120 and 160 ns, n = 12 148 and 220, n = 14 300 and 640, n = 16 360 and 690, with AVX2 alone n = 12 200 and 485, n = 16
# 410 and 710, but n = 10 even or slower. With the inverse 20000 of n = 12 522 and 603, 10000 of n = 16 940 and 1250.
# float64 and complex64 gain as much alone, but with the inverse nothing, and the pages of one array more cost 20000 of
# n = 12 in float64 3 to 12 %.
# Four such arrays of at most 8 MiB stay below 32, see `CHUNK_BYTES` in `_blocked_lu`; 10000 of n = 16 once took 3.5 us.
SUMS_OF_COPIES_FROM = 11
SUMS_OF_COPIES_UP_TO_ENTRIES = 2**21
# JAX runs a program for which XLA counts less than 1000 operations in the thread that calls it; for more it wakes
# another, which takes 50 to 70 us. So the products of few matrices, from so many operations on, go row by row in a
# loop, of which XLA counts one step, and in an outer one over the factors, of which it counts one too: on AMD EPYC
# 9004, 2026-11-28, with the gradient, one of n = 8 16 us and 36 by the builtin, n = 12 18 and 38, n = 15 22 and 61, two
# of n = 10 23 (49 by a step for both factors) and 63, four of n = 7 27 (by `row LU` and sums 85) and 108. A step has so
# many at most, and a program with the inverse some twice as many, see `FEW_OPERATIONS`.
BY_ROWS_FROM = 880
STEP_UP_TO = 470
# So many of n = 2 too, whose products by entries are counted 54, complex ones 198, and whose inverses are LAPACK's. By
# rows, by entries and the builtin, with the gradient: 20 19, 34 and 47 us (jvp 18, 52 and 19), 30 20, 43 and 76, ten of
# complex64 20, 45 and 24, 20 of it 20, 36 and 62.
ROWS_OF_TWO, ROWS_OF_TWO_COMPLEX = ((15, 39), (5, 39)) if LAPACK_BATCH_IS_SERIAL else ((15, 19), (5, 31))  # batches
# And a dot of a few larger ones wakes the other cores: row by row it does not. With the inverse, there, float32, by
# rows, by dots and the builtin: two of n = 32 103, 128 and 118 us, ten of n = 17 164, 194 and 199, of n = 24 254, 252
# and 269, of n = 32 265, 281 and 334, two of n = 64 228, 293 and 260, forty of n = 16 289, 319 and 362, but ten of n =
# 28 378, 280 and 319, of n = 36 376, 324 and 381, of n = 40 455, 344 and 475; float64 alike. To n = 14 a dot wakes
# none: ten of n = 11 160 to 167, 126 to 153 and 168 to 182, of n = 14 212 to 269, 185 to 210 and 222 to 266, but of n =
# 16 167 to 197, 236 to 303 and 213 to 289. In float64, with sums to n = 12, ten of n = 13 134, 163 and 153, of n = 14
# 130, 159 and 147, five 5 to 10 % slower by rows than by dots. Complex ones and JAX 0.10.2 are slower by
# rows, from n = 17 on one matrix too. Of more than 6400 entries, where n is no multiple of 8, dots: 2026-11-28, by rows
# and by dots, ten of n = 30 345 and 280, of n = 31 380 and 335, float64 407 and 347, four of n = 50 340 and 310, forty
# of n = 15 327 and 303, float64 349 and 317, but ten of n = 25 even.
FEW_FROM = {"float32": 15, "float64": 13}
FEW_ENTRIES, FEW_ENTRIES_OF_8 = (6400, 10500) if LAPACK_BATCH_IS_SERIAL else (0, 0)
# On an NVIDIA H200, JAX 0.11.2, 2026-11-26, two products of a batch as sums against two dots: n = 4 0.11 against 0.16
# ns, n = 8 0.46 against 2.5, n = 16 2.5 against 3.9, n = 24 6.8 against 6.4; complex64 n = 6 0.65 against 7.6, n = 16
# 5.5 against 11; float64 n = 6 0.65 against 1.9, n = 16 5.4 against 3.6.
SUMS_ON_GPU, SUMS_ON_GPU_FLOAT64 = 16, 12


def product_name(n: int, batch: int, dtype: DTypeLike, platform: str, is_single: bool = False, ops: str = "TNT") -> str:
    """How the products of a batch of n x n matrices are computed; n and the batch may be symbolic (`jax.export`).

    `is_single`: whether the one matrix has no axes of a batch.
    """
    is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
    in_one_loop = at_most(n, RECOMPUTED_COMPLEX_UP_TO if is_complex and platform == "cpu" else RECOMPUTED_UP_TO)
    if platform != "cpu":
        if not is_small_on_gpu(n, dtype):
            return "dots"
        return "sums in one loop" if in_one_loop else "sums in two kernels"
    name = jnp.dtype(dtype).name
    is_many = not at_most(batch, SUMS_FROM_BATCH - 1)
    is_sum = at_most(n, SUMS_OF_FEW_UP_TO[name]) or (is_many and at_most(n, SUMS_ON_CPU))
    if isinstance(n, int) and n > 1 and _is_by_rows(n, batch, name, is_complex, is_sum):
        return "rows"
    is_known = isinstance(n, int) and isinstance(batch, int)
    if is_known and n >= STRIPS_FROM and (batch > 1 or not is_complex) and device_count() == 1:
        return "dots of strips"
    is_few = at_most(n**2 * batch, COMPLEX_FEW_ENTRIES)
    if is_complex and not at_most(n, (COMPLEX_IN_PARTS_OF_FEW_FROM if is_few else COMPLEX_IN_PARTS_FROM) - 1):
        return "dots of parts"
    if is_sum:
        if n == 2:
            return "entries"
        if is_many:
            if ops[2] == "N" and n in SUMS_BY_COLUMNS.get(name, ()):
                return "sums by columns"
            if n in SUMS_BY_ROWS.get(name, ()):
                return "sums by rows"
            is_copied = "T" in ops and name == "float32" and not at_most(n, SUMS_OF_COPIES_FROM - 1)
            if is_copied and at_most(n**2 * batch, SUMS_OF_COPIES_UP_TO_ENTRIES):
                return "sums of copies"
            in_one_loop |= not is_complex and at_most(n, RECOMPUTED_OF_MANY_UP_TO)
        return "sums in one loop" if in_one_loop else "sums in two loops"
    is_transposed = isinstance(n, int) and TRANSPOSED_FROM_TO[0] <= n <= TRANSPOSED_FROM_TO[1]
    if not is_single and is_transposed and not at_most(n**2 * batch, TRANSPOSED_FROM_ENTRIES - 1):
        return "dots of copies"
    return "dots"


def _is_by_rows(n, batch, name, is_complex, is_sum):
    """Whether the products of so few matrices go row by row, and stay in the thread that calls, or in one."""
    if n == 2:
        least, most = ROWS_OF_TWO_COMPLEX if is_complex else ROWS_OF_TWO
        return isinstance(batch, int) and least <= batch <= most
    step = 2 * n**2 * batch
    if at_most(step, STEP_UP_TO):
        return 2 * step * n >= BY_ROWS_FROM
    is_few = at_most(n**2 * batch, FEW_ENTRIES if n % 8 else FEW_ENTRIES_OF_8) and not at_most(batch, 1)
    return is_few and not is_complex and n >= FEW_FROM[name] and not is_sum


def is_small_on_gpu(n: int, dtype: DTypeLike) -> bool:
    """Whether a product of such matrices is one kernel of elementwise code on GPU."""
    return at_most(n, SUMS_ON_GPU_FLOAT64 if jnp.dtype(dtype) == jnp.float64 else SUMS_ON_GPU)
