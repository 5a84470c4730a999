"""The table of a benchmark: a row a case."""

from collections.abc import Sequence
from typing import Any

from jaxinv._cli.bench_run import OK

COLUMNS = (
    "n", "batch", "dtype", "mode", "assume_a", "ours ns/matrix", "builtin ns/matrix", "speed-up", "quartiles",
    "x copy", "x matmul", "general / ours", "separate / ours", "torch / ours", "cupy / ours", "LAPACK / ours",
    "compile s", "temp MiB", "builtin temp MiB", "kernel",
)  # fmt: skip
OPTIONAL_RIVALS = ("general", "separate", "torch", "cupy")


def table(results: list[dict[str, Any]], columns: Sequence[str]) -> tuple[Sequence[str], list[list[str]]]:
    """Some of `COLUMNS`, and their cells for each result."""
    cells = [dict(zip(COLUMNS, _row(result), strict=True)) for result in results]
    return columns, [[row[column] for column in columns] for row in cells]


def used_columns(results: list[dict[str, Any]]) -> list[str]:
    """`COLUMNS` without those of rivals that no result has, and without `assume_a` where all are general."""
    rows = [dict(zip(COLUMNS, _row(result), strict=True)) for result in results]
    optional = [f"{rival} / ours" for rival in (*OPTIONAL_RIVALS, "LAPACK")]
    unused = {name for name in optional if all(row[name] == "-" for row in rows)}
    if all(row["assume_a"] == "general" for row in rows):
        unused.add("assume_a")
    return [name for name in COLUMNS if name not in unused]


def notes(results: list[dict[str, Any]]) -> list[str]:
    """A line for each case without a right answer."""
    return [
        f"{r['status']}: {r['batch']} x {r['n']} {r['dtype']} {r['mode']}"
        + (f", relative error {r['error']:.2g}, limit {r['error_limit']:.2g}" if "error" in r else "")
        for r in results
        if r["status"] != OK
    ]


def speed_up(result: dict[str, Any], rival: str) -> float | None:
    """The median of rival / ours over the rounds; None where there is none."""
    ratio = result["times"].get(rival, {}).get("ratio")
    return None if ratio is None else ratio[1]


def _row(result: dict[str, Any]) -> list[str]:
    times = result["times"]
    ours, builtin = times.get("ours", {}), times.get("builtin", {})
    status = result["status"]
    return [
        *(str(result[key]) for key in ("n", "batch", "dtype", "mode", "assume_a")),
        _nanoseconds(ours) if status == OK else status.partition(":")[0],
        _nanoseconds(builtin),
        _number(speed_up(result, "builtin"), "x"),
        _quartiles(builtin.get("ratio")),
        _number(_inverse(speed_up(result, "copy"))),
        _number(_inverse(speed_up(result, "matmul"))),
        *(_number(speed_up(result, rival)) for rival in OPTIONAL_RIVALS),
        _number(min((r for r in (speed_up(result, "scipy"), speed_up(result, "getri")) if r), default=None)),
        _number(ours.get("compile_seconds")),
        _mebibytes(ours.get("temp_bytes")),
        _mebibytes(builtin.get("temp_bytes")),
        result.get("kernel") or "-",
    ]


def _nanoseconds(times: dict[str, Any]) -> str:
    if "seconds_per_matrix" not in times:
        return times.get("status", "-").partition(":")[0]
    return _number(times["seconds_per_matrix"] * 1e9)


def _number(x: float | None, unit: str = "") -> str:
    """Three digits, without an exponent."""
    if x is None:
        return "-"
    return (f"{x:.3g}" if 1e-3 <= x < 100 else f"{float(f'{x:.3g}'):,.0f}") + unit


def _quartiles(ratio: list[float] | None) -> str:
    return f"{_number(ratio[0])} .. {_number(ratio[2])}" if ratio else "-"


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.1f}"


def _inverse(ratio: float | None) -> float | None:
    return 1 / ratio if ratio else None
