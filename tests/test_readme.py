"""The examples of README.md, the documentation and the docstrings run as readers run them, a process for each page."""

import inspect
import json
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
    page.name: re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.M)
    for page in PAGES
}
# Each in a namespace of its own.
EXAMPLES = """
import doctest, json
for i, block in enumerate(json.load(open("blocks.json", encoding="utf-8"))):
    print("example", i, flush=True)
    if block.startswith(">>> "):
        test = doctest.DocTestParser().get_doctest(block, {}, f"example {i}", None, 0)
        assert not doctest.DocTestRunner().run(test).failed
    else:
        exec(compile(block, f"example {i}", "exec"), {"__name__": "__main__"})
"""
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
    assert sum(map(len, BLOCKS.values())) == blocks > 0


@pytest.mark.later
@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_examples_run(page, tmp_path):
    run_examples(BLOCKS[page], tmp_path)


def run_examples(blocks, folder):
    (folder / "blocks.json").write_text(json.dumps(blocks), encoding="utf-8")
    run(folder, "-c", EXAMPLES)


def test_api_page_and_readme_list_every_public_function():
    functions = [name for name, f in vars(jaxinv).items() if inspect.isfunction(f)]
    assert "inv" in functions
    api = ROOT / ".github" / "docs" / "pages" / "api.md"
    for name in functions:
        assert f"\n| `{name}(" in (ROOT / "README.md").read_text(encoding="utf-8")
        if api.exists():  # it is in the repository, and not in the sdist
            assert f"\n::: jaxinv.{name}\n" in api.read_text(encoding="utf-8")


@pytest.mark.parametrize("example", [">>> 1 + 1\n3\n", "raise SystemExit(1)", "assert False"])
def test_wrong_example_fails(example, tmp_path):
    with pytest.raises(AssertionError, match="example 1"):
        run_examples(["import jaxinv", example, "import jax"], tmp_path)


@pytest.mark.later
def test_docstring_examples_run(tmp_path):
    run(tmp_path, "-c", DOCSTRINGS)
