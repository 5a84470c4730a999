"""The command line: `python -m jaxinv` checks this device, `bench` measures it, `doctor` looks for what does harm.

Reports go to standard output, progress to standard error.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jaxinv
from jaxinv._cli.bench import bench_command
from jaxinv._cli.bench_cases import DTYPES, MODES, PRESETS, STRUCTURES
from jaxinv._cli.bench_rivals import RIVALS
from jaxinv._cli.check import INTERRUPTED, check_command
from jaxinv._cli.doctor import doctor_command

COMMANDS = ("check", "bench", "doctor")

PROGRAM = """\
The matrix inverse for JAX, on this device. Without a command: check.
"""
PROGRAM_EPILOG = """\
examples:
  python -m jaxinv                   is all well here?
  python -m jaxinv doctor            what is set here, and what of it does harm?
  python -m jaxinv bench --quick     how fast is it? in a minute or two
  python -m jaxinv bench --help      the options of a command

exit status:
  0    all is well
  1    an answer is wrong or missing, or there is a problem
  2    wrong option
  130  Ctrl-C; what was measured until then is reported

Results go to standard output, progress to standard error. Colours appear on
a terminal, unless NO_COLOR is set.
"""
CHECK = """\
Check accuracy, derivatives and transformations on this device against NumPy
in float64, and time a few sizes beside jnp.linalg.inv. In half a minute.
"""
CHECK_EPILOG = """\
examples:
  python -m jaxinv
  python -m jaxinv check --no-timing
  python -m jaxinv check --json > check.json
  JAX_PLATFORMS=cpu python -m jaxinv     on the CPU, beside a GPU
"""
BENCH = """\
Time jaxinv.inv, its gradient and its jvp beside jnp.linalg.inv, a copy, a
matrix product, PyTorch and LAPACK. Each answer is checked before it is timed.
All run in turns in one process; ratios are medians over the rounds.
"""
BENCH_EPILOG = """\
examples:
  python -m jaxinv bench --quick
  python -m jaxinv bench --n 3 --batch 1000 100000 --dtype float32 float64
  python -m jaxinv bench --preset mid --mode gradient --rivals builtin
  python -m jaxinv bench --json bench.json --markdown table.md --plot plot.png

Ctrl-C ends it: what was measured until then is printed and written.
"""
DOCTOR = """\
Print versions, device, CPUs, threads and settings, and what of them does
harm: a problem keeps JAX or jaxinv from working, a note costs time or digits,
or can harm other code. Each comes with what to do.
"""
DOCTOR_EPILOG = """\
examples:
  python -m jaxinv doctor
  python -m jaxinv doctor --json

exit status: 1 if there is a problem, 0 if there are notes alone
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of the command that the arguments name; those of the process by default."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] not in (*COMMANDS, "-h", "--help", "--version"):
        arguments = ["check", *arguments]
    parser_of = parsers()
    options = parser_of["jaxinv"].parse_args(arguments)
    if options.command is bench_command and options.batch and not options.n:
        parser_of["bench"].error("argument --batch: needs --n, since a preset has its own batches")
    try:
        return options.command(options)
    except KeyboardInterrupt:  # of doctor, or a second one while a report is written
        return INTERRUPTED


def parsers() -> dict[str, argparse.ArgumentParser]:
    """That of the program, under "jaxinv", and those of its commands."""
    raw: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    parser = argparse.ArgumentParser(prog="python -m jaxinv", description=PROGRAM, epilog=PROGRAM_EPILOG, **raw)
    parser.add_argument("--version", action="version", version=f"jaxinv {jaxinv.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="command")

    check = commands.add_parser(
        "check", help="accuracy, derivatives and speed (the default)", description=CHECK, epilog=CHECK_EPILOG, **raw
    )
    check.add_argument("--json", action="store_true", help="print JSON instead of a table")
    check.add_argument("--no-timing", action="store_true", help="leave out the timing against jnp.linalg.inv")
    check.set_defaults(command=check_command)

    bench = commands.add_parser(
        "bench", help="time sizes, batches and dtypes against rivals", description=BENCH, epilog=BENCH_EPILOG, **raw
    )
    bench.add_argument(
        "--preset",
        choices=PRESETS,
        default="small",
        help="n = 2..16, 17..4096, 2..128 in batches of 256 MiB, or all (default: small)",
    )
    bench.add_argument("--n", nargs="+", type=_positive, metavar="N", help="these sizes instead of a preset")
    bench.add_argument(
        "--batch", nargs="+", type=_positive, metavar="B", help="batches for --n (default: 4 MiB of them)"
    )
    _choices(bench, "--dtype", DTYPES, ["float32"])
    _choices(bench, "--mode", MODES, ["forward", "gradient"])
    _choices(bench, "--assume-a", STRUCTURES, ["general"])
    _choices(bench, "--rivals", RIVALS, list(RIVALS))
    bench.add_argument("--quick", action="store_true", help="a tenth of each batch, 3 rounds")
    bench.add_argument("--repeats", type=_positive, metavar="R", help="rounds of timing (default: 7)")
    bench.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds for a case and rival (default: 120)"
    )
    bench.add_argument("--json", type=_new_file, metavar="FILE", dest="json_file", help="write everything measured")
    bench.add_argument("--markdown", type=_new_file, metavar="FILE", help="write the table as Markdown")
    bench.add_argument("--plot", type=_plot_file, metavar="FILE", help="write a plot; needs matplotlib")
    bench.set_defaults(command=bench_command)

    doctor = commands.add_parser(
        "doctor", help="versions, settings and known problems", description=DOCTOR, epilog=DOCTOR_EPILOG, **raw
    )
    doctor.add_argument("--json", action="store_true", help="print JSON instead of text")
    doctor.set_defaults(command=doctor_command)
    return {"jaxinv": parser, **commands.choices}


def _choices(parser: argparse.ArgumentParser, option: str, choices: Sequence[str], default: list[str]) -> None:
    said = "all that are installed" if len(default) == len(choices) else " ".join(default)
    parser.add_argument(
        option,
        nargs="*" if option == "--rivals" else "+",
        choices=choices,
        default=default,
        metavar=option.lstrip("-").upper(),
        help=f"of {', '.join(choices)} (default: {said})",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def _new_file(text: str) -> Path:
    path = Path(text)
    if not path.parent.is_dir():  # said now, not after the measurement
        raise argparse.ArgumentTypeError(f"there is no directory {path.parent}")
    return path


def _plot_file(text: str) -> Path:
    if not find_spec("matplotlib"):
        raise argparse.ArgumentTypeError("needs matplotlib, which is not installed: pip install 'jaxinv[bench]'")
    return _new_file(text)
