"""Render the report of a record, and write it beside the other results."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from larder.bench.report import changes, tables
from larder.bench.report.changes import Changes, compare_records
from larder.bench.report.page import render_page
from larder.bench.report.read import RecordFile, read_record
from larder.errors import InputError, StorageError, explain_os_error
from larder.terminal import Lines

CommandsOf = Callable[[RecordFile], Sequence[str]]
PATTERN = "compare-*.json"
"""Names of records."""


class Report(NamedTuple):
    """A report in its three forms."""

    name: str
    """Name of the record, without its extension."""
    html: str
    markdown: str
    text: Lines


def find_record(name: str, results: Path) -> Path:
    """Return the path of a record: as given, or in the folder of results if only a name is given.

    Args:
        name: Path or name of a record; empty is the latest one.
        results: Folder with records.

    Raises:
        InputError: If `name` is empty, and there is no record.
    """
    if name:
        path = Path(name)
        return path if len(path.parts) > 1 or path.exists() else results / path
    records = sorted(results.glob(PATTERN))  # names have the time in UTC
    if not records:
        raise InputError(
            f"{results} has no record of a comparison", next_step="run `larder compare`, or name a record in RECORD"
        )
    return records[-1]


def make_report(record: Path, against: Path | None, commands_of: CommandsOf) -> Report:
    """Return the report of a record.

    Args:
        record: The record.
        against: An earlier record to compare it with, or None.
        commands_of: Returns the commands that reproduce a record.

    Raises:
        InputError: If a file isn't a record, or the two aren't comparable.
    """
    file = read_record(record)
    changed = None if against is None else compare_records(file, read_record(against))
    answer, shown, remarks = _parts(file, changed)
    return Report(
        record.name[: -len(".json")] if record.name.endswith(".json") else record.name,
        render_page(file, changed, commands_of(file)),
        tables.as_markdown(answer, shown, remarks),
        tables.as_text(answer, shown, remarks),
    )


def write_report(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write the page and the Markdown to a folder, which is created if necessary. Return their paths.

    Raises:
        StorageError: If the folder can't be created or written.
    """
    page, markdown = folder / f"{report.name}.html", folder / f"{report.name}.md"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(page, report.html)
        _replace(markdown, report.markdown)
    except OSError as error:
        known = explain_os_error(error)
        cause = known.what if known else f"{error.strerror}: {error.filename!r}"
        raise StorageError(
            f"LARDER_RESULTS={str(folder)!r}: the report can't be written there: {cause}",
            next_step=f"set LARDER_RESULTS to a folder that user {os.getuid()} can write, or give that user access",
        ) from error
    return page, markdown


def _parts(file: RecordFile, changed: Changes | None) -> tuple[str, list[tables.Table], Sequence[str]]:
    answer, shown, remarks = (
        file.content["summary"]["answer"],
        tables.all_tables(file.content),
        tables.notes(file.content),
    )
    if changed is None:
        return answer, shown, remarks
    others = [changed.software] if changed.software.rows else []
    return (
        f"{answer} {changes.headline(changed)}",
        [changes.changes_table(changed), *others, *shown],
        [*changes.remarks(changed), *remarks],
    )


def _replace(path: Path, text: str) -> None:
    """Write a file under another name and rename it, so that readers never see a partial one."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    os.replace(temporary, path)
