"""What is known of arrays when a kernel is chosen for them: their sizes, which may be symbolic, and their shards."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jax
from jax import Array
from jax.sharding import PartitionSpec


def at_most(size: Any, limit: int) -> bool:
    """Whether a size is known, and no larger than the limit."""
    return isinstance(size, int) and size <= limit


def device_count() -> int:
    """Devices over which an array may be spread, at most: those of JAX's platform, or of CPU where it has more."""
    with suppress(RuntimeError):  # JAX was told to do without CPU
        return max(jax.device_count(), jax.device_count("cpu"))
    return jax.device_count()


def on_shards(kernel: Callable, *operands: Array, drop: Any = 0) -> Any:
    """`kernel` on each shard of a batch whose sharding is part of its type (explicit mode), else as it is.

    Its result, or each of several, lacks the last `drop` axes of the operands.
    """
    sharding = jax.typeof(operands[0]).sharding
    if all(axis is None for axis in sharding.spec):
        return kernel(*operands)
    axes = {name for axis in sharding.spec if axis for name in (axis if isinstance(axis, tuple) else (axis,))}
    specs = (sharding.spec,) * len(operands)
    out_specs = jax.tree.map(lambda d: PartitionSpec(*sharding.spec[: len(sharding.spec) - d]), drop)
    per_shard = jax.shard_map(kernel, mesh=sharding.mesh, in_specs=specs, out_specs=out_specs, axis_names=axes)
    return per_shard(*operands)
