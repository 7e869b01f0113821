"""Records to render."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.bench.report.read import RecordFile

EXAMPLE = Path(__file__).parents[1] / "comparison.json"
MakeRecord = Callable[..., RecordFile]
_CONTENT = json.loads(EXAMPLE.read_text())


@pytest.fixture
def content() -> dict[str, Any]:
    """The example record."""
    return copy.deepcopy(_CONTENT)


@pytest.fixture
def make_record() -> MakeRecord:
    """Return the example as a file, after a change of its content."""

    def make(change: Callable[[dict[str, Any]], object] = lambda record: None, name: str = "now.json") -> RecordFile:
        content = copy.deepcopy(_CONTENT)
        change(content)
        return RecordFile(name, f"digest of {name}", content)

    return make


def change_rates(arm: str, factor: float) -> Callable[[dict[str, Any]], None]:
    """Return a change that makes an arm faster by a factor in every round."""

    def change(record: dict[str, Any]) -> None:
        for one in record["rounds"]:
            if one["arm"] == arm:
                for epoch in one["epochs"]:
                    epoch["imgs_per_s"] *= factor
        for one in record["summary"]["arms"]:
            if one["arm"] == arm:
                for end in one["imgs_per_s"]:
                    one["imgs_per_s"][end] *= factor

    return change
