"""The name of the kernel for an inverse: chosen by platform, dtype, n and batch.

`kernel_name` is the table, with the measured reasons beside its limits; `_kernels` has the kernels by these names.
Those of CPU are measured by `notebooks/limits.py`.
"""

import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxinv._lapack import LAPACK_BATCH_IS_SERIAL
from jaxinv._lowering import at_most, device_count
from jaxinv._lu import FEW_OPERATIONS
from jaxinv._structured_kernels import STRUCTURES, structured_kernel_name

# Limits, measured on AMD EPYC 9004 (2 cores, AVX-512), float32, JAX 0.12.0.1, 2026-11-24.
# n = 8: 0.10 against LAPACK's 1.2 us. At n = 9 LLVM leaves the loop scalar and compiles it for 7 s. On a GPU one thread
# inverts a matrix: on an NVIDIA H200 n = 8 0.35 against the library's 3.1 ns; n = 9 compiles for 13 s.
UNROLLED_UP_TO = 8
# n = 5: 0.10 against LAPACK's 0.86 us, n = 6: 0.4 against 1.1; n = 7 compiles for 5 s, on a GPU for 15.
UNROLLED_COMPLEX_UP_TO = 6
# XLA allots a buffer to each operation of the loop in each call: 60 us at n = 4, 500 at n = 8, on AMD EPYC of the
# third generation (AVX2) 1000. Even with LAPACK at batches of 50 of n = 2, 100 of 3, 130 of 4, on that EPYC at 75 of 3,
# 200 of 4, complex64 at 130 of 3; matrix by matrix it is half as fast.
FUSED_FROM_BATCH, FUSED_COMPLEX_FROM_BATCH = (10, 16) if LAPACK_BATCH_IS_SERIAL else (5, 8)  # n^2
# In rows there are none. On that EPYC, 2026-11-27, JAX 0.12.0.1, in rows, fused and LAPACK: 100 of n = 4 0.94, 1.4 and
# 1.1 us, 300 0.43, 0.78 and 0.91, 1000 0.15, 0.26 and 0.70; 1000 of n = 6 0.42, 0.57 and 1.5, 4000 0.24, 0.20 and 1.5;
# 1000 of n = 8 0.70, 1.65 and 1.7, 8000 0.33, 0.49 and 1.7; float64 1000 of n = 8 0.76, 2.2 and 2.9; complex64 1000 of
# n = 3 0.29, 0.31 and 1.1, of n = 6 0.95, 2.7 and 2.9, 8000 0.47, 0.54 and 2.2. Real ones of n = 3 are even. On JAX
# 0.10.2 the fused loop costs less a call: 1000 of n = 6 0.39 and 0.42, of n = 8 0.41 and 0.80, 4000 0.51 and 0.38.
ROW_FROM, ROW_COMPLEX_FROM = 4, 3
ROW_FROM_BATCH = 100
ROW_BELOW_BATCH, ROW_COMPLEX_BELOW_BATCH = (16, 64) if LAPACK_BATCH_IS_SERIAL else (6, 16)  # n^3
# Any more, where scalars are as good as vectors of doubles, or where rows fill a vector: there, float64 131072 of n = 4
# 63 and 72 ns, 65536 of n = 5 91 and 137, of n = 6 158 and 209, of n = 8 630 and 745; complex128 40000 of n = 4 101 and
# 136, 20000 of n = 6 470 and 800. On AMD EPYC 9004, 2026-11-27, in rows and fused, float32 262144 of n = 4 12 and 20,
# 65536 of n = 8 77 to 105 and 107 to 140, with AVX2 alone 128 to 137 and 149 to 173, but n = 5 and 6 54 and 53, 80 and
# 66; complex64 131072 of n = 4 30 and 42, 32768 of n = 6 404 and 297; complex128 16384 of n = 6 281 and 397.
ROW_ANY = {"float32": (4, 8), "float64": (4, 5, 6, 7, 8), "complex64": (4,), "complex128": (4, 5, 6)}
# Fewer than 100 pay where LAPACK's program, with the products of a derivative or without, would be another thread's
# too, see `FEW_OPERATIONS`, and XLA does not split the loop; if it does, a little later. On AMD EPYC 9004, 2026-11-28,
# called again and again (in brackets after a pause of 0.3 ms, when that thread is asleep), in rows, LAPACK and the
# builtin: 42 of n = 4 14, 81 and 91 us (96, 134, 142), 66 of n = 3 9, 77 and 80 (90, 137, 145), and split 40 of n = 5
# 75, 96 and 105, of n = 7 86, 133 and 138, 24 of n = 6, 30 of n = 8 even; with the gradient 13 of n = 4 18, 41 and 80
# (83, 101, 122), 21 of n = 3 18, 45 and 97 (68, 100, 107), nine of n = 5 19, 37 and 89, but split ten of n = 6 78, 46
# and 88. Of fewer LAPACK's program stays: ten of n = 3 8, 13 and 13 us, but after a pause 98, 30 and 29, with the
# gradient ten of n = 4 11, 20 and 80, but 106, 32 and 150. With JAX 0.10.2 42 of n = 4 12, 123 and 96, with the
# gradient 13 18, 38 and 77.
ROW_OF_FEW_BELOW_BATCH = 130
ROW_WHOLE_UP_TO, ROW_COMPLEX_WHOLE_UP_TO = 12000, 2500  # n^-4
ROW_SPLIT_FROM_OPERATIONS = 1500
# Fewer do not fill the vectors.
FEWEST_FUSED = 16
# Of n = 2 there are none, and so few are counted less than 1000 operations: one 7.6 us, LAPACK's and the builtin 9.7,
# with the gradient 10.1, 12.4 and 13.5, five 7.4, 11.7 and 11.4, with it 9.9, 14.1 and 16.1.
TWO_BY_TWO_UP_TO_BATCH, TWO_BY_TWO_COMPLEX_UP_TO_BATCH = 5, 1
# On AMD EPYC of the third generation (AVX2), JAX 0.12.0.1, 2026-11-27, against blocks and LAPACK, in batches of 4 MiB:
# float32 n = 16 1.7, 4.1 and 5.7 us, n = 24 4.5, 7.2 and 9.8, n = 32 10.5, 14.6 and 18.9, n = 40 17.0, 19.3 and 26, n =
# 48 35, 31 and 40; float64 n = 28 15, 19 and 36, n = 36 28, 33 and 51, n = 40 39, 32 and 54. On AMD EPYC 9004,
# 2026-11-28, and LAPACK: complex64 n = 16 2.2 and 7.4, n = 24 9.9 and 12.6, n = 28 14.7 and 17.0 (AVX2 code 17 and 21),
# n = 32 32 and 28; complex128 n = 16 4.3 and 10.4, n = 20 9.8 and 18, n = 24 20 and 17. Beyond n = 51 LLVM vectorises
# no panel.
PANEL_UP_TO = {"float32": 40, "float64": 36, "complex64": 28, "complex128": 20}
# It calls some 7 loops for two columns, whatever the batch: even with LAPACK at 150 to 300 of float32, 150 of float64
# and complex64, and 300 of complex128. Few fill one thread only: 300 of n = 24 5.7 us, and 4.5 of many.
PANEL_FROM_BATCH = {"float32": 300, "float64": 200, "complex64": 200, "complex128": 300}
# Matrix by matrix LAPACK takes longer: there, JAX 0.10.2, panels and LAPACK so: 60 of n = 9 4.7 and 6.9 us, of n = 20
# 11.7 and 12.6, of n = 48 54 and 69, 400 of n = 48 34 and 46 (the builtin 45), of n = 51 35 and 60, float64 60 of n =
# 36 33 and 56, 200 of n = 44 even, complex64 60 of n = 9 9.8 and 9.0, 100 6.6 and 9.2, of n = 20 18 and 28, of n = 28
# even.
if not LAPACK_BATCH_IS_SERIAL:
    PANEL_UP_TO |= {"float32": 51, "float64": 44, "complex128": 24}
    PANEL_FROM_BATCH = {"float32": 60, "float64": 60, "complex64": 80, "complex128": 80}
# On AMD EPYC 9004 n = 64 18 against LAPACK's 26 us, n = 96 42 against 55, n = 128 72 against 103, n = 192 165 against
# 250, n = 256 385 against 500; float64 n = 64 30 against 48, n = 128 141 against 210. On an Intel Xeon of the fourth
# generation n = 48 18 against 33; float64 n = 192 650 against 900, n = 256 1480 against 1880. On the EPYC of the third,
# of fewer matrices than panels take, 200 of n = 24 18 against 12, 200 of n = 36 30 against 26. On the 9004 complex64
# loses, with complex products as four real ones too: n = 32 31 against 24, n = 64 138 against 113, n = 256 3600
# against 2700.
BLOCKED_FROM_TO = {"float32": (41, 256), "float64": (37, 256)}
# LAPACK factorises in one thread there. On the EPYC of the third generation, JAX 0.10.2, 2026-11-27, blocks, LAPACK
# matrix by matrix and the builtin: 1000 of n = 32 23.5, 24.0 and 21.6 us, 100 of n = 64 100, 78 and 76, 1000 84, 69 and
# 81, 400 of n = 128 396, 287 and 345, 100 of n = 256 2070, 1330 and 1350; float64 100 of n = 128 602, 448 and 520.
if not LAPACK_BATCH_IS_SERIAL:
    BLOCKED_FROM_TO = {}
# Even with LAPACK, each called alone, at batches of 60 of n = 48, 35 of 64, 14 of 128, 6 of 192.
BLOCKED_FROM_BATCH = 10000  # n^-1.3
# One matrix of which a derivative is taken: LAPACK's threads spin on for a while, and take the cores from its products.
# With the gradient, on AMD EPYC 9004, 2026-11-28, float32: n = 192 1.15 against 1.23 ms, n = 224 even, n = 256 1.5
# against 1.9 to 2.7, n = 320 3.9 against 4.6, n = 448 5.9 against 8.6; float64: n = 256 3.0 against 4.0, n = 320 5.8
# against 7.3, n = 1536 330 against 390, n = 2048 750 against 780, n = 3072 2500 against 2390; float32 n = 4096 even;
# with JAX 0.10.2 n = 256 1.95 against 2.55, in float64 even. On the Xeon, panels whose rows were exchanged, 2026-11-26:
# float32 n = 512 8.7 against 9.2, n = 1024 40 against 54, n = 1536 114 against 146, n = 2048 261 against 281, n = 4096
# 1750 against 1700; float64 n = 384 8.0 against 8.4, n = 1024 78 against 113, n = 2048 533 against 548; complex64 n =
# 1024 168 against 153. Alone it is LAPACK's, which compiles in a tenth of the time: on the 9004 n = 1024 29.5 against
# 33.8, n = 1536 even, n = 2048 even to 146 against 160, and it loses where LAPACK was called just before: n = 640 9.5
# against 7.5. Not tried on more than two cores.
LARGE_FROM = 256
LARGE_UP_TO = 2048
# Several, one after another, with the gradient, on the 9004, JAX 0.12.0.1, LAPACK's of the batch and these: float32
# four of n = 288 11.0 and 11.5 ms, 16 of them 41 and 40, four of n = 320 18.2 and 15.0, eight of n = 384 43 and 36, of
# n = 512 91 and 75, four of n = 1024 256 and 222, float64 four of n = 288 19.6 and 21.1, 16 of them 77 and 60, four of
# n = 320 even, eight of n = 384 78 and 55, of n = 512 163 and 125, four of n = 1024 440 and 374; with JAX 0.10.2
# float32 eight of n = 512 98 and 64, float64 four of n = 384 48 and 33, of n = 1024 481 and 375. Not over several
# devices, on which a batch or a matrix may lie.
LARGE_OF_MANY_FROM = 320
# One matrix, turned so that LAPACK needs no transposition, on the Xeon: float32 n = 256 even, n = 512 5.0 against 5.1
# ms, n = 1024 22.8 against 25.4, n = 2048 120 against 138, float64 n = 512 8.8 against 9.1, n = 2048 249 against 256,
# complex64 n = 512 9.9 against 10.5, n = 1024 55 against 70, n = 2048 357 against 410; n = 1000 0 to 3 %.
TURNED_FROM = 512
# On an NVIDIA H200, JAX 0.11.2, 2026-11-27, batches of 256 MiB, against the library and its LU with our product:
# float32 n = 9 0.69, 8.2 and 5.7 ns, n = 10 1.0 and 8.7, n = 12 2.1, 9.8 and 6.6, n = 13 3.1, 11.6 and 11.6, n = 14 3.7
# and 11.2, but it compiles for more than 10 s; float64 n = 9 1.2, 13 and 10, n = 12 5.7, 16 and 11.5; complex64 n = 7
# 0.78 and 5.0, n = 8 1.2 and 5.2, n = 9 2.1, 12.4 and 11.1, n = 10 3.8 and 12.7; complex128 n = 7 1.5 and 7.9, n = 8
# 3.3 and 9.2. Calls with so many vectors take 100 to 200 us to n = 10 (complex 8), and 400 to 600 beyond.
GAUSS_JORDAN_UP_TO = {"float32": 13, "float64": 12, "complex64": 10, "complex128": 8}
GAUSS_JORDAN_FROM_ENTRIES = 2_000_000, 10, 8_000_000  # to n = 10, and beyond
GAUSS_JORDAN_COMPLEX_FROM_ENTRIES = 4_000_000, 8, 8_000_000
# On the H200, 2026-11-26, batches of 128 or 256 MiB, the library's LU with our product, float32: n = 9 6.3 against the
# library's 8.3 ns, n = 12 6.8 against 10, n = 16 11.8 against 13.6, n = 24 29 against 33, n = 32 49 against 62; float64
# n = 32 80 against 99; complex64 n = 9 11.1 against 12.4, but n = 16 23.7 against 21.3, n = 24 59 against 53. n = 64
# 346 against 463, but with 1.5 times the error; of complex matrices of n = 32 that is above twice LAPACK's. It calls 20
# kernels: n = 9 even with the library at batches of 10000, n = 32 at 4000.
PRODUCT_UP_TO, PRODUCT_COMPLEX_UP_TO = 32, 10
PRODUCT_FROM_ENTRIES = 4_000_000
# On the H200 as well, float32: n = 64 330 to 350 against 470 ns, n = 128 1.6 against 2.2 us, n = 256 9.8 against 12.2
# us, but it compiles longer, for 10 to 20 s. Other types not timed.
BLOCKS_UP_TO = {"float32": 128}
BLOCKS_FROM_ENTRIES = 8_000_000


def kernel_name(
    n: int, batch: int, dtype: DTypeLike, platform: str, structure: str = "general", products_follow: bool = False
) -> str:
    """The kernel for the inverses of a batch of n x n matrices; n and the batch may be symbolic (`jax.export`).

    `products_follow`: whether a derivative is taken, so that matrix products come next.
    """
    if structure in STRUCTURES:
        return structured_kernel_name(n, batch, dtype, platform, structure)
    if n == 1:
        return "reciprocal"
    name, is_complex = jnp.dtype(dtype).name, jnp.issubdtype(dtype, jnp.complexfloating)
    is_unrolled = at_most(n, UNROLLED_COMPLEX_UP_TO if is_complex else UNROLLED_UP_TO)
    if platform != "cpu":
        return "elementwise LU" if is_unrolled else _larger_kernel_name(n, batch, name, platform)
    is_known = isinstance(n, int) and isinstance(batch, int)
    if is_known and is_unrolled:
        if n == 2 and batch <= (TWO_BY_TWO_COMPLEX_UP_TO_BATCH if is_complex else TWO_BY_TWO_UP_TO_BATCH):
            return "fused LU"
        below = (ROW_COMPLEX_BELOW_BATCH if is_complex else ROW_BELOW_BATCH) * n**3
        is_many = batch >= ROW_FROM_BATCH and n >= (ROW_COMPLEX_FROM if is_complex else ROW_FROM)
        if is_many and (batch < below or n in ROW_ANY[name]):
            return "row LU"
        if n > 2 and device_count() == 1 and _is_row_of_few(n, batch, is_complex, products_follow):
            return "row LU"
    elif is_known and not is_unrolled and n <= PANEL_UP_TO[name] and batch >= PANEL_FROM_BATCH[name]:
        return "panel Gauss-Jordan"
    fewest = (FUSED_COMPLEX_FROM_BATCH if is_complex else FUSED_FROM_BATCH) * n**2
    if is_unrolled and not at_most(batch, max(FEWEST_FUSED, fewest) - 1):
        return "fused LU"
    least, most = BLOCKED_FROM_TO.get(name, (1, 0))
    if is_known and least <= n <= most and batch >= BLOCKED_FROM_BATCH / n**1.3:
        return "blocked LU"
    smallest = LARGE_FROM if batch == 1 else LARGE_OF_MANY_FROM
    if products_follow and is_known and not is_complex and smallest <= n <= LARGE_UP_TO and device_count() == 1:
        return "large LU"
    if batch == 1 and isinstance(n, int) and n >= TURNED_FROM:
        return "turned LU"
    return "batched LU" if LAPACK_BATCH_IS_SERIAL or batch == 1 else "LU in turn"


def _is_row_of_few(n, batch, is_complex, products_follow):
    """Whether so few matrices are inverted in rows: if LAPACK's program, too, is none for the thread that calls it."""
    operations = batch * n * (n + 2)
    if batch > (ROW_COMPLEX_WHOLE_UP_TO if is_complex else ROW_WHOLE_UP_TO) / n**4:
        return operations >= ROW_SPLIT_FROM_OPERATIONS and batch < ROW_OF_FEW_BELOW_BATCH
    operations += products_follow * batch * (3 * n**2 + 5)  # by rows
    return operations > FEW_OPERATIONS and batch < ROW_OF_FEW_BELOW_BATCH


def _larger_kernel_name(n, batch, name, platform):
    """The kernel on GPU and TPU for matrices that no single kernel of XLA inverts."""
    if platform != "gpu" or not (isinstance(n, int) and isinstance(batch, int)):
        return "library LU"
    entries, is_complex = batch * n**2, name.startswith("complex")
    few, beyond, many = GAUSS_JORDAN_COMPLEX_FROM_ENTRIES if is_complex else GAUSS_JORDAN_FROM_ENTRIES
    if n <= GAUSS_JORDAN_UP_TO.get(name, 0) and entries >= (many if n > beyond else few) and device_count() == 1:
        return "elementwise Gauss-Jordan"
    if entries >= PRODUCT_FROM_ENTRIES and n <= (PRODUCT_COMPLEX_UP_TO if is_complex else PRODUCT_UP_TO):
        return "LU and product"
    if entries >= BLOCKS_FROM_ENTRIES and PRODUCT_UP_TO < n <= BLOCKS_UP_TO.get(name, 0):
        return "LU and blocks"
    return "library LU"
