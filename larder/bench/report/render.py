"""Render the report of a record in its forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from larder.bench.report import changes, tables
from larder.bench.report.changes import Changes
from larder.bench.report.page import render_page
from larder.bench.report.picture import draw_picture
from larder.bench.report.read import RecordFile
from larder.terminal import Lines


class Report(NamedTuple):
    """A report in its forms."""

    html: str
    markdown: str
    text: Lines
    """For a terminal."""
    picture: str
    """The throughput as an SVG file; empty without figures."""


def render_report(record: RecordFile, against: RecordFile | None, commands: Sequence[str]) -> Report:
    """Return the report of a record.

    Args:
        record: The record.
        against: An earlier record to compare it with, or None.
        commands: Lines of shell that reproduce the comparison.

    Raises:
        InputError: If the two records aren't comparable.
    """
    changed = None if against is None else changes.compare_records(record, against)
    answer, shown, remarks = _parts(record, changed)
    return Report(
        render_page(record, changed, commands),
        tables.as_markdown(answer, shown, remarks),
        tables.as_text(answer, shown, remarks),
        draw_picture(record.content),
    )


def _parts(record: RecordFile, changed: Changes | None) -> tuple[str, Sequence[tables.Table], Sequence[str]]:
    """Return the answer, tables and remarks that all forms have in common."""
    content = record.content
    answer, shown, remarks = content["summary"]["answer"], tables.all_tables(content), tables.notes(content)
    if changed is None:
        return answer, shown, remarks
    others = [changed.software] if changed.software.rows else []
    return (
        f"{answer} {changes.headline(changed)}",
        [changes.changes_table(changed), *others, *shown],
        [*changes.remarks(changed), *remarks],
    )
