"""Render a comparison as tables for the terminal and as Markdown, the same as those of its report; write its files."""

from __future__ import annotations

from typing import NamedTuple

from larder.bench.comparison_record import Comparison
from larder.bench.record_folder import RecordFile
from larder.bench.report import tables
from larder.terminal import Lines


class ComparisonFiles(NamedTuple):
    """A comparison, and the names of its files in the folder of results."""

    comparison: Comparison
    record: str
    """The record, as JSON."""
    markdown: str
    """Its tables."""


def write_files(reserved: RecordFile, comparison: Comparison) -> ComparisonFiles:
    """Write the tables, then the record, which is complete once it is there."""
    tables_file = reserved.path.with_suffix(".md")
    tables_file.write_text(as_markdown(comparison), encoding="utf-8")
    reserved.write(comparison.model_dump(mode="json", by_alias=True))
    return ComparisonFiles(comparison, reserved.path.name, tables_file.name)


def as_table(comparison: Comparison, *, left_out: bool = True) -> Lines:
    """Return the comparison's tables in aligned columns, with the answer above and remarks below.

    Args:
        comparison: The comparison.
        left_out: Whether the remarks tell which arms were left out.
    """
    record = comparison.model_dump(mode="json", by_alias=True)
    remarks = tables.notes(record if left_out else {**record, "left_out": []})
    return tables.as_text(comparison.summary.answer, tables.all_tables(record), remarks)


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    record = comparison.model_dump(mode="json", by_alias=True)
    return tables.as_markdown(comparison.summary.answer, tables.all_tables(record), tables.notes(record))
