"""What XLA makes of small matrices for a GPU: how many kernels, and whether one computes anything twice.

Compiled for an H100, in a process of its own; no GPU is needed, but JAX's CUDA plugin is: `pip install
"jax[cuda12-local]"` (`.ci/run gpu` does so). How long it takes on the device is not to be seen here.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from _gpu_compiler import CASES, SHARDED_SIZES, SIZES, SIZES_OF_MANY

import jaxinv
from jaxinv import _gauss_jordan, _panels

PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")
if not any(map(importlib.util.find_spec, PLUGINS)):
    pytest.skip("needs JAX's CUDA plugin: pip install 'jax[cuda12-local]'", allow_module_level=True)

pytestmark = pytest.mark.xdist_group("compiled for gpu")  # one compilation serves all


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    folder, program = tmp_path_factory.mktemp("kernels"), Path(__file__).with_name("_gpu_compiler.py")
    package = str(Path(jaxinv.__file__).parents[1])
    settings = {"XLA_FLAGS": f"--xla_dump_to={folder}", "JAX_PLATFORMS": "cpu", "PYTHONPATH": package}
    command = [sys.executable, program, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=os.environ | settings, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def divisions(name, n, dtype):
    """Those of one inverse: n (n - 1) / 2 multipliers and n reciprocals."""
    if dtype == "complex64":
        return 2 * n  # of real numbers, for each reciprocal
    reciprocals_alone = name in ("positive definite", "triangular") and n > 2  # at n = 2 one of the two stands twice
    more = name == "inv_ex" or (name == "inv_logdet" and n == 2)  # 1 / (norms); the multiplier, for the determinant too
    return (n if reciprocals_alone else n * (n + 1) // 2) + more


@pytest.mark.parametrize("case", [case for case in CASES if case[0] != "builtin"], ids=str)
def test_small_matrices_need_no_library_and_are_inverted_once(compiled, case):
    found = compiled[str(case)]
    assert not found["library calls"]
    assert found["divisions"] == divisions(*case), "the inverse is computed more than once, or never"
    assert found["float64"] == 0 or case[2] == "float64"


@pytest.mark.parametrize("n", SIZES)
def test_inverse_is_one_kernel_and_its_stacking(compiled, n):
    found = compiled[str(("inv", n, "float32"))]
    assert found["kernels"] == (1 if n == 2 else 2)
    if n == 2:  # sixteen bytes in, sixteen out: as a copy does
        assert found["loads"] == found["stores"] == [1]
    else:  # each entry written once by the one, and no entry computed by the other
        assert max(found["stores"]) == n * n
        assert any("transpose" in name for name in found["names"]), "stacked by branches: n = 8 takes twice as long"


@pytest.mark.parametrize("n", SIZES_OF_MANY)
def test_a_thread_inverts_one_matrix_of_many(compiled, n):
    """The registers of a thread do not hold four of n = 8."""
    found, is_one_kernel = compiled[f"many {n}"], n < 9
    assert not found["library calls"]
    assert found["divisions"] == (n * (n + 1) // 2 if is_one_kernel else n * n)
    eliminations = sum("reduce_window" in name for name in found["names"])
    assert eliminations == (1 if is_one_kernel else len(_gauss_jordan._steps_of_kernels(n, False)))
    assert found["kernels"] <= eliminations + (1 if n < 10 else 3), "more than stacks and joins the rows"


@pytest.mark.parametrize("name", ["gradient", "jvp"])
@pytest.mark.parametrize("n", SIZES)
def test_derivatives_are_few_kernels(compiled, name, n):
    """The inverse in one or two, and no more than four of products, copies and what is summed."""
    found = compiled[str((name, n, "float32"))]
    assert found["kernels"] <= 6
    assert sum("transpose" in name for name in found["names"]) <= (n > 2) + (n > 4), "the inverse is stacked twice"


@pytest.mark.parametrize("n", SHARDED_SIZES)
def test_sharded_batch_does_not_communicate(compiled, n):
    assert not compiled[f"sharded {n}"]


def test_each_panel_of_a_sharded_matrix_is_one_call_of_the_library(compiled):
    """Halves of its columns, and a few of a right-hand side at a time, are for the threads of CPU's LAPACK."""
    calls = [call for call in compiled["one matrix"] if "getrf" in call or "triangularSolve" in call]
    stages = _panels.STAGES
    assert sum("getrf" in call for call in calls) == stages
    assert len(calls) == 3 * stages  # two inverses of blocks on the diagonal


def test_control_library_calls_of_the_builtin_are_seen(compiled):
    for n in SIZES:
        assert compiled[str(("builtin", n, "float32"))]["library calls"]
