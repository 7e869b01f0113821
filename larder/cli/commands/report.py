"""Render the record of a comparison as a page, as Markdown and on the terminal."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from larder.cli.app import App
from larder.cli.commands.pipelines import merge_records
from larder.cli.console import print_message, print_result
from larder.cli.setting_specs import PATH_SETTINGS, settings_of_stages
from larder.errors import InputError, StorageError, explain_os_error

PATTERN = "compare-*.json"
"""Names of records."""
_REVISION = re.compile(r"([0-9a-f]{7,40})(-dirty)?")


def report(app: App, words: Sequence[str]) -> None:
    """Write the report of a record, and print its tables. Several records are put together first, as one."""
    from larder.bench.report.read import read_record  # imported here to keep the command's start fast
    from larder.bench.report.render import render_report

    given, results = app.settings.given, app.root / app.settings.results
    names = [name for name in (*words, *given.get("RECORD", "").split(",")) if name]
    if len(names) > 1:
        found = _put_together(app, [_find_record(app, name, results) for name in names], results)
        if found is None:
            return
        path = found
    else:
        path = _find_record(app, names[0] if names else "", results)
    against = given.get("AGAINST", "")
    record = read_record(path)
    made = render_report(
        record,
        read_record(_find_record(app, against, results)) if against else None,
        list(_reproducing_commands(record.content)),
    )
    stem = path.name[: -len(".json")] if path.name.endswith(".json") else path.name
    page, markdown, picture = (results / f"{stem}.{kind}" for kind in ("html", "md", "svg"))
    if app.dry_run:
        print_message(f"would write {page}, {markdown} and {picture}")
        return
    _write(results, {page: made.html, markdown: made.markdown, picture: made.picture})
    print_result(made.text)
    print_message(f"page {page}, tables {markdown}, picture {picture}")
    if not against:
        print_message(f"Next: {app.typed_command('report AGAINST=<record>')} shows what changed since another run")


def _put_together(app: App, paths: Sequence[Path], results: Path) -> Path | None:
    """Let compare write the rounds of several records as one; return its path, or None in a dry run.

    Raises:
        InputError: If a record can't be read, or the records aren't comparable. This is known before any image or
            environment is needed.
    """
    from larder.bench.report.comparable import NamedRecord, require_comparable
    from larder.bench.report.read import read_record

    first, *others = (NamedRecord(path.name, read_record(path).content) for path in paths)
    for other in others:
        require_comparable(first, other, same_code=True)
    before = set(results.glob(PATTERN))
    merge_records(app, [_name_for_compare(path, results) for path in paths])
    if app.dry_run:
        return None
    new = sorted(set(results.glob(PATTERN)) - before)
    if not new:
        raise InputError(
            f"compare has put the records together, and {results} has no new record",
            next_step="set LARDER_RESULTS to the folder of records, in the environment or in .env",
        )
    return new[-1]


def _name_for_compare(path: Path, results: Path) -> str:
    """Return a record's name as compare finds it, also in a container, which has the folder of results only."""
    return path.name if path.parent.resolve() == results.resolve() else str(path.resolve())


def _find_record(app: App, name: str, results: Path) -> Path:
    """Return the path of a record. A name without a folder is also looked for in the folder of results."""
    if name:
        path = Path(name)
        return path if len(path.parts) > 1 or path.exists() else results / path
    try:
        records = sorted(results.glob(PATTERN))  # their names have the time in UTC
    except OSError as error:
        raise InputError(
            f"{results} can't be read: {error.strerror}", next_step="set LARDER_RESULTS to the folder of records"
        ) from error
    if not records:
        raise InputError(
            f"{results} has no record of a comparison",
            next_step=f"run `{app.typed_command('compare')}`, or name a record in RECORD",
        )
    return records[-1]


def _reproducing_commands(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines of shell that run the same comparison with the same code."""
    revision = _REVISION.fullmatch(record["provenance"]["revision"])
    if revision:
        yield f"git checkout {revision[1]}" + ("   # and the changes that it had" if revision[2] else "")
    words = [f"{name}={shlex.quote(value)}" for name, value in _changed_settings(record["settings"])]
    yield " ".join(["python3 -m larder compare", *words])
    runs = len(record.get("runs_utc", ()))
    if runs > 1:
        yield f"# {runs} times; then name these records:"
        yield "python3 -m larder report <record> <record>"
    else:
        yield "python3 -m larder report"


def _changed_settings(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings of a record that aren't the default, without secrets and without paths on its machine."""
    for setting in settings_of_stages(["bench"]):
        value = settings.get(setting.flag[2:].replace("-", "_"))
        shown = str(value).lower() if isinstance(value, bool) else str(value)
        is_default = value is None or value == "" or shown == setting.default
        is_plain = isinstance(value, (str, int, float)) and not setting.secret and setting.name not in PATH_SETTINGS
        if is_plain and not is_default:
            yield setting.name, shown


def _write(folder: Path, files: Mapping[Path, str]) -> None:
    """Write files to a folder, which is created if necessary, so that readers never see a partial one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in files.items():
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            os.replace(temporary, path)
    except OSError as error:
        known = explain_os_error(error)
        cause = known.what if known else f"{error.strerror}: {error.filename!r}"
        raise StorageError(
            f"LARDER_RESULTS={str(folder)!r}: the report can't be written there: {cause}",
            next_step=f"set LARDER_RESULTS to a folder that user {os.getuid()} can write, or give that user access",
        ) from error
