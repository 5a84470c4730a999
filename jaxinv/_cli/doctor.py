"""`python -m jaxinv doctor`: what is installed and set here, and what of it does harm."""

import argparse
from collections.abc import Sequence
from textwrap import fill
from typing import Any

from jaxinv._cli.accuracy import LIMIT
from jaxinv._cli.check import CHECK_TIMEOUT
from jaxinv._cli.device_checks import run_check
from jaxinv._cli.environment import environment
from jaxinv._cli.findings import PROBLEM, Finding, findings
from jaxinv._cli.hang_probe import two_batched_inverses
from jaxinv._cli.output import RED, YELLOW, as_json, coloured
from jaxinv._cli.progress import with_progress
from jaxinv._cli.settings import settings
from jaxinv._cli.worker import CallFailed, NoAnswer, Worker
from jaxinv._lapack import LAPACK_BATCH_IS_SERIAL

CHECKS = ("eager", "gradient float32")  # of `device_checks`: that JAX and jaxinv work at all
PROBE_TIMEOUT = 6.0  # seconds, where it takes one, or for ever


def doctor_command(options: argparse.Namespace) -> int:
    """The exit status: 1 where JAX or jaxinv does not work here, 0 where there are at most notes."""
    facts = _facts()
    found = findings(facts)
    report = {"facts": facts, "findings": [finding._asdict() for finding in found]}
    print(as_json(report) if options.json else _text(facts, found), flush=True)
    return 1 if any(finding.level == PROBLEM for finding in found) else 0


def _facts() -> dict[str, Any]:
    """What `findings` judges. JAX's backend starts in a worker: it may hang, or take its process down."""
    facts: dict[str, Any] = {
        "settings": settings(),
        "backend": None,
        "backend_error": None,
        "checks": {},
        "probe": None,
    }
    with Worker() as worker:
        for step in with_progress(["backend", *CHECKS], 1 + len(CHECKS)):
            try:
                if step == "backend":
                    facts["backend"] = worker.call(CHECK_TIMEOUT, environment)
                else:
                    facts["checks"][step] = worker.call(CHECK_TIMEOUT, run_check, step) <= LIMIT
            except (NoAnswer, CallFailed) as failure:
                if step == "backend":
                    facts["backend_error"] = str(failure)
                    break
                facts["checks"][step] = str(failure)
        if facts["backend"] and facts["backend"]["platform"] == "cpu" and not LAPACK_BATCH_IS_SERIAL:
            facts["probe"] = _probe(worker)
    return facts


def _probe(worker: Worker) -> str:
    try:
        for _ in with_progress(["two batched inverses at once"], 1):
            worker.call(PROBE_TIMEOUT, two_batched_inverses)
    except NoAnswer:
        return "hung"
    except CallFailed as failure:
        return str(failure)
    return "came back"


def _text(facts: dict[str, Any], found: Sequence[Finding]) -> str:
    lines = [*_lines(facts), ""]
    for finding in found:
        parts = (f"{finding.level}: {finding.what}", f"  {finding.why}", f"  -> {finding.suggestion}")
        lines += [fill(part, 100, subsequent_indent="     " if "->" in part else "  ") for part in parts] + [""]
    problems = sum(finding.level == PROBLEM for finding in found)
    lines.append(f"{_count(problems, 'problem')}, {_count(len(found) - problems, 'note')}")
    return coloured("\n".join(lines), {"problem(?=:)": RED, "note(?=:)": YELLOW})


def _lines(facts: dict[str, Any]) -> list[str]:
    here, backend = facts["settings"], facts["backend"]
    values = dict(here["versions"])
    if backend:
        values["device"] = f"{backend['platform']}: {backend['device']}, {_count(backend['devices'], 'device')}"
    cpus = here["cpus"]
    values["CPU"] = here["cpu"]
    values["CPUs"] = f"{cpus['usable']} of {cpus['all']}" + (f", quota {cpus['quota']:g}" if cpus["quota"] else "")
    if here["load"] is not None:
        values["load"] = f"{here['load']:.1f}"
    if here["blas_threads"] is not None:
        values["BLAS threads"] = str(here["blas_threads"])
    values["x64"] = "on" if here["config"]["enable_x64"] else "off"
    values["precision"] = here["config"]["default_matmul_precision"] or "default"
    values |= here["plugins"]
    values |= here["variables"]
    width = max(map(len, values))
    return [f"{name.ljust(width)}  {value}" for name, value in values.items()]


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
