"""XLA_FLAGS=--xla_dump_to=FOLDER python _gpu_compiler.py FOLDER: compile for an H100 without one, print what came out.

XLA needs a description of the device and no device. The HLO says which library calls there are; the assembly of the
kernels, which XLA writes to FOLDER, says what a thread does.
"""

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _collectives import COLLECTIVES
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import jaxinv

BATCH = 100_000
SIZES = (2, 3, 5, 8)
# More matrices than a GPU has threads: XLA would give several to each. From n = 9 on in several kernels.
MANY, SIZES_OF_MANY = 2**20, (3, 8, 9, 12)
SHARDED_SIZES, SHARDED_BATCH = (4, 12, 40), 2**16  # over eight devices in auto mode: each kernel that it has on GPU
ONE_SHARDED = 4096  # rows over eight devices, of which panels are large enough for many threads on CPU
DEVICE = "NVIDIA H100 80GB HBM3"
LIMITS = {  # NVIDIA's figures for that device
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "shared_memory_per_block": 48 * 2**10,
    "shared_memory_per_block_optin": 227 * 2**10,
    "shared_memory_per_core": 228 * 2**10,
    "registers_per_core_limit": 2**16,
    "registers_per_block_limit": 2**16,
    "core_count": 132,
    "fpus_per_core": 128,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 2**16 - 1,
    "block_dim_limit_z": 2**16 - 1,
    "memory_bandwidth": 3_352_320_000_000,
    "l2_cache_size": 50 * 2**20,
    "clock_rate_ghz": 1.98,
    "device_memory_size": 80 * 2**30,
}


def gradient(X):
    return jax.grad(lambda X: jnp.sum(jaxinv.inv(X) ** 2))(X)


def jvp(X):
    return jax.jvp(jaxinv.inv, (X,), (X,))


def nested_vmap(X):
    return jax.vmap(jax.vmap(jaxinv.inv, in_axes=-1, out_axes=1))(X.reshape(-1, 10, *X.shape[1:]).transpose(0, 2, 3, 1))


FUNCTIONS: dict[str, Callable] = {
    "inv": jaxinv.inv,
    "gradient": gradient,
    "jvp": jvp,
    "nested vmap": nested_vmap,
    "inv_ex": jaxinv.inv_ex,
    "inv_logdet": jaxinv.inv_logdet,
    "positive definite": partial(jaxinv.inv, assume_a="pos"),
    "triangular": partial(jaxinv.inv, assume_a="lower triangular"),
    "builtin": jnp.linalg.inv,  # a control
}
CASES = [(name, n, "float32") for name in FUNCTIONS for n in SIZES]
CASES += [("inv", n, dtype) for n in (2, 5) for dtype in ("float64", "bfloat16", "complex64")]


def compiled(name, n, dtype, sharding, folder, batch=BATCH):
    """The optimised HLO, and the assembly of each kernel."""

    def f(X):
        return FUNCTIONS[name](X)

    f.__name__ = f"{name}_{n}_{dtype}_{batch}".replace(" ", "_")  # names the files of the assembly
    X = jax.ShapeDtypeStruct((batch, n, n), dtype)
    hlo = jax.jit(f, in_shardings=sharding, out_shardings=sharding).lower(X).compile().as_text()
    files = folder.glob(f"module_*.jit_{f.__name__}.*.ptx")
    return hlo, [text for file in files if ".entry" in (text := file.read_text())]


def summary(hlo, kernels):
    return {
        "kernels": len(kernels),
        "names": [re.search(r"\.entry (\w+)", kernel)[1] for kernel in kernels],
        "library calls": re.findall(r'custom_call_target="([^"]*)"', hlo),
        "divisions": sum(len(re.findall(r"\b(?:div|rcp)\.", kernel)) for kernel in kernels),
        "loads": [len(re.findall(r"\bld\.global", kernel)) for kernel in kernels],
        "stores": [len(re.findall(r"\bst\.global", kernel)) for kernel in kernels],
        "float64": sum(len(re.findall(r"\.f64\b", kernel)) for kernel in kernels),
    }


def main(folder):
    jax.config.update("jax_enable_x64", True)
    limits = "\n".join(f"{name}: {value}" for name, value in LIMITS.items())
    description = f"""
        gpu_device_info {{ {limits} cuda_compute_capability {{ major: 9 }} }}
        platform_name: "CUDA" device_description_str: "{DEVICE}" dnn_version_info {{ major: 9 }}
        runtime_version {{ major: 12 minor: 8 }}"""
    devices = topologies.get_topology_desc("H100", platform="cuda", target_config=description, topology="1x1x8").devices
    alone = SingleDeviceSharding(devices[0])
    found = {str(case): summary(*compiled(*case, alone, folder)) for case in CASES}
    found |= {f"many {n}": summary(*compiled("inv", n, "float32", alone, folder, MANY)) for n in SIZES_OF_MANY}
    mesh = Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))
    jax.device_count = lambda *_: len(devices)  # as where there are so many
    for n in SHARDED_SIZES:
        hlo, _ = compiled("inv", n, "float32", NamedSharding(mesh, PartitionSpec("batch")), folder, SHARDED_BATCH)
        found[f"sharded {n}"] = [word for word in COLLECTIVES if word in hlo]
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    X = jax.ShapeDtypeStruct((ONE_SHARDED, ONE_SHARDED), np.float32, sharding=rows)
    hlo = jax.jit(partial(jaxinv.inv_sharded, mesh=mesh, spec=rows.spec)).lower(X).compile().as_text()
    found["one matrix"] = re.findall(r'custom_call_target="([^"]*)"', hlo)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
