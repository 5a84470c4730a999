"""`python -m jaxinv bench`: cases, measurement, rivals that hang, reports."""

import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from _program import changed, run

import jaxinv
from jaxinv import _kernels, _products
from jaxinv._cli import bench_measure
from jaxinv._cli.bench_cases import FULL_BYTES, MODES, Case, preset, product
from jaxinv._cli.bench_measure import measure
from jaxinv._cli.bench_plot import lines, save_plot
from jaxinv._cli.bench_report import COLUMNS, notes, table
from jaxinv._cli.bench_rivals import Contender, cupy_contender
from jaxinv._cli.bench_run import FAILED, run_case
from jaxinv._cli.worker import CallFailed, NoAnswer, Worker

sys.path.append(str(Path(__file__).parents[1] / "notebooks"))
import limits

IN_CI = bool(os.environ.get("CI"))  # where a missing package fails its test
HANG = """
def hang(a):
    time.sleep(1000)
jnp.linalg.inv = hang
"""


@pytest.fixture(autouse=True)
def restored_config(monkeypatch):
    """A measurement sets the precision of its process. Nobody reads the times of these: they need no quiet."""
    monkeypatch.setattr(bench_measure, "SETTLE_SECONDS", 0)
    x64, cache = jax.config.jax_enable_x64, jax.config.jax_enable_compilation_cache
    yield
    bench_measure._prepare.cache_clear()
    jax.config.update("jax_enable_x64", x64)
    jax.config.update("jax_enable_compilation_cache", cache)


def bench(tmp_path, change, *arguments):
    return run([*changed(tmp_path, change), "bench", *arguments])


@pytest.mark.later
def test_bench_writes_table_json_and_markdown(tmp_path):
    json_file, markdown = tmp_path / "bench.json", tmp_path / "bench.md"
    rivals = ["--rivals", "builtin", "copy", "matmul"]
    files = ["--json", str(json_file), "--markdown", str(markdown)]
    result = bench(tmp_path, "", "--n", "2", "--batch", "50", "--quick", *rivals, *files)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "jaxlib" in result.stdout.splitlines()[0]
    assert "[2/2] 5 x 2 float32 gradient, " in result.stderr
    report = json.loads(json_file.read_text())
    assert [(r["n"], r["batch"], r["mode"], r["status"]) for r in report["results"]] == [
        (2, 5, "forward", "ok"),
        (2, 5, "gradient", "ok"),
    ]
    assert all(r["times"].keys() == {"ours", "builtin", "copy", "matmul"} for r in report["results"])
    # all that notebooks/performance.ipynb reads
    assert report["environment"].keys() >= {"versions", "platform", "device", "cpu", "threads", "date"}
    assert all(r.keys() >= {"assume_a", "dtype", "kernel"} for r in report["results"])
    measured = {"seconds_per_matrix", "ratio", "compile_seconds", "temp_bytes"}
    assert all(times.keys() >= measured for r in report["results"] for times in r["times"].values())
    lines = markdown.read_text().splitlines()
    unused = ("assume_a", "general / ours", "separate / ours", "torch / ours", "cupy / ours", "LAPACK / ours")
    assert lines[2] == "| " + " | ".join(name for name in COLUMNS if name not in unused) + " |"
    assert sum(line.startswith("| 2 | 5 |") for line in lines) == 2


@pytest.mark.later
def test_bench_hanging_builtin_is_no_answer(tmp_path):
    json_file = tmp_path / "bench.json"
    result = bench(
        tmp_path, HANG, "--n", "2", "--batch", "5", "--timeout", "10", "--rivals", "builtin", "--repeats", "3",
        "--mode", "forward", "--json", str(json_file),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "no answer" in result.stdout
    times = json.loads(json_file.read_text())["results"][0]["times"]
    assert times["builtin"] == {"status": "no answer"}
    assert times["ours"]["seconds_per_matrix"] > 0


def test_bench_wrong_answer_exits_with_1(tmp_path):
    result = bench(
        tmp_path, "inv = jaxinv.inv\njaxinv.inv = lambda a: 1.01 * inv(a)\n",
        "--n", "2", "--batch", "5", "--rivals", "builtin", "--mode", "forward",
    )  # fmt: skip
    assert result.returncode == 1
    assert "FAILED: 5 x 2 float32 forward, relative error 0.01" in result.stdout


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64"])
def test_measure_error_is_rounding(mode, dtype):
    result = measure(Case(3, 4, dtype, mode), ["copy"], 3)
    assert result["error"] < 20 * jnp.finfo(dtype).eps
    assert result["times"].keys() == {"ours", "copy"}


@pytest.mark.parametrize("mode", MODES)
def test_measure_wrong_by_one_percent_is_not_timed(monkeypatch, mode):
    inv, inv_logdet = jaxinv.inv, jaxinv.inv_logdet
    monkeypatch.setattr(jaxinv, "inv", lambda a: 1.01 * inv(a))
    monkeypatch.setattr(jaxinv, "inv_logdet", lambda a: (lambda Y, *others: (1.01 * Y, *others))(*inv_logdet(a)))
    result = measure(Case(8, 2, "float32", mode), ["copy"], 3)
    assert 0.005 < result["error"] < 0.05
    assert "times" not in result


def test_measure_rivals_that_are_installed():
    result = measure(Case(4, 3, "float64", "forward"), ["builtin", "copy", "matmul", "lapack"], 3)
    scipy = {"scipy", "getri"} if find_spec("scipy") else set()
    assert result["times"].keys() == {"ours", "builtin", "copy", "matmul"} | scipy
    for times in result["times"].values():
        low, middle, high = times["ratio"]
        assert 0 < low <= middle <= high
        assert len(times["rounds"]) == 3
    assert result["times"]["ours"]["compile_seconds"] > 0


@pytest.mark.parametrize(
    ("assume_a", "dtype"),
    [
        ("positive definite", "float32"),
        *(
            pytest.param(a, "float32", marks=pytest.mark.long)
            for a in ("symmetric", "hermitian", "upper triangular", "lower triangular", "diagonal")
        ),
        pytest.param("hermitian", "complex64", marks=pytest.mark.long),
    ],
)
def test_measure_structure(assume_a, dtype):
    for mode in MODES:
        result = measure(Case(4, 20, dtype, mode, assume_a), ["general", "separate"], 3)
        assert result["error"] < 20 * jnp.finfo(dtype).eps, mode
        assert result["times"].keys() == {"ours", "general"} | ({"separate"} if mode == "logdet" else set())
    name = {"symmetric": "fused LU", "hermitian": "fused LU", "diagonal": "reciprocals"}.get(
        assume_a, f"fused {assume_a}"
    )
    assert result["kernel"] == name


def test_measure_wrong_logdet_is_not_timed(monkeypatch):
    inv_logdet = jaxinv.inv_logdet
    monkeypatch.setattr(
        jaxinv, "inv_logdet", lambda a: inv_logdet(a)._replace(logabsdet=inv_logdet(a).logabsdet + 0.01)
    )
    result = measure(Case(4, 20, "float32", "logdet"), [], 3)
    assert 0.009 < result["error"] < 0.011
    assert "times" not in result


@pytest.mark.parametrize(("platform", "waits"), [("cpu", 5), ("gpu", 1)])
def test_calls_of_a_sample_are_queued_but_on_cpu(monkeypatch, platform, waits):
    done = []
    contender = Contender(lambda: "result", 2, done.append)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert bench_measure._sample(contender, 5) > 0
    assert done == ["result"] * waits


def test_cupy_contender_waits_for_the_device(monkeypatch):
    """With a stand-in, since CuPy needs a GPU."""
    calls = []
    device = SimpleNamespace(synchronize=lambda: calls.append("waited"))
    cupy = SimpleNamespace(
        asarray=np.asarray,
        linalg=SimpleNamespace(inv=lambda x: calls.append(x.shape)),
        cuda=SimpleNamespace(Device=lambda: device),
        __spec__=object(),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    contender = cupy_contender(Case(2, 3, "float32", "forward"), np.ones((3, 2, 2), np.float32))
    contender.wait(contender.call())
    assert (calls, contender.matrices) == ([(3, 2, 2), "waited"], 3)
    assert cupy_contender(Case(2, 3, "float32", "gradient"), np.ones((3, 2, 2))) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's own, on its way to jvp
@pytest.mark.skipif(not (find_spec("torch") or IN_CI), reason="PyTorch is not installed")
@pytest.mark.parametrize("mode", ["forward", "gradient", "jvp"])
def test_measure_torch(mode):
    assert measure(Case(2, 3, "float32", mode), ["torch"], 3)["times"]["torch"]["seconds_per_matrix"] > 0


def test_matrices_are_well_conditioned_and_pivot():
    X, _ = bench_measure.matrices(Case(8, 1000, "complex128", "forward"))
    assert np.linalg.cond(X).max() < 100
    assert np.mean(np.abs(X[:, :, 0]).argmax(-1) == 0) < 0.3


def test_worker_starts_afresh_after_no_answer_and_errors():
    with Worker() as worker:
        assert worker.call(30, divmod, 7, 2) == (3, 1)
        with pytest.raises(CallFailed, match="ZeroDivisionError"):
            worker.call(30, divmod, 7, 0)
        with pytest.raises(NoAnswer, match=r"0\.5 s"):
            worker.call(0.5, time.sleep, 100)
        with pytest.raises(CallFailed, match="status 3"):
            worker.call(30, os._exit, 3)
        assert worker.call(30, abs, -1) == 1


def test_run_case_first_group_decides():
    class Wrong:
        def call(self, timeout, function, case, rivals, repeats):
            return {"error": 1.0, "error_limit": 1e-6, "kernel": None}

    result = run_case(Wrong(), Case(2, 5, "float32", "forward"), ["builtin"], repeats=3, timeout=1.0, rival_timeout=1.0)
    assert result["status"] == FAILED
    assert notes([result]) == ["FAILED: 5 x 2 float32 forward, relative error 1, limit 1e-06"]
    assert table([result], ("n", "ours ns/matrix"))[1] == [["2", "FAILED"]]


def test_run_case_slow_ours_does_not_use_up_the_time_of_a_rival():
    limits = []

    class Slow:
        def call(self, timeout, function, case, rivals, repeats):
            limits.append(timeout)
            time.sleep(0.2)
            return {"times": {}}

    run_case(Slow(), Case(2, 5, "float32", "forward"), ["builtin"], repeats=3, timeout=9.0, rival_timeout=1.0)
    assert limits[0] == 9.0
    assert 1.2 <= limits[1] < 2.0


def test_presets():
    small = preset("small", ["float32"], ["forward", "gradient"])
    assert len(small) == 14
    assert small[0] == Case(2, 262144, "float32", "forward")
    grid = preset("grid", ["float32", "float64", "complex64"], MODES)
    assert {case.n for case in grid} >= {1, 64, 4096}
    assert all(case.batch * case.n**2 * np.dtype(case.dtype).itemsize <= FULL_BYTES for case in grid)
    assert len(set(grid)) == len(grid)
    assert product([4], None, ["float32"], ["forward"]) == [Case(4, 65536, "float32", "forward")]


@pytest.mark.skipif(not (find_spec("matplotlib") or IN_CI), reason="matplotlib is not installed")
def test_plot(tmp_path):
    times = {"builtin": {"ratio": [1.0, 2.0, 3.0]}}
    results = [{**Case(n, 5, "float32", "forward")._asdict(), "status": "ok", "times": times} for n in (2, 4)]
    save_plot(tmp_path / "plot.png", results, "title")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_lines_of_a_plot_are_by_batch_only_where_a_dtype_has_several():
    def labels(*cells):
        times = {"builtin": {"ratio": [1.0, 2.0, 3.0]}}
        return list(lines([{"n": n, "batch": b, "dtype": d, "status": "ok", "times": times} for n, b, d in cells]))

    assert labels((4, 9, "float32"), (4, 5, "float64")) == ["jnp.linalg.inv, float32", "jnp.linalg.inv, float64"]
    several = labels((4, 9, "float32"), (4, 5, "float32"))
    assert several == ["jnp.linalg.inv, float32, batch 9", "jnp.linalg.inv, float32, batch 5"]


@pytest.mark.parametrize("mode", ["forward", "gradient", "jvp"])
def test_limits_are_measured_of_the_kernel_and_the_form_that_are_named(mode, monkeypatch, capsys):
    """`notebooks/limits.py`, which leaves the tables as they were."""
    asked = []
    for names, name in (
        (_kernels.KERNELS, "LU in turn"),
        (_products.PRODUCTS, "dots"),
        (_products.PRODUCTS, "sums in two loops"),
    ):
        monkeypatch.setitem(names, name, lambda *args, f=names[name], name=name: asked.append(name) or f(*args))
    tables = _kernels.kernel_name, _products.product_name
    limits.measured(Case(3, 40, "float64", mode), ["LU in turn"], ["dots", "sums in two loops"], 1)
    assert (_kernels.kernel_name, _products.product_name) == tables
    assert set(asked) == {"LU in turn"} | ({"dots", "sums in two loops"} if mode != "forward" else set())
    lines = [line.split(maxsplit=11) for line in capsys.readouterr().out.splitlines()]
    ways = ["table", "LU in turn, dots", "LU in turn, sums in two loops"]
    assert [line[-1] for line in lines][-3:] == ways
    assert all(float(line[-2]) < 1e-13 for line in lines)
    limits.measured(Case(3, 40, "float64", mode), ["reciprocal"], [None], 1)
    assert ["WRONG" in line for line in capsys.readouterr().out.splitlines()][-2:] == [False, True]
