"""The notebooks in the repository."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from larder.bench import arms
from services.jupyter import jupyter, lab

NOTEBOOKS = sorted(jupyter.NOTEBOOKS.glob("*.ipynb"))
FIRST = "0-start"
WITH_LOADERS = ("2-files", "3-mount", "4-objects", "5-shards", "6-stream", "7-chunks")
MAX_LINES = 30
"""Of a cell. What takes more belongs to the code."""
MAX_NAME = 16
"""Letters of a file name that JupyterLab's file browser shows; test_jupyter.py looks at the page."""

by_name = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    """Return a notebook."""
    import nbformat  # takes seconds, which processes that only collect tests need not spend

    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def cells_of(path: Path, kind: str) -> list[str]:
    """Return the sources of the code cells or of the Markdown cells."""
    return [cell.source for cell in read(path).cells if cell.cell_type == kind]


def test_the_first_one_leads_through_all_others_in_order() -> None:
    names = [path.stem for path in NOTEBOOKS]
    assert names[0] == FIRST
    text = "\n".join(cells_of(NOTEBOOKS[0], "markdown"))
    assert list(dict.fromkeys(re.findall(r"\[([\w-]+)\]\(\1\.ipynb\)", text))) == names[1:]


@by_name
def test_links_lead_to_notebooks(path: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", "\n".join(cells_of(path, "markdown")))
    assert {link for link in links if not (path.parent / link).exists()} == set()


@by_name
def test_its_name_fits_the_file_browser(path: Path) -> None:
    assert re.fullmatch(r"\d-[a-z-]+\.ipynb", path.name)
    assert len(path.name) <= MAX_NAME


@by_name
def test_it_is_stored_without_outputs(path: Path) -> None:
    import nbformat

    notebook = read(path)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells
    assert not [cell for cell in cells if cell.outputs or cell.execution_count is not None]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}, "no traces of whoever opened it last"
    assert {key for cell in notebook.cells for key in cell.metadata} <= {"tags"}


@by_name
def test_it_begins_with_prose_and_has_short_cells(path: Path) -> None:
    notebook = read(path)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert max(len(cell.splitlines()) for cell in cells_of(path, "code")) <= MAX_LINES


@by_name
def test_each_measurement_has_a_question_before_and_an_explanation_after(path: Path) -> None:
    """Cells between them show what was measured."""
    cells = [(cell.cell_type, cell.source) for cell in read(path).cells]
    for number, (kind, source) in enumerate(cells):
        if kind == "code" and re.search(r"measure_\w+\(", source):
            before = next(text for kind, text in cells[number - 1 :: -1] if kind == "markdown")
            after = next(text for kind, text in cells[number + 1 :] if kind == "markdown")
            assert "**Question.**" in before, source
            assert after.startswith("**Explanation.**"), source


@by_name
def test_explanations_name_no_rates(path: Path) -> None:
    """A reader's run may show others: what was measured is printed by the cell."""
    for text in cells_of(path, "markdown"):
        assert not re.search(r"\d[\d,.]* (images/s|times as|times faster|%)", text)


@pytest.mark.parametrize("name", WITH_LOADERS)
def test_it_has_its_own_loader_and_changes_something(name: str) -> None:
    code = "\n".join(cells_of(jupyter.NOTEBOOKS / f"{name}.ipynb", "code"))
    assert re.search(r"def make_(loader|stream)\(", code)
    assert re.search(r"\b(DataLoader|WebLoader|StreamingDataLoader|ShardStream)\(", code)
    assert code.count("= measure_each(") >= 2
    assert code.count(".verdict()") >= 2


def test_every_arm_has_its_notebook() -> None:
    own = [name for name in arms.arm_names() if not arms.ARMS[name].is_peer]
    code = "\n".join(source for path in NOTEBOOKS for source in cells_of(path, "code"))
    measured = re.findall(r'lab\.bench\("(\w+)"\)', code)
    assert sorted(measured) == sorted(own) == sorted(lab.READS)


@by_name
def test_what_is_read_is_asked_for_first(path: Path) -> None:
    """Else a cell fails where something is missing, and JupyterLab runs no further cell."""
    for source in cells_of(path, "code"):
        asked = set(re.findall(r'lab\.ready\("(\w+)"\)', source))
        assert set(re.findall(r'lab\.(?:find|open_artifact)\("(\w+)"\)', source)) <= asked or "def " in source
        if re.search(r"lab\.bench\(|measure_\w+\(|next\(iter\(", source) and path.stem != FIRST:
            assert asked or "def " in source, source
