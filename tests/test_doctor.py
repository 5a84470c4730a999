"""`python -m jaxinv doctor`: facts, findings, exit status."""

import copy
import json
import subprocess
import sys

import pytest
from _program import changed, environment, run

from jaxinv._cli.doctor import CHECKS
from jaxinv._cli.findings import NOTE, PROBLEM, findings
from jaxinv._cli.settings import accelerators, cpu_quota
from jaxinv._lapack import LAPACK_BATCH_IS_SERIAL

# A machine on which nothing is to be said.
WELL = {
    "settings": {
        "versions": {"jaxinv": "0.1.0", "jax": "0.12.0", "jaxlib": "0.12.0", "numpy": "2.5.0", "python": "3.13.0"},
        "lowest": {"jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.0"},
        "cpu": "CPU",
        "cpus": {"usable": 4, "all": 8, "quota": None},
        "load": 1.0,
        "blas_threads": 4,
        "config": {
            "enable_x64": True,
            "default_matmul_precision": None,
            "debug_nans": False,
            "disable_jit": False,
        },
        "variables": {},
        "accelerators": [],
        "plugins": {},
    },
    "backend": {"platform": "cpu", "device": "cpu", "devices": 1},
    "backend_error": None,
    "checks": dict.fromkeys(CHECKS, True),
    "probe": None,
}
OLD = {"settings.versions.jax": "0.10.2", "settings.versions.jaxlib": "0.10.2"}
GPU = {"backend.platform": "gpu"}
PLUGIN = {"settings.plugins": {"jax-cuda13-plugin": "0.12.0"}}
NVIDIA = {"settings.accelerators": ["NVIDIA GPU"]}
FAILS = {"backend": None, "backend_error": "no device", "checks": {}}


def with_changes(changes):
    facts = copy.deepcopy(WELL)
    for path, value in changes.items():
        *way, last = path.split(".")
        place = facts
        for name in way:
            place = place[name]
        assert last in place or way[-1] in ("variables", "checks")
        place[last] = value
    return facts


@pytest.mark.parametrize("changes", [{}, {"settings.cpus.quota": 4.0}, GPU | PLUGIN | NVIDIA | {
    "settings.config.default_matmul_precision": "highest", "settings.versions.jaxlib": "0.12.0",
}, {"settings.lowest": {}}, {"settings.load": None, "settings.blas_threads": None}])  # fmt: skip
def test_findings_none_where_all_is_well(changes):
    assert findings(with_changes(changes)) == []


@pytest.mark.parametrize(
    ("changes", "level", "what", "suggestion"),
    [
        (FAILS, PROBLEM, "no device", "jax.devices()"),
        (FAILS | {"settings.variables.XLA_FLAGS": "--x"}, PROBLEM, "no device", "Unset XLA_FLAGS,"),
        ({"checks.eager": False}, PROBLEM, "'eager' failed", "python -m jaxinv"),
        ({"checks.eager": "no answer in 60 s"}, PROBLEM, "'eager' failed", "python -m jaxinv"),
        ({"settings.versions.numpy": "1.26.4"}, PROBLEM, "numpy 1.26.4 is older than 2.0", "'numpy>=2.0'"),
        ({"settings.versions.jaxlib": "0.11.2"}, NOTE, "jax 0.12.0 with jaxlib 0.11.2", "'jax==0.12.0'"),
        (GPU | {"settings.config.default_matmul_precision": "high",
                "settings.plugins": {"jax-cuda13-plugin": "0.11.2"}},
         NOTE, "jax-cuda13-plugin 0.11.2", "jax-cuda13-plugin==0.12.0"),
        (OLD | {"probe": "hung"}, NOTE, "two batched LAPACK calls", "JAX 0.11"),
        ({"settings.cpus.quota": 1.5}, NOTE, "a quota of 1.5 CPUs", "taskset -c 0-1 "),
        ({"settings.blas_threads": 16}, NOTE, "16 BLAS threads on 4 CPUs", "OPENBLAS_NUM_THREADS=4"),
        ({"settings.blas_threads": 1}, NOTE, "1 BLAS thread on 4 CPUs", "Unset OPENBLAS_NUM_THREADS"),
        ({"settings.load": 13.0}, NOTE, "load 13.0 on 8 CPUs", "idle"),
        ({"backend.devices": 8}, NOTE, "8 CPU devices on 4 CPUs", "Unset"),
        (NVIDIA, NOTE, "beside NVIDIA GPU in /dev", "Install JAX for it"),
        (PLUGIN, NOTE, "beside jax-cuda13-plugin 0.12.0", "says why"),
        (NVIDIA | {"settings.variables.JAX_PLATFORMS": "cpu"}, NOTE, "NVIDIA GPU", "JAX_PLATFORMS, which is cpu"),
        ({"settings.config.enable_x64": False}, NOTE, "x64 is off", "JAX_ENABLE_X64=1"),
        (GPU, NOTE, "below float32", "JAX_DEFAULT_MATMUL_PRECISION=highest"),
        ({"settings.config.disable_jit": True}, NOTE, "jit is disabled", "JAX_DISABLE_JIT"),
        ({"settings.config.debug_nans": True}, NOTE, "FloatingPointError", "JAX_DEBUG_NANS"),
    ],
)  # fmt: skip
def test_finding(changes, level, what, suggestion):
    (finding,) = findings(with_changes(changes))
    assert finding.level == level
    assert what in finding.what
    assert suggestion in finding.suggestion


@pytest.mark.parametrize(
    ("probe", "said"), [("hung", "did so here"), ("came back", "proves nothing"), ("status 3", "status 3")]
)
def test_hang_says_what_was_seen(probe, said):
    (finding,) = findings(with_changes(OLD | {"probe": probe}))
    assert said in finding.why
    assert "3.12" not in finding.suggestion
    (finding,) = findings(with_changes(OLD | {"probe": probe, "settings.versions.python": "3.11.7"}))
    assert "which needs Python 3.12" in finding.suggestion
    assert (
        findings(with_changes(OLD | {"backend.platform": "gpu", "settings.config.default_matmul_precision": "x"})) == []
    )


def test_problems_come_first():
    changes = {"settings.config.enable_x64": False, "settings.config.disable_jit": True, "checks.eager": False}
    assert [finding.level for finding in findings(with_changes(changes))] == [PROBLEM, NOTE, NOTE]


def test_cpu_quota(tmp_path):
    assert cpu_quota(tmp_path) is None
    first = tmp_path / "cpu"
    first.mkdir()
    (first / "cpu.cfs_period_us").write_text("100000\n")
    (first / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(tmp_path) is None
    (first / "cpu.cfs_quota_us").write_text("50000\n")
    assert cpu_quota(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) is None


def test_accelerators(tmp_path):
    for name in ("null", "nvidiactl", "nvidia-caps"):
        (tmp_path / name).touch()
    assert accelerators(tmp_path) == []
    (tmp_path / "nvidia0").touch()
    (tmp_path / "kfd").touch()
    assert accelerators(tmp_path) == ["NVIDIA GPU", "AMD GPU"]


def doctor(command, *arguments, **variables):
    return subprocess.run(
        [*command, "doctor", *arguments],
        capture_output=True, text=True, timeout=200, check=False, env=environment() | variables,
    )  # fmt: skip


@pytest.mark.later
def test_doctor_reports_this_machine():
    result = doctor([sys.executable, "-m", "jaxinv"], JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu", PRIVATE="secret")
    assert result.returncode == 0, result.stdout + result.stderr
    values = dict(line.split(maxsplit=1) for line in result.stdout.split("\n\n")[0].splitlines())
    assert values.keys() >= {"jaxinv", "jax", "jaxlib", "numpy", "python", "device", "CPUs", "x64", "precision"}
    assert values["x64"] == "on"
    assert values["JAX_PLATFORMS"] == "cpu"
    assert "secret" not in result.stdout
    assert "x64 is off" not in result.stdout
    assert result.stdout.splitlines()[-1].startswith("no problems, ")
    assert ("two batched LAPACK calls" in result.stdout) == (not LAPACK_BATCH_IS_SERIAL)


def test_doctor_json_without_a_device_exits_with_1(tmp_path):
    result = doctor([sys.executable, "-m", "jaxinv"], "--json", JAX_PLATFORMS="nonsense")
    assert result.returncode == 1
    report = json.loads(result.stdout)
    assert report["facts"]["backend"] is None
    assert "nonsense" in report["facts"]["backend_error"]
    assert report["findings"][0]["level"] == PROBLEM
    assert "JAX_PLATFORMS" in report["findings"][0]["suggestion"]


def test_doctor_wrong_inverse_exits_with_1(tmp_path):
    change = """
        inv = jaxinv.inv
        jaxinv.inv = lambda a: 1.01 * inv(a)
        from jaxinv._cli import doctor
        doctor._probe = lambda worker: "came back"
    """
    result = run([*changed(tmp_path, change), "doctor"])
    assert result.returncode == 1
    assert "problem: the check 'eager' failed" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("2 problems, ")


def test_probe_that_hangs_is_ended(tmp_path):
    change = """
        from jaxinv._cli import doctor
        doctor.LAPACK_BATCH_IS_SERIAL = False
        doctor.PROBE_TIMEOUT = 0.5
        jnp.linalg.inv = lambda a: time.sleep(1000)
    """
    result = doctor(changed(tmp_path, change), "--json", JAX_PLATFORMS="cpu")
    assert result.returncode == 0
    assert json.loads(result.stdout)["facts"]["probe"] == "hung"


def test_doctor_interrupt_exits_with_130(tmp_path):
    change = "device_checks.CHECKS['eager'] = lambda: os.kill(os.getppid(), signal.SIGINT) or time.sleep(1000)\n"
    result = run([*changed(tmp_path, change), "doctor"])
    assert result.returncode == 130
    assert "Traceback" not in result.stderr
