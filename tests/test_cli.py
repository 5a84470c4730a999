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
from jaxinv._cli.output import BELOW_ONE, as_json, coloured, markdown_table, text_table

FEW_CHECKS = """
keep = ("gradient float32", "gradient float64")
device_checks.CHECKS = check.CHECKS = {name: device_checks.CHECKS[name] for name in keep}
check.TIMED = (check.Case(2, 10, "float32", "forward"),)
"""


@pytest.mark.later
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


@pytest.mark.later
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


@pytest.mark.later
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


def interrupted(command, last_step):
    """Exit status and output of a program that gets Ctrl-C, as a terminal sends it, soon after a step has begun."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment()
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(last_step):
            break
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # to the worker too
    out, err = process.communicate(timeout=30)
    assert "Traceback" not in err
    return process.returncode, out


def test_check_interrupt_prints_what_was_measured(tmp_path):
    change = FEW_CHECKS + "device_checks.CHECKS['gradient float64'] = lambda: time.sleep(1000)\n"
    status, out = interrupted([*changed(tmp_path, change), "--no-timing"], "[2/2]")
    assert status == 130
    assert "gradient float32" in out
    assert out.rstrip().endswith("interrupted")


@pytest.mark.later
def test_check_interrupt_after_a_failure_is_an_interrupt(tmp_path):
    change = (
        FEW_CHECKS
        + """
device_checks.CHECKS["gradient float32"] = lambda: 100.0
device_checks.CHECKS["gradient float64"] = lambda: time.sleep(1000)
"""
    )
    status, out = interrupted([*changed(tmp_path, change), "--no-timing", "--json"], "[2/2]")
    report = json.loads(out)
    assert status == 130
    assert report["interrupted"]
    assert [check["status"] for check in report["checks"]] == ["FAILED"]


def test_bench_interrupt_writes_what_was_measured(tmp_path):
    change = """
        inv = jnp.linalg.inv
        jnp.linalg.inv = lambda a: time.sleep(1000) if a.shape[-1] == 3 else inv(a)
    """
    files = {option: tmp_path / option for option in ("json", "markdown")}
    arguments = ["--n", "2", "3", "4", "--batch", "5", "--mode", "forward", "--repeats", "3", "--rivals", "builtin"]
    arguments += [text for option, path in files.items() for text in (f"--{option}", str(path))]
    status, out = interrupted([*changed(tmp_path, change), "bench", *arguments], "[2/3]")
    assert status == 130
    assert "5  float32  forward" in out
    assert out.rstrip().endswith("interrupted after 1 cases")
    report = json.loads(files["json"].read_text())
    assert report["interrupted"]
    assert [(result["n"], result["status"]) for result in report["results"]] == [(2, "ok")]
    assert "| 2 | 5 |" in files["markdown"].read_text()


TWO_RESULTS = """
results = iter([0.5, 2.0])
def timing(worker, case):
    times = dict(ours=dict(seconds_per_matrix=1e-9), builtin=dict(seconds_per_matrix=1e-9, ratio=3 * [next(results)]))
    return {**case._asdict(), "status": "ok", "times": times}
check._timing = timing
check._check = lambda worker, name: {"name": name, "ratio": 1.0, "limit": 30, "status": name}
check.CHECKS = {"ok": None, "FAILED": None}
check.TIMED = 2 * check.TIMED[:1]
"""


@pytest.mark.parametrize(
    ("variables", "in_colour"),
    [
        pytest.param({"NO_COLOR": ""}, True, id="terminal"),
        pytest.param({"NO_COLOR": "1"}, False, id="NO_COLOR", marks=pytest.mark.later),
        pytest.param({"TERM": "dumb"}, False, id="dumb", marks=pytest.mark.later),
    ],
)
def test_colours_on_a_terminal_only(tmp_path, variables, in_colour):
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        changed(tmp_path, TWO_RESULTS),
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=environment() | {"TERM": "xterm", "NO_COLOR": ""} | variables,
    )
    os.close(theirs)
    out = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(4096):
                out += part
        except OSError:  # how Linux says that the other end is closed
            pass
    assert process.wait(60) == 1
    text = out.decode()
    for coloured_text in ("\033[32mok\033[0m", "\033[31mFAILED\033[0m", "\033[33m0.5x\033[0m"):
        assert (coloured_text in text) == in_colour
    assert ("\033" in text) == in_colour
    assert "2x" in text
    assert "m2x" not in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--unknown"],
        ["bnech"],
        ["bench", "--mode", "sideways"],
        ["bench", "--n", "0"],
        ["bench", "--batch", "5"],
        ["bench", "--json", "no/dir/f"],
    ],
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


@pytest.mark.parametrize("command", program.COMMANDS)
def test_help_has_examples_that_parse(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(program, "find_spec", lambda name: True)  # of matplotlib, which --plot asks for
    with pytest.raises(SystemExit) as error:
        program.main([command, "--help"])
    assert error.value.code == 0
    text = capsys.readouterr().out
    examples = text.partition("examples:\n")[2].partition("\n\n")[0].splitlines()
    assert len(examples) > 1
    parser = program.parsers()["jaxinv"]
    for example in examples:
        arguments = example.partition("python -m jaxinv")[2].partition("   ")[0].partition(">")[0].split()
        assert parser.parse_args(arguments or ["check"]).command
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("text", "found"),
    [("0.953x", True), ("0x", True), ("1.05x", False), ("10x", False), ("2.0x", False), ("0.9", False)],
)
def test_speed_up_below_one_is_coloured(monkeypatch, text, found):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured(f"a {text} b", {BELOW_ONE: "33"}) == (f"a \033[33m{text}\033[0m b" if found else f"a {text} b")


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
    monkeypatch.setenv("TERM", "xterm")
    assert coloured("a FAILED", {"FAILED": "31"}) == "a \033[31mFAILED\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured("a FAILED", {"FAILED": "31"}) == "a FAILED"
