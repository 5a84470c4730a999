"""Every notebook is stored with its outputs, and runs; `pytest --ignore=tests/test_notebooks.py` leaves this out."""

import asyncio
import os
import re
from pathlib import Path

import pytest

import jaxinv

if not os.environ.get("CI"):  # in CI a missing package is an error
    pytest.importorskip("nbclient", reason="the notebook tests need nbclient: pip install 'jaxinv[notebooks]'")
    pytest.importorskip("ipykernel", reason="the notebook tests need ipykernel: pip install 'jaxinv[notebooks]'")
    pytest.importorskip("matplotlib", reason="the notebooks need matplotlib: pip install 'jaxinv[notebooks]'")

import ipykernel  # noqa: F401
import matplotlib  # noqa: F401
import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

SECONDS = 120  # for a whole notebook
MEGABYTE = 2**20
NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def outputs(notebook, kind):
    return [output for cell in code_cells(notebook) for output in cell.outputs if output.output_type == kind]


def python_warnings(notebook):
    text = "".join(output.text for output in outputs(notebook, "stream") if output.name == "stderr")
    return re.findall(r"^.*\w*Warning: .*$", text, flags=re.MULTILINE)


def test_notebooks_found():
    assert NOTEBOOKS


@each_notebook
def test_stored_notebook_complete(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    in_order = list(range(1, len(cells) + 1))
    assert [cell.execution_count for cell in cells] == in_order, "stored from more than one run"
    assert outputs(notebook, "stream"), "stored without outputs"
    assert any("image/png" in output.data for output in outputs(notebook, "display_data")), "stored without plots"
    assert not outputs(notebook, "error")
    assert not [output for output in outputs(notebook, "stream") if output.name == "stderr"]
    assert path.stat().st_size < MEGABYTE


@each_notebook
def test_stored_notebook_names_no_machine_path(path):
    notebook = nbformat.read(path, as_version=4)
    stored = "".join(output.text for output in outputs(notebook, "stream"))
    assert not re.findall(r"(?:/home/|/root/|/tmp/|/Users/|/work/|site-packages|[A-Z]:\\)\S*", stored)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=getattr(pytest.mark, "later" if path.stem == "quickstart" else "long"))
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)
@pytest.mark.timeout(2 * SECONDS)
def test_notebook_runs(path, monkeypatch):
    package = str(Path(jaxinv.__file__).parents[1])  # the kernel imports the package under test
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(path, as_version=4)

    async def run():  # the kernel manager wants a running loop; no kernel but that of this interpreter can be found
        kernels = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
        client = NotebookClient(
            notebook, km=kernels, timeout=SECONDS, resources={"metadata": {"path": str(path.parent)}}
        )
        await asyncio.wait_for(client.async_execute(cleanup_kc=True), SECONDS)

    asyncio.run(run())
    assert not python_warnings(notebook)
