"""`notebooks/several_processes.py`: processes of their own, over loopback, and one that dies."""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import jaxinv

SCRIPT = Path(__file__).parents[1] / "notebooks" / "several_processes.py"
sys.path.append(str(SCRIPT.parent))
from several_processes import HEARTBEAT, STARTUP, entries  # noqa: E402

N = 200


def environment(**more):
    ours = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return ours | {"PYTHONPATH": str(Path(jaxinv.__file__).parents[1]), "JAX_PLATFORMS": "cpu"} | more


@pytest.mark.parametrize(
    "processes", [pytest.param(2, marks=pytest.mark.later), pytest.param(4, marks=pytest.mark.long)]
)
def test_inverse_and_gradient_are_those_of_one_process(processes, tmp_path):
    command = [sys.executable, SCRIPT, str(processes), "--n", str(N)]
    done = subprocess.run(
        command, env=environment(SAVE_TO=str(tmp_path)), capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(f"holds {N * N // processes} of {N * N} entries") == processes
    X = entries(N, np.s_[:, :])
    Y = np.linalg.inv(X)
    for name, want in {"Y": Y, "X_bar": -Y.T @ (2 * Y) @ Y.T}.items():
        parts = [np.load(file) for file in sorted(tmp_path.glob(f"{name}-*.npy"))]
        assert len(parts) == processes
        np.testing.assert_allclose(np.concatenate(parts, axis=1), want, rtol=0, atol=1e-13 * np.abs(want).max())
    losses = {float(loss) for loss in re.findall(r"loss ([0-9.]+)", done.stdout)}
    np.testing.assert_allclose(list(losses), np.sum(Y**2), rtol=1e-11)


@pytest.mark.parametrize(
    "dies", [pytest.param(0, id="coordinator"), pytest.param(1, id="other", marks=pytest.mark.long)]
)
def test_processes_end_with_an_error_when_one_dies(dies):
    """Of themselves, without the script's own `main`, which stops them at once."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    command = [sys.executable, SCRIPT, "2", "--n", str(N), "--worker", address]
    start = time.monotonic()
    running = [
        subprocess.Popen([*command, str(i)], env=environment(DIE_IN_PROCESS=str(dies)), stderr=subprocess.DEVNULL)
        for i in range(2)
    ]
    try:
        codes = [process.wait(STARTUP + 2 * HEARTBEAT) for process in running]
    finally:
        for process in running:
            process.kill()
    assert 0 not in codes
    assert time.monotonic() - start < STARTUP + 2 * HEARTBEAT


def test_sizes_that_do_not_fit_are_refused():
    done = subprocess.run([sys.executable, SCRIPT, "2", "--n", "3"], capture_output=True, text=True, check=False)
    assert "--n must be a multiple of the number of processes, 2, got 3" in done.stderr
