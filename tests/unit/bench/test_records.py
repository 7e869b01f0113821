"""Records of comparisons: their form, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from larder.bench.records import SCHEMA_FILE, json_schema, read_comparison
from larder.errors import InputError

EXAMPLE = Path(__file__).with_name("comparison.json")


def test_the_example_follows_the_schema() -> None:
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(json.loads(EXAMPLE.read_text()))


def test_the_schema_is_that_of_the_classes() -> None:
    assert SCHEMA_FILE.read_text() == json_schema()


def test_a_record_is_written_as_it_was_read() -> None:
    assert read_comparison(EXAMPLE).as_json() == EXAMPLE.read_text()


def changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(EXAMPLE.read_text())
    change(content)
    (path := tmp_path / "record.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(schema="larder-comparison/2"), "'larder-comparison/2'"),
        (lambda record: record.pop("schema"), "its `schema` is 'None'"),
        (lambda record: record.pop("rounds"), "rounds"),
        (lambda record: record["rounds"][0].update(round=-1), "rounds.0.round: must be 0 or more"),
        (lambda record: record["provenance"].update(host="secret"), "provenance.host: is unknown"),
    ],
    ids=["another version", "another file", "missing part", "impossible number", "unknown field"],
)
def test_other_records_are_refused(tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(InputError) as refused:
        read_comparison(changed(tmp_path, change))
    assert message in refused.value.what


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("imgs/s 400")
    with pytest.raises(InputError, match="can't be read"):
        read_comparison(tmp_path / "record.json")
