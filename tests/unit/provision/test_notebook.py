"""The notebook for Chameleon's Jupyter; tests/openstack executes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).resolve().parents[3] / "provision" / "chameleon.ipynb"


@pytest.fixture(scope="module")
def notebook() -> Any:
    import nbformat  # takes seconds, which processes that only collect tests need not spend

    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def test_it_is_stored_without_outputs(notebook: Any) -> None:
    import nbformat

    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 10 and not [cell for cell in cells if cell.outputs or cell.execution_count is not None]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


def test_each_command_is_explained_and_nothing_waits_for_an_answer(notebook: Any) -> None:
    assert notebook.cells[0].cell_type == "markdown" and notebook.cells[0].source.startswith("# ")
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for source in code:
        assert len(source.splitlines()) <= 6
        commands = re.findall(r"python3 -m larder .*", source)
        assert len(commands) < 2 or source.startswith("%%bash\nset -e\n"), "else only the last failure would be seen"
        assert not [command for command in commands if " ssh " in command and not command.endswith("</dev/null")]
        deletes = re.search(r" (down|server delete|bucket delete|revoke)\b", source)
        assert not deletes or "--yes" in source, "a notebook has no terminal to ask in"
    used = set(re.findall(r"provision/examples/([a-z-]+)\.toml", "\n".join(code)))
    assert used == {"jupyter-block", "jupyter-object"}
