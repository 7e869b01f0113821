"""The notebooks in the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from larder.bench import arms
from services.jupyter import jupyter

NOTEBOOKS = sorted(jupyter.NOTEBOOKS.glob("*.ipynb"))
MAX_LINES = 10
"""Of a cell. What takes more belongs to the code, too."""


def read(path: Path) -> Any:
    """Return a notebook."""
    import nbformat  # takes seconds, which processes that only collect tests need not spend

    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def test_there_is_one_for_each_arm_and_three_more() -> None:
    own = [name for name in arms.arm_names() if not arms.ARMS[name].is_peer]
    assert {path.stem for path in NOTEBOOKS} == {*own, "look", "demo", "compare"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path: Path) -> None:
    import nbformat

    notebook = read(path)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert not [cell for cell in cells if cell.outputs or cell.execution_count is not None]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}, "no traces of whoever opened it last"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_begins_with_prose_and_holds_no_logic(path: Path) -> None:
    notebook = read(path)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert "def " not in cell.source, "functions belong to the code, with tests"
            assert "glob(" not in cell.source, "walking a folder fails in ways that lab explains"
            assert len(cell.source.splitlines()) <= MAX_LINES


@pytest.mark.parametrize("arm", ["remote_one_sample", "webdataset", "stream", "litdata_streaming"])
def test_what_is_listed_is_the_split_that_is_measured(arm: str) -> None:
    code = code_of(arm)
    assert "folder.list(" in code
    assert "folder.list()" not in code


@pytest.mark.parametrize("arm", ["remote_one_sample", "webdataset", "stream"])
def test_an_arm_that_counts_requests_sets_them_against_images(arm: str) -> None:
    assert "lab.describe_requests(record)" in code_of(arm)


def code_of(stem: str) -> str:
    [path] = [path for path in NOTEBOOKS if path.stem == stem]
    return "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "code")
