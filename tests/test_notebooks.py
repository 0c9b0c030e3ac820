"""The notebooks of the exercises run to the end, and hold the outputs of one whole run or none."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from unmask.models.classifier import Classifier

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    return "".join(o.text for o in outputs if o.output_type == "stream")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_holds_the_outputs_of_one_whole_run_or_none(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    if any(cell.outputs for cell in code):
        assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
        assert not any(o.output_type == "error" for cell in code for o in cell.outputs)
    else:
        assert all(cell.execution_count is None for cell in code)


def test_the_figures_stored_in_the_notebook_of_faces_are_those_of_the_card() -> None:
    notebook = nbformat.read(NOTEBOOKS[-1], as_version=4)
    folds = Classifier.load("faces").card.facts["folds"]
    assert f"right on {folds['right']:,} of {folds['faces']:,} faces" in printed(notebook)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMASK_FAST", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    # An error in a cell is raised here, with the cell.
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    assert printed(notebook)
