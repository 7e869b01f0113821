"""Records of comparisons: their form, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from larder.bench.comparison_record import SCHEMA_FILE, json_schema, read_comparison
from larder.errors import InputError

EXAMPLE = Path(__file__).with_name("comparison.json")


def test_the_example_follows_the_schema() -> None:
    jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text())).validate(json.loads(EXAMPLE.read_text()))


def test_the_schema_is_that_of_the_classes() -> None:
    assert SCHEMA_FILE.read_text() == json_schema()


def test_a_record_is_written_as_it_was_read(tmp_path: Path) -> None:
    (path := tmp_path / "record.json").write_text(read_comparison(EXAMPLE).as_json())
    assert read_comparison(path).as_json() == path.read_text()


def test_a_record_from_before_further_fields_reads_the_same() -> None:
    """The example has none of the fields that were added later; each has a default."""
    old, now = json.loads(EXAMPLE.read_text()), json.loads(read_comparison(EXAMPLE).as_json())
    assert "latency_s" not in old["provenance"]
    assert without_additions(now, old) == old


def without_additions(now: Any, old: Any) -> Any:
    """Return a record without the keys that an older one doesn't have."""
    if isinstance(old, dict):
        return {name: without_additions(now[name], value) for name, value in old.items()}
    if isinstance(old, list):
        return [without_additions(new, value) for new, value in zip(now, old, strict=True)]
    return now


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
