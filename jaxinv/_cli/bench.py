"""`python -m jaxinv bench`: a sweep over sizes, batches, dtypes and modes."""

import argparse
from typing import Any

from jaxinv._cli.bench_cases import Case, preset, product
from jaxinv._cli.bench_plot import save_plot
from jaxinv._cli.bench_report import notes, table, used_columns
from jaxinv._cli.bench_run import FAILED, run_case
from jaxinv._cli.check import INTERRUPTED
from jaxinv._cli.environment import environment, headline
from jaxinv._cli.output import BELOW_ONE, RED, YELLOW, as_json, coloured, markdown_table, text_table
from jaxinv._cli.progress import with_progress
from jaxinv._cli.worker import Worker

EXPLANATION = """\
ours, builtin: medians over the rounds; speed-up: the median of builtin / ours in each round, with its quartiles;
x copy, x matmul: ours in units of a copy of the same bytes and of one matmul of the batch at HIGHEST precision;
general / ours, separate / ours: with assume_a against without, inv_logdet against inv and jnp.linalg.slogdet;
torch / ours, cupy / ours, LAPACK / ours: as speed-up; LAPACK: the faster of scipy.linalg.inv and getrf + getri;
compile s: lowering and compiling ours; temp MiB: temporary memory of the compiled call;
no answer: not within the time limit."""


def bench_command(options: argparse.Namespace) -> int:
    """The exit status of a sweep: for each case first the answer, then the time, in turns and in one process."""
    cases = _cases(options)
    repeats = options.repeats or (3 if options.quick else 7)
    report: dict[str, Any] = {"environment": None, "repeats": repeats, "results": [], "interrupted": False}
    try:
        with Worker() as worker:
            report["environment"] = worker.call(options.timeout, environment)
            for case in with_progress(cases, len(cases)):
                report["results"].append(
                    run_case(
                        worker,
                        case,
                        options.rivals,
                        repeats=repeats,
                        timeout=options.timeout,
                        rival_timeout=options.timeout,
                    )
                )
    except KeyboardInterrupt:
        report["interrupted"] = True
    _write(options, report)
    return INTERRUPTED if report["interrupted"] else 1 if notes(report["results"]) else 0


def _cases(options: argparse.Namespace) -> list[Case]:
    if options.n:
        cases = product(options.n, options.batch, options.dtype, options.mode)
    else:
        cases = preset(options.preset, options.dtype, options.mode)
    cases = [case._replace(assume_a=structure) for case in cases for structure in options.assume_a]
    return [case._replace(batch=max(1, case.batch // 10)) for case in cases] if options.quick else cases


def _write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    results = report["results"]
    first_line = headline(report["environment"]) if report["environment"] else "interrupted before the start"
    last_lines = notes(results) + ([f"interrupted after {len(results)} cases"] if report["interrupted"] else [])
    headers, rows = table(results, used_columns(results))
    text, markdown = (
        "\n\n".join([first_line, layout(headers, rows), EXPLANATION, *last_lines])
        for layout in (text_table, markdown_table)
    )
    print(coloured(text, {FAILED: RED, BELOW_ONE: YELLOW}), flush=True)
    if options.json_file:
        options.json_file.write_text(as_json(report) + "\n")
    if options.markdown:
        options.markdown.write_text(markdown + "\n")
    if options.plot and results:
        save_plot(options.plot, results, first_line)
