"""Many small matrices at once: a function of scalars, run over a batch as one vectorised loop on CPU.

XLA:CPU fuses an unrolled elimination by computing it anew for every entry of the result; `one_loop` stops that. The
slices that pick the entries are fused into its loop over the batch, which so reads the matrices as they lie.

The results are vectors over the batch, one for each entry; stacking them is a transposition. They are as large as the
result: larger batches go through in chunks, see `ONE_PASS_BYTES`. At n = 2 there are no vectors, see `_two_by_two`.

A loop that is split over cores in parts of unequal length asks in each step whether its part has ended, and LLVM leaves
it scalar. So a batch is seen as a few equal lanes of matrices, which XLA splits instead, see `in_lanes`.

On GPU there is one kernel, a thread for each matrix, and another of the stacking, see `transposed`. Four real entries
are what one thread reads and writes at once: left to be fused, they are one kernel with the stacking.
`tests/test_compiled_for_gpu.py` reads these kernels.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from jaxinv._chunks import batch_axes, filled, in_chunks, lanes, most_lanes
from jaxinv._lowering import device_count
from jaxinv._one_loop import one_kernel, one_loop
from jaxinv._scalars import numbers, parts
from jaxinv._two_by_two import map_in_place

# Measured on an Intel Xeon of the fourth generation (2 cores, AVX-512), float32, JAX 0.12.0.1, 2026-11-25.
# A batch of so many bytes goes through at once: n = 4 15 against 24 ns in chunks, n = 6 45 against 57. Its vectors and
# its result stay well below 32 MiB together, beyond which the allocator gives memory back after each call, and the next
# gets new pages: on AMD EPYC of the third generation (AVX2), 2026-11-27, 9 MiB of n = 3 12 against 15 ns, but 14 MiB
# in float64 41 against 29, 16 MiB of n = 8 320 against 240.
ONE_PASS_BYTES = 12 * 2**20
# On that EPYC 0.5, 1, 2 and 4 MiB: n = 5 53, 61, 62, 70 ns, n = 6 102, 99, 106, 113, n = 8 223, 217, 219, 254.
CHUNK_BYTES = 2**20
# More vectors than these that lie a multiple of `PAGE` bytes apart share the same sets of the cache (n = 8: 105 ns, or
# 210): such a batch, unless it is small, goes through in chunks.
VECTORS_OF_PAGE = 16
PAGE = 4096  # bytes in one way of a 32 or 48 KiB L1 cache
CHUNKED_FROM = 4096  # matrices
# The vectors of a chunk hold an odd multiple of this: they lie in eight places of a page or more, and lanes are whole
# vectors of 256 bits, without which LLVM compiles the loop once more for single matrices.
MATRICES_OF_CHUNK = 128
# Lanes, which are split over cores, at most and at least; few, since LLVM leaves the end of each one scalar. A batch
# that has none is filled up, which costs two copies: n = 4 45 ns without, 23 with them, 14 where there are lanes.
LANES_OF_LOOP, FEWEST_LANES = 16, 8
LANES_FROM = 512  # matrices
# On GPU as many vectors are stacked without a branch, and more by a transposition, of tiles as wide as a warp.
FEW_VECTORS = 4
TILE = 32


def map_matrices(
    f: Callable[..., Sequence],
    sizes: Sequence[int],
    X: Array,
    reads: Sequence[int] | None = None,
    places: Sequence[int | None] | None = None,
    at_once: Callable[[Sequence[Array]], Array] | None = None,
) -> tuple[Array, ...]:
    """`f` of the n^2 entries of each matrix of X, row by row.

    Args:
        f: takes a scalar for each of `reads`; its results are numbered from 0.
        sizes: of the arrays into which the results are gathered.
        X: shape (..., n, n).
        reads: the entries that f takes, by default all.
        places: for each place in the arrays the result that goes there, None for a zero; by default one for each.
        at_once: for GPU and TPU, without chunks: it makes an array of the vectors that are its columns.

    Returns:
        Arrays of shapes (..., size).
    """
    *shape, n, _ = X.shape
    reads, places = reads or range(n * n), places or range(sum(sizes))
    if n == 2 and not at_once:
        return map_in_place(f, sizes, reads, places, X)
    if at_once:
        entries = _entries(reads, X.reshape(*_axes_at_once(shape), n * n))
        if n == 2 and not jnp.iscomplexobj(X):
            out = _one_pass(lambda f, *vectors: f(*vectors), stacked, f, sizes, places, entries)
        else:
            out = _one_pass(one_kernel, at_once, f, sizes, places, entries)
        out = lax.optimization_barrier(out)  # so that what uses it does not compute or transpose it anew
        return tuple(Y.reshape(*shape, size) for Y, size in zip(out, sizes, strict=True))
    batch = batch_axes(shape)
    X = X.reshape(*batch, n * n)
    one_pass = in_lanes(partial(_one_pass, one_loop, stacked, f, sizes, places))
    if _fits_one_pass(batch, n * n, X.dtype.itemsize):
        out = one_pass(_entries(reads, _with_lanes(X)))
        if batch != out[0].shape[:-1]:
            out = tuple(Y[: batch[0]] for Y in out)
    else:
        step = fused_step(batch, n * n, X.dtype.itemsize)
        out = in_chunks(one_pass, batch, step, X, most_lanes(), partial(_entries_of_chunk, reads))
    return tuple(Y.reshape(*shape, size) for Y, size in zip(out, sizes, strict=True))


def _axes_at_once(shape):
    """Axes of a batch, at least one: one, unless devices may share them."""
    return shape if len(shape) > 1 and device_count() > 1 else [math.prod(shape)]


def _fits_one_pass(batch, entries, itemsize):
    if not all(isinstance(size, int) for size in batch):
        return True
    total = math.prod(batch)
    shares_sets = entries > VECTORS_OF_PAGE and total >= CHUNKED_FROM and total * itemsize % PAGE == 0
    return total * entries * itemsize <= ONE_PASS_BYTES and not shares_sets


def fused_step(batch: Sequence[int], entries: int, itemsize: int) -> int:
    """Matrices of a lane in a chunk: as few chunks as `CHUNK_BYTES` allows, alike, see `MATRICES_OF_CHUNK`."""
    _, count, length = lanes(batch, most_lanes())
    chunks = max(-(-math.prod(batch) * entries * itemsize // CHUNK_BYTES), 2)
    unit = max(MATRICES_OF_CHUNK // count, FEWEST_LANES)
    units = -(-length // (chunks * unit))
    return min((units + 1 - units % 2) * unit, length)


def _with_lanes(X):
    """X, shape (batch, entries), filled up if it has too few lanes."""
    size = X.shape[0]
    if not _has_lanes(X.shape[:-1]) or math.gcd(size, LANES_OF_LOOP) >= FEWEST_LANES:
        return X
    return filled(X, LANES_OF_LOOP)


def _has_lanes(batch):
    """Whether a batch has one axis, besides such of length 1, and on it enough matrices on one device."""
    size = batch[-1]
    return isinstance(size, int) and LANES_FROM <= size == math.prod(batch) and device_count() == 1


def in_lanes(f: Callable[[Sequence[Array]], tuple[Array, ...]]) -> Callable[[Sequence[Array]], tuple[Array, ...]]:
    """`f` of vectors over a batch, seen as lanes, which XLA may split over cores without a look at each matrix."""

    def on_lanes(vectors):
        batch = vectors[0].shape
        count = math.gcd(batch[-1], LANES_OF_LOOP) if _has_lanes(batch) else 1
        if count == 1:
            return f(vectors)
        return tuple(Y.reshape(*batch, -1) for Y in f([x.reshape(count, -1) for x in vectors]))

    return on_lanes


def _entries(reads, X):
    return [X[..., k] for k in reads]


def _entries_of_chunk(reads, X, start, step, axis):
    """Slices that are fused into the loop; of the chunk as an array there would be a copy."""
    sizes = (*X.shape[:axis], step, *X.shape[axis + 1 : -1], 1)
    zero = jnp.zeros_like(start)
    before, after = [zero] * axis, [zero] * (X.ndim - axis - 2)
    return [
        lax.dynamic_slice(X, [*before, start, *after, jnp.full_like(start, k)], sizes).reshape(sizes[:-1])
        for k in reads
    ]


def _one_pass(run, columns, f, sizes, places, entries):
    """`f` of the entries of many matrices, in the loop that `run` makes; `columns` makes an array of vectors.

    Complex entries are taken apart in the loop. Of their parts as vectors complex ones would be made before the
    stacking: n = 4 44 against 38 ns, n = 6 214 against 174.
    """
    count = 1 + max(k for k in places if k is not None)
    operands, is_complex = len(entries), jnp.iscomplexobj(entries[0])
    spare = [jnp.zeros_like(entries[0])] * (count - operands)  # there are as many results as operands

    def f_of_scalars(*scalars):  # closes over no array, see `one_loop`
        results = parts(f(*numbers(parts(scalars[:operands]), of_complex=is_complex)))
        return [lax.complex(*z) for z in zip(results[::2], results[1::2], strict=True)] if is_complex else results

    results = run(lambda *scalars: f_of_scalars(*scalars)[:count], *entries, *spare)
    placed = iter([jnp.zeros_like(entries[0]) if k is None else results[k] for k in places])
    return tuple(columns([next(placed) for _ in range(size)]) for size in sizes)


def stacked(vectors: Sequence[Array]) -> Array:
    """An array with these vectors over a batch, of one shape, as its columns."""
    return jnp.stack(vectors, axis=-1)


def transposed(vectors: Sequence[Array]) -> Array:
    """As `stacked`, by the transposition of an array with these rows, on GPU.

    There a thread stacks an entry: it finds its vector by branches, and its neighbours take others. Lest XLA makes the
    transposition a matter of layout, and stacks anew, the rows are joined along the batch: in tiles, which lie on one
    device each, or where there is one device the whole.
    """
    count, shape = len(vectors), vectors[0].shape
    size, devices = shape[-1], device_count()
    is_whole_tiles = isinstance(size, int) and size % (TILE * devices) == 0
    if count <= FEW_VECTORS or (devices > 1 and not is_whole_tiles):
        return stacked(vectors)
    tile = TILE if is_whole_tiles else size
    rows = jnp.concatenate([x.reshape(*shape[:-1], -1, tile) for x in vectors], axis=-1)
    return rows.reshape(*shape[:-1], -1, count, tile).mT.reshape(*shape, count)


map_at_once = partial(map_matrices, at_once=transposed)
# Of the blocks of larger matrices: n = 16 17 ns with the transposition, 11 without.
map_blocks_at_once = partial(map_matrices, at_once=stacked)
