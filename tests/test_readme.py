"""The examples of README.md, the documentation and the docstrings run as readers run them, a process each."""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxinv

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / ".github" / "docs" / "pages").glob("*.md"))]
BLOCKS = {
    f"{page.name} {i}": block
    for page in PAGES
    for i, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.M))
}
DOCSTRINGS = """
import doctest, jaxinv
functions = [name for name in dir(jaxinv) if not name.startswith("_")]
functions = [name for name in functions if callable(f := getattr(jaxinv, name)) and not isinstance(f, type)]
found = [t for name in functions
         for t in doctest.DocTestFinder(recurse=False).find(getattr(jaxinv, name), name, globs={})]
assert set(functions) == {t.name for t in found if t.examples}, "a public function has no example"
assert {"inv", "inv_ex"} <= set(functions)
assert all(t.examples for t in found), "a public function has no example"
runner = doctest.DocTestRunner()
assert not sum(runner.run(t).failed for t in found)
"""


def run(folder, *arguments):
    """Python with the arguments, in an empty folder, warnings as errors, without the settings of this test session."""
    environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS" and not key.startswith("JAX_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-W", "error", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_python_block_is_an_example():
    blocks = sum(page.read_text(encoding="utf-8").lower().count("```py") for page in PAGES)
    assert len(BLOCKS) == blocks > 0


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
def test_example_runs(block, tmp_path):
    path = tmp_path / "example.txt"
    path.write_text(block, encoding="utf-8")
    if re.search(r"^>>> ", block, re.MULTILINE):
        run(tmp_path, "-m", "doctest", str(path))
    else:
        run(tmp_path, str(path))


def test_api_page_and_readme_list_every_public_function():
    functions = [name for name, f in vars(jaxinv).items() if inspect.isfunction(f)]
    assert "inv" in functions
    api = ROOT / ".github" / "docs" / "pages" / "api.md"
    for name in functions:
        assert f"\n| `{name}(" in (ROOT / "README.md").read_text(encoding="utf-8")
        if api.exists():  # it is in the repository, and not in the sdist
            assert f"\n::: jaxinv.{name}\n" in api.read_text(encoding="utf-8")


@pytest.mark.parametrize("example", [">>> 1 + 1\n3\n", "raise SystemExit(1)"], ids=["doctest", "script"])
def test_wrong_example_fails(example, tmp_path):
    with pytest.raises(AssertionError):
        test_example_runs(example, tmp_path)


def test_docstring_examples_run(tmp_path):
    run(tmp_path, "-c", DOCSTRINGS)
