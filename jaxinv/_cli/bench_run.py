"""The measurement of a case in a worker process, which a rival that hangs takes down alone."""

import time
from collections.abc import Sequence
from typing import Any

from jaxinv._cli.bench_cases import Case
from jaxinv._cli.bench_measure import measure
from jaxinv._cli.worker import CallFailed, NoAnswer, Worker

OK, FAILED, NO_ANSWER, CRASHED = "ok", "FAILED", "no answer", "crashed"

# A group is one call with a time limit to itself, and ours is timed in each: the first decides whether ours is right,
# the builtin comes last since it may hang.
GROUPS = (("copy", "matmul", "general", "separate"), ("torch", "cupy", "lapack"), ("builtin",))


def run_case(
    worker: Worker, case: Case, rivals: Sequence[str], *, repeats: int, timeout: float, rival_timeout: float
) -> dict[str, Any]:
    """The case, what `measure` says of it, and a `status`.

    Ours has `timeout` seconds. A later group has `rival_timeout`, and as many more as ours took: a slow inverse of ours
    is not to make a rival look as if it hung.

    `status` is that of ours: "ok", "FAILED" for a wrong answer, "no answer", or "crashed: ..."; a rival that gave no
    time has an entry `{"status": ...}` under `times`. The time of ours is from the last group that answered.
    """
    result: dict[str, Any] = {**case._asdict(), "status": OK, "times": {}}
    limit = timeout
    for i, group in enumerate(GROUPS):
        wanted = [name for name in group if name in rivals]
        if i and not wanted:
            continue
        try:
            start = time.monotonic()
            measured = worker.call(limit, measure, case, wanted, repeats)
            if i == 0:
                limit = rival_timeout + time.monotonic() - start
        except (NoAnswer, CallFailed) as failure:
            if i == 0:
                return result | {"status": failure_status(failure)}
            result["times"] |= {name: {"status": failure_status(failure)} for name in wanted}
            continue
        times = measured.pop("times", None)
        result |= measured
        if times is None:
            return result | {"status": FAILED}
        result["times"] |= times
    return result


def failure_status(failure: NoAnswer | CallFailed) -> str:
    return NO_ANSWER if isinstance(failure, NoAnswer) else f"{CRASHED}: {failure}"
