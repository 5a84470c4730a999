"""The command line: `python -m jaxinv` checks this device, `python -m jaxinv bench` measures it.

Reports go to standard output, progress to standard error. Exit status: 0; 1 if an answer is wrong or missing; 2 for a
wrong option; 130 after Ctrl-C, which reports what was measured until then.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import jaxinv
from jaxinv._cli.bench import bench_command
from jaxinv._cli.bench_cases import DTYPES, MODES, PRESETS, STRUCTURES
from jaxinv._cli.bench_rivals import RIVALS
from jaxinv._cli.check import check_command

COMMANDS = ("check", "bench")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of the command that the arguments name; those of the process by default."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] not in (*COMMANDS, "-h", "--help", "--version"):
        arguments = ["check", *arguments]
    options = _parser().parse_args(arguments)
    return options.command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jaxinv", description="The matrix inverse for JAX, on this device.")
    parser.add_argument("--version", action="version", version=f"jaxinv {jaxinv.__version__}")
    commands = parser.add_subparsers(title="commands")

    check = commands.add_parser(
        "check", help="check accuracy, derivatives, speed in 30 s (the default)", description=check_command.__doc__
    )
    check.add_argument("--json", action="store_true", help="print JSON instead of a table")
    check.add_argument("--no-timing", action="store_true", help="leave out the timing against jnp.linalg.inv")
    check.set_defaults(command=check_command)

    bench = commands.add_parser(
        "bench", help="measure sizes, batches and dtypes against rivals", description=bench_command.__doc__
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
    bench.add_argument("--dtype", nargs="+", choices=DTYPES, default=["float32"], help="default: float32")
    bench.add_argument(
        "--mode", nargs="+", choices=MODES, default=["forward", "gradient"], help="default: forward gradient"
    )
    bench.add_argument(
        "--assume-a", nargs="+", choices=STRUCTURES, default=["general"], help="structure (default: general)"
    )
    bench.add_argument(
        "--rivals", nargs="*", choices=RIVALS, default=list(RIVALS), help="default: all that are installed"
    )
    bench.add_argument("--quick", action="store_true", help="a tenth of each batch, 3 rounds")
    bench.add_argument("--repeats", type=_positive, metavar="R", help="rounds of timing (default: 7)")
    bench.add_argument(
        "--timeout", type=float, default=120.0, metavar="S", help="seconds for a case and rival (default: 120)"
    )
    bench.add_argument("--json", type=_new_file, metavar="FILE", dest="json_file", help="write everything measured")
    bench.add_argument("--markdown", type=_new_file, metavar="FILE", help="write the table as Markdown")
    bench.add_argument("--plot", type=_plot_file, metavar="FILE", help="write a plot; needs matplotlib")
    bench.set_defaults(command=bench_command)
    return parser


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
