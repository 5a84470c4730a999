"""What a process finds before JAX's backend starts: versions, CPUs, threads, variables, GPUs."""

import os
import re
from importlib.metadata import PackageNotFoundError, distributions, requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from jaxinv._cli.environment import cpu_model, thread_count, versions

# Of the environment: what JAX, XLA, BLAS and the drivers of GPUs read.
PREFIXES = ("JAX_", "XLA_", "OMP_", "OPENBLAS_", "MKL_", "GOTO_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_")
CONFIG = ("enable_x64", "default_matmul_precision", "debug_nans", "disable_jit")  # of `jax.config`
DEVICE_FILES = {"nvidia[0-9]*": "NVIDIA GPU", "kfd": "AMD GPU", "accel[0-9]*": "TPU"}


def settings() -> dict[str, Any]:
    """Everything, ready for JSON."""
    return {
        "versions": versions(),
        "lowest": _lowest(),
        "cpu": cpu_model(),
        "cpus": {"usable": thread_count(), "all": os.cpu_count() or 1, "quota": cpu_quota(Path("/sys/fs/cgroup"))},
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "blas_threads": _blas_threads(),
        "config": {name: getattr(jax.config, f"jax_{name}") for name in CONFIG},
        "variables": {name: os.environ[name] for name in sorted(os.environ) if name.startswith(PREFIXES)},
        "accelerators": accelerators(Path("/dev")),
        "plugins": _plugins(),
    }


def cpu_quota(cgroup: Path) -> float | None:
    """How many CPUs' worth of time this control group (a container's, say) has; None where there is no limit."""
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{part}_us").read_text() for part in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no control groups, or "max"
        return None


def accelerators(devices: Path) -> list[str]:
    """The kinds of accelerators that have a device file."""
    return [kind for pattern, kind in DEVICE_FILES.items() if any(devices.glob(pattern))]


def _plugins() -> dict[str, str]:
    """The installed packages that bring JAX to another platform."""
    names = {d.name: d.version for d in distributions() if d.name}
    found = {name.lower().replace("_", "-"): version for name, version in names.items()}
    return {name: v for name, v in sorted(found.items()) if re.fullmatch(r"jax-.*-plugin|libtpu", name)}


def _lowest() -> dict[str, str]:
    """The lowest versions that this jaxinv declares; none where it is not installed."""
    try:
        pairs = [line.partition(">=") for line in requires("jaxinv") or () if ";" not in line]
    except PackageNotFoundError:
        return {}
    return {name: version for name, _, version in pairs}


def _blas_threads() -> int | None:
    """Those of SciPy's BLAS, which JAX calls on CPU, where threadpoolctl is there to ask."""
    if not (find_spec("threadpoolctl") and find_spec("scipy")):
        return None
    import scipy.linalg  # noqa: F401  (loads the library that is asked for)
    from threadpoolctl import threadpool_info

    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    ours = [pool for pool in pools if "scipy.libs" in pool["filepath"] or len(pools) == 1]
    return ours[0]["num_threads"] if ours else None
