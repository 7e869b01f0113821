"""Render a comparison as tables for the terminal, and as Markdown: the same as those of its report."""

from __future__ import annotations

from larder.bench.records import Comparison
from larder.bench.report import tables
from larder.terminal import Lines


def as_table(comparison: Comparison) -> Lines:
    """Return the comparison's tables in aligned columns, with the answer above and remarks below."""
    record = comparison.model_dump(mode="json", by_alias=True)
    return tables.as_text(comparison.summary.answer, tables.all_tables(record), tables.notes(record))


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    record = comparison.model_dump(mode="json", by_alias=True)
    return tables.as_markdown(comparison.summary.answer, tables.all_tables(record), tables.notes(record))
