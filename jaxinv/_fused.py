"""Many small matrices at once: a function of scalars, run over a batch as one vectorised loop on CPU.

XLA:CPU fuses an unrolled elimination by computing it anew for every entry of the result. A variadic `reduce` stops
that: over an axis of length 2 that repeats each entry, its reducer ignores the accumulator and maps the entries of one
matrix to the entries of its result. XLA compiles it to one loop over the batch, which LLVM vectorises (the first of the
two calls is dead code) and which is split over the cores. The slices that pick the entries are fused into it, so the
loop reads the matrices as they lie. (Over an axis of length 1 the algebraic simplifier would remove the reduction.)

At n = 2 elementwise operations on arrays of the shape of the batch are better: as fast as a copy. LLVM unrolls the
loops over rows and columns, and the loop over the batch that is left reads and writes four entries by shuffles of
vectors, of which it has none for more than eight. XLA must fuse all into one loop, see `reciprocal`, and nothing else
into it, see `gathered`.

From n = 3 on the results are vectors over the batch, one for each entry; stacking them is a transposition, cheap in
cache: large batches go through in chunks. No two vectors may lie a multiple of `PAGE` bytes apart, or they share the
same sets of the cache (n = 8: 105 ns, or 210).

On GPU and TPU the same is said by a `reduce_window` whose window is one entry. XLA:GPU makes one kernel of it, a thread
for each matrix, and another of the stacking. Four real entries are what one thread reads and writes at once: left to be
fused, they are one kernel with the stacking. `tests/test_compiled_for_gpu.py` reads these kernels.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxinv._scalars import number_like, numbers, parts, select

# Measured on AMD EPYC 9004 (2 cores, AVX-512), 2026-11-25.
# Matrices a chunk, at most: 4096 .. 16384 are even at n = 4 .. 8.
CHUNK = 8192
# A chunk comes from this many places of an axis of the batch at once, so that a sharded batch is cut within its shards.
LANES = 64
LANES_OF_SEVERAL = 8  # where the batch has more axes than one, which may all be sharded
# For these loops, of 2 .. 64 the best at n = 4 .. 8: n = 6 36 against 43 ns with 64, n = 8 81 against 93. Panels are
# faster with 64: n = 16 1.97 against 2.2 us.
LANES_OF_ONE_DEVICE = 8
# An axis of fewer matrices is merged with the one before it: the loops over the others are too short for vectors.
SHORTEST_AXIS = 16
# Smaller matrices are faster in one pass, n = 3 7 against 12 ns, although its vectors are as large as the result: where
# the allocator gives such memory back after each call, its pages are new in the next (n = 4: 11 ns, or 25 to 40).
CHUNKED_FROM = 4
PAGE = 4096  # bytes in one way of a 32 or 48 KiB L1 cache


def map_matrices(
    f: Callable[..., Sequence],
    sizes: Sequence[int],
    X: Array,
    reads: Sequence[int] | None = None,
    places: Sequence[int | None] | None = None,
    at_once: bool = False,
) -> tuple[Array, ...]:
    """`f` of the n^2 entries of each matrix of X, row by row.

    Args:
        f: takes a scalar for each of `reads`; its results are numbered from 0.
        sizes: of the arrays into which the results are gathered.
        X: shape (..., n, n).
        reads: the entries that f takes, by default all.
        places: for each place in the arrays the result that goes there, None for a zero; by default one for each.
        at_once: for GPU and TPU, without chunks, and with the axes of the batch as they are.

    Returns:
        Arrays of shapes (..., size).
    """
    *shape, n, _ = X.shape
    reads, places = reads or range(n * n), places or range(sum(sizes))
    if n == 2 and not at_once:
        return _in_place(f, sizes, reads, places, X)
    if at_once:
        out = _at_once(f, sizes, reads, places, X.reshape(*(shape or [1]), n * n))
        return tuple(Y.reshape(*shape, size) for Y, size in zip(out, sizes, strict=True))
    batch = batch_axes(shape)
    X = X.reshape(*batch, n * n)
    one_pass = partial(_one_pass, one_loop, f, sizes, reads, places)
    if n < CHUNKED_FROM or not isinstance(batch[0], int):
        out = one_pass(X)
    else:
        most = fused_lanes()
        out = in_chunks(one_pass, batch, fused_step(batch, X.dtype.itemsize, most), X, most)
    return tuple(Y.reshape(*shape, size) for Y, size in zip(out, sizes, strict=True))


def batch_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a batch as it is worked on: its axes are kept, since each may be sharded, but for short ones.

    On one device they are merged: n = 6 77 against 126 ns for a batch of (1024, 64), n = 8 165 against 266.
    """
    if jax.device_count() == 1 or not all(isinstance(size, int) for size in shape):
        return (math.prod(shape),)
    *outer, last = shape or (1,)
    while outer and last < SHORTEST_AXIS:
        last *= outer.pop()
    return (*outer, last)


map_at_once = partial(map_matrices, at_once=True)


def lanes(batch: Sequence[int], most: int = LANES) -> tuple[int, int, int]:
    """The longest axis of a batch, the places on it from which a chunk comes, at most, and the matrices at each."""
    axis = max(range(len(batch)), key=lambda k: (batch[k], k))
    count = math.gcd(batch[axis], most if len(batch) == 1 else LANES_OF_SEVERAL)
    return axis, count, batch[axis] // count


def fused_lanes() -> int:
    """The most lanes for `map_matrices`."""
    return LANES_OF_ONE_DEVICE if jax.device_count() == 1 else LANES


def fused_step(batch: Sequence[int], itemsize: int, most: int = LANES) -> int:
    """Matrices of a lane in a chunk: as few chunks as `CHUNK` allows, and vectors over a chunk that spread in cache."""
    axis, count, length = lanes(batch, most)
    total = math.prod(batch)
    step = -(-length // -(-total // CHUNK))
    if len(batch) > 1 and axis == len(batch) - 1:
        step = max(step, SHORTEST_AXIS)
    if total // length * step * itemsize % PAGE == 0:
        step = (step if step < length else step // 2) + max(1, LANES // 4 // count)
    return min(step, length)


def in_chunks(
    f: Callable[[Array], tuple[Array, ...]], batch: Sequence[int], step: int, X: Array, most: int = LANES
) -> tuple[Array, ...]:
    """`f` of X, shape (*batch, ...), on `step` matrices of each lane, of `most`, of its longest axis at a time.

    `f` maps an array of shape (.., lanes, step, ..; ...) to several.
    """
    axis, count, length = lanes(batch, most)
    split = (*batch[:axis], count, length, *batch[axis + 1 :])
    X = X.reshape(*split, *X.shape[len(batch) :])
    if step >= length:
        return tuple(Y.reshape(*batch, *Y.shape[len(split) :]) for Y in f(X))
    passes = -(-length // step)
    is_last = axis == len(batch) - 1  # then a chunk of results is contiguous in each lane

    def chunk(start):
        return f(lax.dynamic_slice_in_dim(X, start, step, axis + 1))

    def flat(Y, shape):
        return Y.reshape(*shape[:-1], -1) if is_last else Y.reshape(*shape, -1)

    def body(i, Ys):
        # The last chunk is moved back to end with the batch; what it holds twice it computes twice, alike.
        start = jnp.minimum(many(i, passes) * step, length - step)
        Zs = [flat(new, new.shape[: len(split)]) for new in chunk(start)]
        return tuple(
            lax.dynamic_update_slice_in_dim(Y, Z, start * (Z.shape[axis + 1] // step), axis + 1)
            for Y, Z in zip(Ys, Zs, strict=True)
        )

    shapes = [Y.shape[len(split) :] for Y in jax.eval_shape(chunk, 0)]
    zero = jnp.zeros_like(X.reshape(*split, -1)[..., 0])
    zero = zero if is_last else zero[..., None]
    start = tuple(jnp.tile(zero, (*(1,) * (zero.ndim - 1), math.prod(shape))) for shape in shapes)
    Ys = lax.fori_loop(0, passes, body, start)
    return tuple(Y.reshape(*batch, *shape) for Y, shape in zip(Ys, shapes, strict=True))


def many(i: Array, passes: int) -> Array:
    """`i`, the index of a loop, by way of a sort: XLA compiles no loop with a sort as one single-threaded kernel."""
    return lax.sort(jnp.stack([i, jnp.full_like(i, passes)]))[0]


def _one_pass(run, f, sizes, reads, places, X):
    """`f` of the entries of X, shape (..., entries), in the loop that `run` makes."""
    is_complex = jnp.iscomplexobj(X)
    vectors = parts(X[..., k] for k in reads)
    count = (1 + max(k for k in places if k is not None)) * (1 + is_complex)
    operands = len(vectors)
    spare = [jnp.zeros_like(vectors[0])] * (count - operands)  # there are as many results as operands

    def f_of_parts(*scalars):  # closes over no array, see `one_loop`
        return parts(f(*numbers(scalars[:operands], of_complex=is_complex)))[:count]

    results = list(run(f_of_parts, *vectors, *spare))
    if is_complex:
        results = [lax.complex(*pair) for pair in zip(results[::2], results[1::2], strict=True)]
    placed = iter([jnp.zeros_like(X[..., 0]) if k is None else results[k] for k in places])
    return tuple(jnp.stack([next(placed) for _ in range(size)], axis=-1) for size in sizes)


def _in_place(f, sizes, reads, places, X):
    """`f` of the entries of 2 x 2 matrices, each array of results in one loop that writes it as it lies."""
    out = []
    for size in sizes:
        entries = scattered(X)
        results = [*f(*(entries[k] for k in reads))]
        zero = number_like(entries[0], 0)
        values = [zero if k is None else results[k] for k in places[:size]]
        places = places[size:]
        Y = gathered(values if size == 4 else [*values, *values])
        out.append(Y.reshape(*X.shape[:-2], 4) if size == 4 else Y[..., 0, :])
        X = lax.optimization_barrier(X)  # so that the next array shares no division with this one
    return tuple(out)


def scattered(X: Array) -> list:
    """The entries of 2 x 2 matrices, row by row, each as an array of the shape of X or a pair of them."""
    entries = [jnp.broadcast_to(X[..., i, j][..., None, None], X.shape) for i in range(2) for j in range(2)]
    return numbers(parts(entries), of_complex=jnp.iscomplexobj(X))


def gathered(entries: Sequence) -> Array:
    """The inverse of `scattered`.

    LLVM unrolls the loops over rows and columns before it vectorises the one over the batch if each row is asked for,
    the last one too. The division, by what LLVM knows to be one, ends the loop: XLA computes no division for each use.
    """
    shape = parts(entries)[0].shape
    i, j = (lax.broadcasted_iota(jnp.int32, shape, len(shape) - axis) for axis in (2, 1))
    rows = [select(j == 0, *entries[:2]), select(j == 0, *entries[2:])]
    Y = parts([select(i == 0, rows[0], select(i == 1, rows[1], entries[3]))])
    Y = [y / lax.select(i == 2, y, lax.full_like(y, 1)) for y in Y]
    return lax.complex(*Y) if len(Y) == 2 else Y[0]


def _at_once(f, sizes, reads, places, X):
    if X.shape[-1] != 4 or jnp.iscomplexobj(X):
        return _one_pass(one_kernel, f, sizes, reads, places, X)
    out = _one_pass(lambda f, *vectors: f(*vectors), f, sizes, reads, places, X)
    return lax.optimization_barrier(out)  # so that what uses it does not compute it anew


def one_loop(f: Callable[..., Sequence], *vectors: Array) -> Sequence[Array]:
    """`f` on the scalars at each index of arrays of one shape, as one loop, with what computes them fused into it.

    Results have the dtypes of the `vectors` in their order, and are as many: beyond those of `f` they hold zeros.
    """
    axis = vectors[0].ndim
    twice = tuple(jnp.broadcast_to(X[..., None], (*X.shape, 2)) for X in vectors)
    return lax.reduce(twice, _zeros(vectors), partial(_last, f), (axis,))


def one_kernel(f: Callable[..., Sequence], *vectors: Array) -> Sequence[Array]:
    """As `one_loop`, on GPU and TPU."""
    ones = (1,) * vectors[0].ndim
    return lax.reduce_window(vectors, _zeros(vectors), partial(_last, f), ones, ones, "VALID")


def computed(X: Array) -> Array:
    """`X`, computed in a loop of its own, once: XLA:CPU fuses through `optimization_barrier`, not through `reduce`."""
    return one_loop(lambda x: (x,), X)[0]


def _last(f, _, scalars):
    """A reducer that takes the last entries for all; it closes over no array, since JAX keeps it in a cache."""
    out = tuple(f(*scalars))
    return out + tuple(lax.full_like(x, 0) for x in scalars[len(out) :])


def _zeros(vectors):
    return tuple(jnp.zeros((), X.dtype) for X in vectors)


def materialised(X: Array) -> Array:
    """`X`, written to memory: XLA:CPU fuses through `optimization_barrier`, but not through a `reduce_window`."""
    ones = (1,) * X.ndim
    return lax.reduce_window((X,), (jnp.zeros((), X.dtype),), lambda _, x: x, ones, ones, "VALID")[0]
