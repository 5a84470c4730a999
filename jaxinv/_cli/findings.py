"""What of a machine's facts does harm, why, and what to do. Facts are those that `doctor` collects."""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

PROBLEM, NOTE = "problem", "note"
SERIAL_LAPACK = (0, 11)  # from this jaxlib on, batched LAPACK calls cannot hang: see `_lapack`


class Finding(NamedTuple):
    """A `problem` keeps JAX or jaxinv from working; a `note` costs time or digits, or may harm other code."""

    level: str
    what: str
    why: str
    suggestion: str


def findings(facts: dict[str, Any]) -> list[Finding]:
    """All that apply, problems first."""
    found = [finding for rule in RULES for finding in rule(facts)]
    return sorted(found, key=lambda finding: finding.level != PROBLEM)


def _backend(facts: dict[str, Any]) -> Iterator[Finding]:
    if facts["backend_error"] is None:
        return
    blamed = [name for name in ("JAX_PLATFORMS", "XLA_FLAGS") if facts["settings"]["variables"].get(name)]
    what = "JAX finds no device"
    if blamed:
        yield Finding(
            PROBLEM, what, facts["backend_error"], f"Unset {' and '.join(blamed)}, or correct what it asks for."
        )
    else:
        yield Finding(
            PROBLEM, what, facts["backend_error"], "Run python -c 'import jax; jax.devices()' for the whole message."
        )


def _checks(facts: dict[str, Any]) -> Iterator[Finding]:
    for name, passed in facts["checks"].items():
        if passed is not True:
            why = passed if isinstance(passed, str) else "The answer differs from NumPy's by more than rounding."
            yield Finding(
                PROBLEM, f"the check '{name}' failed", why, "Run python -m jaxinv for every check, and report it."
            )


def _lowest(facts: dict[str, Any]) -> Iterator[Finding]:
    versions = facts["settings"]["versions"]
    for name, lowest in facts["settings"]["lowest"].items():
        if name in versions and _numbers(versions[name]) < _numbers(lowest):
            yield Finding(
                PROBLEM,
                f"{name} {versions[name]} is older than {lowest}",
                "jaxinv has not been tested with it: its derivatives may be wrong.",
                f"pip install -U '{name}>={lowest}'",
            )


def _mismatch(facts: dict[str, Any]) -> Iterator[Finding]:
    versions = facts["settings"]["versions"]
    jax, jaxlib = versions["jax"], versions["jaxlib"]
    if _numbers(jax) != _numbers(jaxlib):
        yield Finding(
            NOTE, f"jax {jax} with jaxlib {jaxlib}", "JAX is tested with the jaxlib of its own version.",
            f"pip install 'jax=={jax}' -U jaxlib",
        )  # fmt: skip
    for name, version in facts["settings"]["plugins"].items():
        if "cuda" in name and _numbers(version) != _numbers(jaxlib):  # as JAX compares them
            yield Finding(
                NOTE, f"{name} {version} with jaxlib {jaxlib}", "JAX uses no plugin of another version.",
                f"pip install '{name}=={jaxlib}'",
            )  # fmt: skip


def _hang(facts: dict[str, Any]) -> Iterator[Finding]:
    jaxlib = facts["settings"]["versions"]["jaxlib"]
    if _numbers(jaxlib)[:2] >= SERIAL_LAPACK or not facts["backend"] or facts["backend"]["platform"] != "cpu":
        return
    seen = {
        "hung": "and did so here just now",
        "came back": "but did not here just now, which proves nothing",
    }.get(facts["probe"], f"and ended here with: {facts['probe']}")
    newer = "" if _numbers(facts["settings"]["versions"]["python"]) >= (3, 12) else ", which needs Python 3.12"
    yield Finding(
        NOTE,
        f"with jaxlib {jaxlib}, two batched LAPACK calls at once can wait for each other for ever",
        f"Two batched jnp.linalg.inv in one jit can hang on few cores, {seen}. jaxinv calls LAPACK matrix by matrix "
        "and returns; batched jnp.linalg.inv, solve and their gradients of your own may not.",
        f"Install JAX 0.11 or newer{newer}; or call jnp.linalg functions on single matrices, under jax.lax.map.",
    )


def _threads(facts: dict[str, Any]) -> Iterator[Finding]:
    here = facts["settings"]
    usable, quota, blas, load = here["cpus"]["usable"], here["cpus"]["quota"], here["blas_threads"], here["load"]
    if quota is not None and quota < usable:
        yield Finding(
            NOTE,
            f"{usable} threads share a quota of {quota:g} CPUs",
            "JAX and BLAS start a thread for each CPU that they see; the quota of the container stops them in turns.",
            f"taskset -c 0-{max(1, round(quota)) - 1} python ... starts as many threads as there is time for.",
        )
    if blas is not None and blas > usable:
        yield Finding(
            NOTE, f"{blas} BLAS threads on {usable} CPUs", "LAPACK's threads wait for each other.",
            f"OPENBLAS_NUM_THREADS={usable}",
        )  # fmt: skip
    if blas is not None and blas < usable and facts["backend"] and facts["backend"]["platform"] == "cpu":
        yield Finding(
            NOTE,
            f"{blas} BLAS thread{'s' * (blas > 1)} on {usable} CPUs",
            "JAX calls SciPy's LAPACK on CPU: large single matrices are inverted on fewer cores than there are.",
            "Unset OPENBLAS_NUM_THREADS and OMP_NUM_THREADS, if single matrices of n > 500 matter.",
        )
    if load is not None and load > 1.5 * here["cpus"]["all"]:
        yield Finding(
            NOTE, f"the machine is busy: load {load:.1f} on {here['cpus']['all']} CPUs", "Timings vary.",
            "Measure when it is idle.",
        )  # fmt: skip
    if facts["backend"] and facts["backend"]["platform"] == "cpu" and facts["backend"]["devices"] > usable:
        yield Finding(
            NOTE,
            f"{facts['backend']['devices']} CPU devices on {usable} CPUs",
            "They were asked for, in XLA_FLAGS or JAX_NUM_CPU_DEVICES, and share the cores: good for tests only.",
            "Unset them to measure.",
        )


def _accelerator(facts: dict[str, Any]) -> Iterator[Finding]:
    here = facts["settings"]
    if not facts["backend"] or facts["backend"]["platform"] != "cpu":
        return
    asked = here["variables"].get("JAX_PLATFORMS")
    seen = [f"{kind} in /dev" for kind in here["accelerators"]] + [f"{name} {v}" for name, v in here["plugins"].items()]
    if not seen:
        return
    if asked:
        suggestion = f"Unset JAX_PLATFORMS, which is {asked}, if that is not wanted."
    elif not here["plugins"]:
        suggestion = "Install JAX for it: https://docs.jax.dev/en/latest/installation.html"
    else:
        suggestion = "JAX_PLATFORMS=cuda (rocm, tpu) python -c 'import jax; jax.devices()' says why."
    yield Finding(NOTE, f"JAX runs on CPU, beside {', '.join(seen)}", "Everything runs on the CPU alone.", suggestion)


def _config(facts: dict[str, Any]) -> Iterator[Finding]:
    here = facts["settings"]
    if not here["config"]["enable_x64"]:
        yield Finding(
            NOTE, "x64 is off", "JAX turns float64 arrays into float32: a condition number of 1e4 leaves three digits.",
            "JAX_ENABLE_X64=1, or jax.config.update('jax_enable_x64', True), where float64 is meant.",
        )  # fmt: skip
    if (
        facts["backend"]
        and facts["backend"]["platform"] != "cpu"
        and here["config"]["default_matmul_precision"] is None
    ):
        yield Finding(
            NOTE,
            "the default precision of matrix products may be below float32 on this device",
            "jaxinv's own products are exempt, products of your own with the inverse are not.",
            "JAX_DEFAULT_MATMUL_PRECISION=highest, or precision= of the products that matter.",
        )
    if here["config"]["disable_jit"]:
        yield Finding(
            NOTE, "jit is disabled", "Every operation runs alone: timings mean nothing.", "Unset JAX_DISABLE_JIT."
        )
    if here["config"]["debug_nans"]:
        yield Finding(
            NOTE,
            "JAX raises FloatingPointError for nan",
            "A singular matrix raises in inv and inv_logdet, where it would give inf or nan.",
            "inv_ex does not raise; or unset JAX_DEBUG_NANS.",
        )


def _numbers(version: str) -> tuple[int, ...]:
    """0.11.0.dev1 is 0.11.0."""
    dotted = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in dotted[0].split(".")) if dotted else ()


RULES: tuple[Callable[[dict[str, Any]], Iterator[Finding]], ...] = (
    _backend, _checks, _lowest, _mismatch, _hang, _threads, _accelerator, _config
)  # fmt: skip
