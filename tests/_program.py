"""`python -m jaxinv` in a process of its own, as it is or with something in it changed."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import jaxinv

# The program's worker process imports the script once more, so that a change reaches it too.
SCRIPT = """
import os, signal, sys, time
import jax, jax.numpy as jnp
import jaxinv
from jaxinv._cli import check, device_checks, main
{change}
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main.main())
"""


def changed(directory, change):
    """The command that runs the program with a change, Python statements."""
    script = directory / "changed.py"
    script.write_text(SCRIPT.format(change=textwrap.dedent(change)))
    return [sys.executable, str(script)]


def run(command):
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment())


def environment():
    """That of the tests, without their eight devices, and where a script anywhere finds the package.

    What is tested is output and not speed, so that LLVM may do little.
    """
    ours = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return ours | {"PYTHONPATH": str(Path(jaxinv.__file__).parents[1]), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
