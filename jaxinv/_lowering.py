"""What is known where a kernel is chosen: the platform, sizes of arrays, which may be symbolic, and their shards."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import PartitionSpec

OWN = ("cpu", "tpu")  # platforms with kernels of their own


def lower_by(primitive: Primitive, kernel: Callable) -> None:
    """Make `kernel` the lowering of `primitive`: with platform="cpu", "tpu" or, for every other platform, "gpu".

    Only the platforms that a program is compiled for are traced. `lax.platform_dependent` would trace all. A kernel
    must not `jit` what is lowered by platform: in a program for several, JAX lowers what is jitted once.
    """

    def lowering(platform):
        return mlir.lower_fun(partial(kernel, platform=platform), multiple_results=primitive.multiple_results)

    def at_once(*args, **params):  # under `jax.disable_jit`
        (platform,) = {device.platform for device in jnp.asarray(args[0]).devices()}
        return kernel(*args, **params, platform=platform if platform in OWN else "gpu")

    mlir.register_lowering(primitive, lowering("gpu"))
    for platform in OWN:
        mlir.register_lowering(primitive, lowering(platform), platform=platform)
    primitive.def_impl(at_once)


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
