"""A large batch, worked on in chunks that stay in cache, and within the shards of a batch that is sharded."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxinv._lowering import device_count

# A chunk comes from this many places of an axis of the batch at once, so that a sharded batch is cut within its shards.
LANES = 64
LANES_OF_SEVERAL = 8  # where the batch has more axes than one, which may all be sharded
# An axis of fewer matrices is merged with the one before it: the loops over the others are too short for vectors.
SHORTEST_AXIS = 16
PLACES = 2**31  # that an index of 32 bits counts


def batch_axes(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a batch as it is worked on: its axes are kept, since each may be sharded, but for short ones.

    On one device they are merged: n = 6 77 against 126 ns for a batch of (1024, 64), n = 8 165 against 266.
    """
    if device_count() == 1 or not all(isinstance(size, int) for size in shape):
        return (math.prod(shape),)
    *outer, last = shape or (1,)
    while outer and last < SHORTEST_AXIS:
        last *= outer.pop()
    return (*outer, last)


def lanes(batch: Sequence[int], most: int = LANES) -> tuple[int, int, int]:
    """The longest axis of a batch, the places on it from which a chunk comes, at most, and the matrices at each."""
    axis = max(range(len(batch)), key=lambda k: (batch[k], k))
    count = math.gcd(batch[axis], most if len(batch) == 1 else LANES_OF_SEVERAL)
    return axis, count, batch[axis] // count


def most_lanes() -> int:
    """The most lanes to be taken: one on one device, where chunks need not lie within shards."""
    return 1 if device_count() == 1 else LANES


def filled(X: Array, multiple: int) -> Array:
    """X, shape (batch, ...), with the first matrices once more at the end, so that it has a `multiple` of them."""
    rest = -X.shape[0] % multiple
    return jnp.concatenate([X, X[:rest]]) if rest else X


def in_chunks(
    f: Callable[[Any], tuple[Array, ...]],
    batch: Sequence[int],
    step: int,
    X: Array,
    most: int = LANES,
    chunk_of: Callable[[Array, Array | int, int, int], Any] = lax.dynamic_slice_in_dim,
) -> tuple[Array, ...]:
    """`f` of X, shape (*batch, ...), on `step` matrices of each lane, of `most`, of its longest axis at a time.

    `f` maps what `chunk_of` makes of an array, a start, the step and an axis, by default an array of shape (.., lanes,
    step, ..; ...), to several arrays.
    """
    axis, count, length = lanes(batch, most)
    split = (*batch[:axis], count, length, *batch[axis + 1 :])
    X = X.reshape(*split, *X.shape[len(batch) :])
    if step >= length:
        return tuple(Y.reshape(*batch, *Y.shape[len(split) :]) for Y in f(chunk_of(X, 0, length, axis + 1)))
    passes = -(-length // step)

    def chunk(start):
        return f(chunk_of(X, start, step, axis + 1))

    shapes = [Y.shape[len(split) :] for Y in jax.eval_shape(chunk, 0)]
    # On the last axis of the batch a chunk of results is contiguous in each lane. An index must count them.
    joins_axis = axis == len(batch) - 1 and length * max(map(math.prod, shapes)) < PLACES

    def flat(Y, shape):
        return Y.reshape(*shape[:-1], -1) if joins_axis else Y.reshape(*shape, -1)

    def body(i, Ys):
        # The last chunk is moved back to end with the batch; what it holds twice it computes twice, alike.
        start = jnp.minimum(many(i, passes) * step, length - step)
        Zs = [flat(new, new.shape[: len(split)]) for new in chunk(start)]
        return tuple(
            lax.dynamic_update_slice_in_dim(Y, Z, start * (Z.shape[axis + 1] // step), axis + 1)
            for Y, Z in zip(Ys, Zs, strict=True)
        )

    zero = jnp.zeros_like(X.reshape(*split, -1)[..., 0])
    zero = zero if joins_axis else zero[..., None]
    start = tuple(jnp.tile(zero, (*(1,) * (zero.ndim - 1), math.prod(shape))) for shape in shapes)
    Ys = lax.fori_loop(0, passes, body, start)
    return tuple(Y.reshape(*batch, *shape) for Y, shape in zip(Ys, shapes, strict=True))


def many(i: Array, passes: int) -> Array:
    """`i`, the index of a loop, by way of a sort: XLA compiles no loop with a sort as one single-threaded kernel."""
    return lax.sort(jnp.stack([i, jnp.full_like(i, passes)]))[0]
