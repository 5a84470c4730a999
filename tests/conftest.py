"""Strict settings for every test: 64-bit types available, no silent promotion, eight devices.

OpenBLAS, which JAX calls on CPU, has its threads spin for 100 ms after use: eight devices on few cores wait for them.
"""

import gc
import os

DEVICES = 8
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={DEVICES}".strip()

import jax  # noqa: E402  (XLA reads its flags when JAX starts)
import pytest  # noqa: E402
from _limits import MEASURED, lower_limits  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
lower_limits()
gc.set_threshold(100_000, 50, 50)  # JAX keeps what it has traced: to look through all of it took 8 % of the time


def pytest_sessionstart(session):
    found = len(jax.devices("cpu"))
    if found != DEVICES:
        raise pytest.UsageError(f"the tests need {DEVICES} CPU devices, found {found}: JAX came before conftest?")


@pytest.fixture
def on_cpu():
    """For tests of CPU's own kernels, where JAX has a GPU too."""
    with jax.default_device(jax.devices("cpu")[0]):
        yield


@pytest.fixture
def measured_limits(monkeypatch):
    """The limits as they were measured, on one device."""
    for limit in MEASURED:
        monkeypatch.setattr(*limit)
    monkeypatch.setattr(jax, "device_count", lambda *_: 1)


@pytest.fixture(scope="module")
def little_optimised():
    """For tests of rules and of what users see, not of loops: XLA's programs are the same, but LLVM does little.

    JAX's cache of programs knows nothing of it: one that another module has left there rounds otherwise.
    """
    jax.clear_caches()
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
