"""`python -m jaxinv`: does the inverse work on this device, and how fast is it?"""

import argparse
import time
from typing import Any

from jaxinv._cli.accuracy import LIMIT
from jaxinv._cli.bench_cases import Case
from jaxinv._cli.bench_report import notes, table
from jaxinv._cli.bench_run import FAILED, OK, failure_status, run_case
from jaxinv._cli.device_checks import CHECKS, run_check
from jaxinv._cli.environment import environment, headline
from jaxinv._cli.output import BELOW_ONE, GREEN, RED, YELLOW, as_json, coloured, text_table
from jaxinv._cli.progress import with_progress
from jaxinv._cli.worker import CallFailed, NoAnswer, Worker

INTERRUPTED = 130
CHECK_TIMEOUT = 60.0  # seconds, where the slowest check takes two
BUILTIN_TIMEOUT = 6.0  # seconds, where it takes one, or for ever
REPEATS = 5
TIMED = (
    Case(2, 100000, "float32", "forward"),
    Case(3, 100000, "float32", "gradient"),
    Case(4, 50000, "float32", "forward"),
    Case(16, 2000, "float32", "gradient"),
    Case(64, 100, "float32", "forward"),
    Case(256, 1, "float32", "gradient"),
)
TIMING_COLUMNS = ("n", "batch", "dtype", "mode", "ours ns/matrix", "builtin ns/matrix", "speed-up", "quartiles")


def check_command(options: argparse.Namespace) -> int:
    """The exit status of accuracy and derivatives against NumPy in float64, and the speed beside jnp.linalg.inv."""
    start = time.monotonic()
    report: dict[str, Any] = {"environment": None, "checks": [], "timings": [], "interrupted": False}
    steps: list[str | Case] = [*CHECKS, *([] if options.no_timing else TIMED)]
    try:
        with Worker() as worker:
            report["environment"] = worker.call(CHECK_TIMEOUT, environment)
            for step in with_progress(steps, len(steps)):
                if isinstance(step, Case):
                    report["timings"].append(_timing(worker, step))
                else:
                    report["checks"].append(_check(worker, step))
    except KeyboardInterrupt:
        report["interrupted"] = True
    report["seconds"] = round(time.monotonic() - start, 1)
    failed = [c["name"] for c in report["checks"] if c["status"] != OK] + notes(report["timings"])
    print(as_json(report) if options.json else _text(report, failed), flush=True)
    return INTERRUPTED if report["interrupted"] else 1 if failed else 0


def _check(worker: Worker, name: str) -> dict[str, Any]:
    try:
        ratio = worker.call(CHECK_TIMEOUT, run_check, name)
    except (NoAnswer, CallFailed) as failure:
        return {"name": name, "ratio": None, "limit": LIMIT, "status": failure_status(failure)}
    return {"name": name, "ratio": ratio, "limit": LIMIT, "status": OK if ratio <= LIMIT else FAILED}


def _timing(worker: Worker, case: Case) -> dict[str, Any]:
    return run_case(worker, case, ["builtin"], repeats=REPEATS, timeout=CHECK_TIMEOUT, rival_timeout=BUILTIN_TIMEOUT)


def _text(report: dict[str, Any], failed: list[str]) -> str:
    parts = []
    if report["environment"]:
        parts.append(headline(report["environment"]))
    if report["checks"]:
        cells = [[c["name"], _ratio(c["ratio"]), f"{c['limit']:g}", c["status"]] for c in report["checks"]]
        parts.append(text_table(("check", "error / rounding", "limit", "result"), cells))
    if report["timings"]:
        parts.append(text_table(*table(report["timings"], TIMING_COLUMNS)))
    parts.append(_verdict(report, failed))
    return coloured("\n\n".join(parts), {OK: GREEN, FAILED: RED, "failed": RED, BELOW_ONE: YELLOW})


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}" if ratio < 1000 else f"{ratio:.1e}"


def _verdict(report: dict[str, Any], failed: list[str]) -> str:
    ran = f"{len(report['checks'])} checks and {len(report['timings'])} timings in {report['seconds']:.0f} s"
    if failed:
        return f"{len(failed)} failed of {ran}:\n" + "\n".join(f"  {line}" for line in failed)
    return f"{ran}, interrupted" if report["interrupted"] else f"{ran}, all is well"
