"""Reading records with the standard library: the same verdict as the classes that define them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from larder.bench.comparison_record import SCHEMA as SCHEMA_OF_CLASSES
from larder.bench.comparison_record import SCHEMA_FILE as FILE_OF_CLASSES
from larder.bench.report.read import MAX_BYTES, SCHEMA, SCHEMA_FILE, read_record
from larder.bench.report.schema import ANNOTATIONS, KEYWORDS, find_faults
from larder.errors import InputError
from tests.unit.bench.report.conftest import EXAMPLE

RULES = json.loads(SCHEMA_FILE.read_text())
Change = Callable[[dict[str, Any]], object]
WRONG: dict[str, tuple[Change, str]] = {
    "missing": (lambda record: record.pop("rounds"), "rounds: is missing"),
    "unknown": (lambda record: record["provenance"].update(host="x"), "provenance.host: is unknown"),
    "type": (lambda record: record["data"].update(samples="4"), "data.samples: must be of type integer"),
    "a truth value for a number": (
        lambda record: record["data"].update(samples=True),
        "data.samples: must be of type integer",
    ),
    "negative": (lambda record: record["rounds"][0].update(round=-1), "rounds.0.round: must be 0 or more"),
    "share": (lambda record: record["rounds"][0]["epochs"][0].update(order_entropy=1.5), "must be 1 or less"),
    "choice": (lambda record: record.update(status="done"), "status: must be one of complete, partial"),
    "no epoch": (lambda record: record["rounds"][0].update(epochs=[]), "rounds.0.epochs: must have 1 or more"),
    "values of a table": (
        lambda record: record["provenance"]["versions"].update(torch=2),
        "provenance.versions.torch: must be of type string",
    ),
    "in the form that fits best": (
        lambda record: record["summary"]["repeated"].pop("verdict"),
        "summary.repeated.verdict: is missing",
    ),
}


def written(folder: Path, content: object) -> Path:
    (path := folder / "record.json").write_text(json.dumps(content))
    return path


def test_the_schema_is_that_of_the_classes() -> None:
    assert (SCHEMA, SCHEMA_FILE) == (SCHEMA_OF_CLASSES, FILE_OF_CLASSES)


def test_every_keyword_of_the_schema_is_checked() -> None:
    def keywords(schema: object) -> set[str]:
        if isinstance(schema, list):
            return set().union(*map(keywords, schema))
        if not isinstance(schema, dict):
            return set()
        inner = [value for key, value in schema.items() if key in ("anyOf", "items", "additionalProperties")]
        named = [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
        return set(schema).union(*map(keywords, [*inner, *named]))

    assert keywords(RULES) - KEYWORDS - ANNOTATIONS == set()


def test_the_example_is_read() -> None:
    record = read_record(EXAMPLE)
    assert record.content == json.loads(EXAMPLE.read_text())
    assert (record.name, len(record.sha256)) == ("comparison.json", 64)


@pytest.mark.parametrize(("change", "fault"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(content: dict[str, Any], tmp_path: Path, change: Change, fault: str) -> None:
    change(content)
    assert not jsonschema.Draft202012Validator(RULES).is_valid(content), "another validator agrees"
    with pytest.raises(InputError) as refused:
        read_record(written(tmp_path, content))
    assert fault in refused.value.what


def test_numbers_that_nobody_measures_are_refused(content: dict[str, Any]) -> None:
    content["seconds"] = 10**400
    assert list(find_faults(content, RULES, RULES)) == ["seconds: must be 1e+18 or less"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imgs/s 400", "isn't JSON"),
        ('{"schema": NaN}', "isn't JSON: NaN is no number"),
        ("[" * 200_000, "isn't JSON"),
        ("\udcff", "isn't JSON"),
        ("[]", "isn't a record of the form larder-comparison/1: its `schema` is 'None'"),
        ('{"schema": "larder-comparison/2"}', "its `schema` is 'larder-comparison/2'"),
        ('{"schema": "larder-comparison/1"}', "isn't a valid record of a comparison: id: is missing"),
        (" " * (MAX_BYTES + 1), "is longer than 64 MiB"),
    ],
    ids=["text", "NaN", "nested", "bytes", "list", "another version", "empty", "too long"],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (path := tmp_path / "record.json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError) as refused:
        read_record(path)
    assert message in refused.value.what


@pytest.mark.parametrize("name", ["", "absent"], ids=["folder", "absent"])
def test_what_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="can't be read: "):
        read_record(tmp_path / name)


def test_the_report_needs_only_the_standard_library() -> None:
    code = (
        "import sys; from larder.bench.report.render import render_report; "
        "print(*{name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names) - {'__main__'})"
    )
    done = subprocess.run(
        [sys.executable, "-ISsc", f"import sys; sys.path.insert(0, {str(Path(__file__).parents[4])!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["larder"]
