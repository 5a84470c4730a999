"""`python -m jaxinv`: exit status, table, JSON, interrupts."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from _program import changed, environment, run

from jaxinv._cli import main as program
from jaxinv._cli.device_checks import CHECKS
from jaxinv._cli.output import as_json, coloured, markdown_table, text_table

FEW_CHECKS = """
keep = ("gradient float32", "gradient float64")
device_checks.CHECKS = check.CHECKS = {name: device_checks.CHECKS[name] for name in keep}
check.TIMED = (check.Case(2, 10, "float32", "forward"),)
"""


def test_check_all_is_well():
    result = run([sys.executable, "-m", "jaxinv", "--no-timing"])
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    for name in ("jaxinv ", "jax ", "jaxlib ", "numpy ", "python ", "cpu: "):
        assert name in lines[0]
    for name in CHECKS:
        assert any(line.startswith(name + "  ") and line.endswith("ok") for line in lines)
    assert lines[-1].endswith("all is well")
    assert "\033" not in result.stdout
    assert result.stderr.count("\n") >= len(CHECKS)


def test_check_json_has_checks_and_timings(tmp_path):
    result = run([*changed(tmp_path, FEW_CHECKS), "--json"])
    report = json.loads(result.stdout)
    assert result.returncode == 0
    assert [check["status"] for check in report["checks"]] == ["ok", "ok"]
    assert report["environment"]["versions"].keys() >= {"jaxinv", "jax", "jaxlib", "numpy", "python"}
    assert report["timings"][0]["times"]["builtin"]["ratio"][1] > 0


def test_check_wrong_rule_exits_with_1(tmp_path):
    """A cotangent wrong by 1 % is found by the checks of the gradient."""
    wrong_rule = """
inv = jaxinv.inv
@jax.custom_vjp
def wrong(a):
    return inv(a)
wrong.defvjp(lambda a: (inv(a), inv(a)), lambda y, g: (-1.01 * y.mT @ g @ y.mT,))
jaxinv.inv = wrong
"""
    result = run([*changed(tmp_path, wrong_rule + FEW_CHECKS), "--no-timing"])
    assert result.returncode == 1
    assert "2 failed" in result.stdout
    assert result.stdout.count("FAILED") == 2


def test_check_crash_and_hang_exit_with_1(tmp_path):
    change = f"""{FEW_CHECKS}
check.CHECK_TIMEOUT = 5.0
device_checks.CHECKS["gradient float32"] = lambda: time.sleep(1000)
device_checks.CHECKS["gradient float64"] = lambda: os._exit(7)
"""
    result = run([*changed(tmp_path, change), "--json", "--no-timing"])
    assert result.returncode == 1
    statuses = [check["status"] for check in json.loads(result.stdout)["checks"]]
    assert statuses == ["no answer", "crashed: the process ended with status 7"]


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT between processes")
def test_check_interrupt_prints_what_was_measured(tmp_path):
    change = FEW_CHECKS + "device_checks.CHECKS['gradient float64'] = lambda: time.sleep(1000)\n"
    process = subprocess.Popen(
        [*changed(tmp_path, change), "--no-timing"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment(),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("[2/2]"):
            break
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the worker too
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "gradient float32" in out
    assert out.rstrip().endswith("interrupted")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [["--unknown"], ["bnech"], ["bench", "--mode", "sideways"], ["bench", "--n", "0"], ["bench", "--json", "no/dir/f"]],
)
def test_wrong_option_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        program.main(arguments)
    assert error.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_plot_without_matplotlib_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(program, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as error:
        program.main(["bench", "--plot", "a.png"])
    assert error.value.code == 2
    assert "pip install 'jaxinv[bench]'" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as error:
        program.main(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out.startswith("jaxinv 0.")


def test_tables_align():
    assert text_table(("name", "x"), [["a", "1"], ["bcdef", "10"]]) == "name    x\na       1\nbcdef  10"
    assert markdown_table(("n", "x"), [["1", "2"]]) == "| n | x |\n| --: | --: |\n| 1 | 2 |"


def test_json_is_strict():
    assert json.loads(as_json({"ratio": float("inf"), "rounds": [1.0, float("nan")]})) == {
        "ratio": None,
        "rounds": [1.0, None],
    }


def test_no_color_is_honoured(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert coloured("a FAILED", {"FAILED": "31"}) == "a \033[31mFAILED\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("a FAILED", {"FAILED": "31"}) == "a FAILED"
