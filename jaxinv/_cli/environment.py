"""What a measurement was made with: versions, device, threads, date."""

import datetime
import os
import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np

import jaxinv


def environment() -> dict[str, Any]:
    """Versions, device, processor, threads and date, ready for JSON. Starts JAX's backend."""
    device = jax.devices()[0]
    return {
        "versions": versions(),
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpu": cpu_model(),
        "threads": thread_count(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Those of jaxinv and what it computes with, of rivals where they are installed, and of Python."""
    return {
        "jaxinv": jaxinv.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        **_optional_versions("scipy", "torch"),
    }


def headline(env: dict[str, Any]) -> str:
    """The first line of a report."""
    versions = ", ".join(f"{name} {version}" for name, version in env["versions"].items())
    device = env["cpu"] if env["platform"] == "cpu" else f"{env['device']} ({env['cpu']})"
    return f"{versions} | {env['platform']}: {device}, {env['threads']} threads, {env['date'][:10]}"


def thread_count() -> int:
    """The processors that this process may use, as many as JAX's threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _optional_versions(*names: str) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in names if find_spec(name)}


def cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
