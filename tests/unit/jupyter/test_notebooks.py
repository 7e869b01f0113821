"""The notebooks as they lie in the repository."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from services.bench import arms
from services.jupyter import jupyter

NOTEBOOKS = sorted(jupyter.NOTEBOOKS.glob("*.ipynb"))


def test_there_is_one_for_each_arm_and_three_more() -> None:
    assert {path.stem for path in NOTEBOOKS} == {*arms.names(), "look", "demo", "compare"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert not [cell for cell in cells if cell.outputs or cell.execution_count is not None]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}, "no traces of whoever opened it last"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_prose_and_holds_no_logic(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or "def " not in cell.source, "functions belong to the code, with tests"
