"""The tables of fields in docs/contract.md: docs.generate makes them from the code."""

import json
from pathlib import Path
from typing import NamedTuple

import pytest

from docs import fields
from larder.entries import IndexEntry, SampleEntry
from larder.stage import Clock, RunRecord

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contract.md").read_text()


class Undocumented(NamedTuple):
    field: int


def first_column(table: str) -> list[str]:
    return [line.split("|")[1].strip().strip("`") for line in table.splitlines()[2:]]


def test_every_table_is_on_the_page_and_fresh() -> None:
    for name, table in fields.tables().items():
        assert f"<!-- fields: {name} -->\n{table}\n<!-- end -->" in PAGE


def test_a_stale_table_is_replaced() -> None:
    assert fields.with_tables(PAGE.replace("Version of the format.", "Something else.")) == PAGE


def test_an_unknown_table_is_an_error() -> None:
    with pytest.raises(KeyError, match="recipes"):
        fields.with_tables("<!-- fields: recipes -->\n<!-- end -->")


def test_a_field_without_docstring_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"Undocumented\.field has no docstring"):
        list(fields._fields_of(Undocumented))


def test_lines_of_indexes_have_the_documented_keys() -> None:
    entry = IndexEntry(
        "a.jpg", 1, "0" * 64, 0, 2, 2, "a.jpg", "etag", None, "s3://bucket/a.tar", 512, 1, "deflate", 3
    )  # fmt: skip
    assert keys_of(entry.to_json()) == set(first_column(fields.tables()["index"]))
    sample = SampleEntry("a.tar", 512, 1, "0" * 64, 0, "a.jpg", "a")
    assert keys_of(sample.to_json()) == set(first_column(fields.tables()["samples"]))


def test_run_json_has_the_documented_keys() -> None:
    assert Clock().record().keys() == RunRecord.__annotations__.keys()


def keys_of(line: str) -> set[str]:
    return set(json.loads(line))
