"""Tables beside images, as `datasets` defines them for ImageFolder: `metadata.csv` or `metadata.jsonl` in any folder.

Each row has a `file_name`, a path below the table's folder, and a column of classes: LARDER_LABEL_COLUMN, or the only
one that can be it. The split is the first folder of an image's path that has a split's name; where no path has one,
everything is `training`. See https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from larder.errors import InputError
from larder.ledger import explained
from larder.tree.names import sorted_labels
from larder.tree.recipes import Files, LeftOutError, RejectError, Sample, require_distinct
from larder.tree.splits import KNOWN_NAMES, OUT, SplitNames

_TABLES = ("metadata.csv", "metadata.jsonl")
_FILE = "file_name"
_USUAL = ("label", "labels", "class", "target", "category")
_LONGEST_LINE = 1 << 20


class Metadata:
    """The tables' rows, in an SQLite file so that their number doesn't matter."""

    def __init__(
        self, rows: sqlite3.Connection, tables: Iterable[str], names: SplitNames = KNOWN_NAMES
    ) -> None:  # fmt: skip
        self.classes = sorted_labels(str(row[0]) for row in rows.execute("SELECT DISTINCT label FROM rows"))
        require_distinct("the tables have classes", self.classes, "write them alike, then extract again")
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._rows, self._tables, self._names = rows, frozenset(tables), names
        self._with_splits = any(self._split_of(file) for (file,) in rows.execute("SELECT file FROM rows"))

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        if path in self._tables:
            return None
        row = self._rows.execute("SELECT label FROM rows WHERE file = ?", (path,)).fetchone()
        if row is None:
            raise RejectError("is named in no table of metadata")
        self._rows.execute("UPDATE rows SET seen = 1 WHERE file = ?", (path,))
        split = self._split_of(path)
        if split == OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        if self._with_splits and not split:
            raise RejectError("lies in no folder of a split, and other files do")
        return Sample(split or "training", self._labels[row[0]], path.rpartition("/")[2])

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        for file, place in self._rows.execute("SELECT file, place FROM rows WHERE seen = 0 ORDER BY file"):
            yield file, f"is named in {place}, but is not in the source"

    def _split_of(self, path: str) -> str:
        return next(filter(None, map(self._names.find, path.split("/")[:-1])), "")


def recognise(files: Files) -> str | None:
    """See `recipes`: a table with the column `file_name` in any folder."""
    return next((path for path in _tables(files) if _has_column(files, path)), None)


def _tables(files: Files) -> list[str]:
    return [path for path in files.survey.lists if path.rpartition("/")[2] in _TABLES]


def _has_column(files: Files, table: str) -> bool:
    with files.local(table).open("rb") as file:
        return _FILE.encode() in file.readline(_LONGEST_LINE)


def open(files: Files) -> Metadata:
    """Read all tables. Raises InputError when there is none, or one that isn't of the kind."""
    tables = _tables(files)
    if not tables:
        raise InputError(
            f"the source has no {' or '.join(_TABLES)}",
            next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE",
        )
    database = files.scratch / "metadata.sqlite"
    with explained(files.scratch):
        database.unlink(missing_ok=True)
        rows = sqlite3.connect(database)
        rows.execute("PRAGMA journal_mode = OFF")
        rows.execute("CREATE TABLE rows (file TEXT PRIMARY KEY, label TEXT, place TEXT, seen INTEGER)")
        for table in tables:
            files.require_intact(table)
            _load(files, table, rows)
        return Metadata(rows, tables, files.splits)


def _load(files: Files, table: str, rows: sqlite3.Connection) -> None:
    folder, column = PurePosixPath(table).parent, files.label_column
    for line, row in (_csv if table.endswith(".csv") else _jsonl)(files, table):
        column = column or _label_column(row, table)
        name, label = row.get(_FILE), row.get(column)
        if isinstance(label, bool | int):
            label = str(label)
        if not (name and isinstance(name, str) and label and isinstance(label, str) and label.strip()):
            raise _fault(table, line, f"lacks the {_FILE} or the {column!r}, or has another kind of value there")
        try:
            values = (str(folder / name), label.strip(), f"{table}, line {line:,}")
            rows.execute("INSERT INTO rows VALUES (?, ?, ?, 0)", values)
        except sqlite3.IntegrityError:
            (place,) = rows.execute("SELECT place FROM rows WHERE file = ?", (values[0],)).fetchone()
            raise _fault(table, line, f"names {values[0]!r}, which {place} does, too") from None
        except UnicodeEncodeError:
            raise _fault(table, line, "is not valid Unicode") from None


def _label_column(row: Mapping[str, Any], table: str) -> str:
    """The column of classes: one with a usual name, else the only one beside the file's name."""
    columns = [str(column) for column in row if column != _FILE]
    usual = [column for column in columns if column.lower() in _USUAL]
    found = usual or columns
    if len(found) == 1:
        return found[0]
    raise InputError(
        f"{table} has the columns {', '.join(map(repr, columns)) or '(none)'} beside {_FILE}",
        next_step="set LARDER_LABEL_COLUMN to the one of classes",
    )


def _csv(files: Files, table: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with files.local(table).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            if _FILE not in (reader.fieldnames or ()):
                raise _fault(table, 1, f"has no column {_FILE}")
            for row in reader:
                yield reader.line_num, {name: value for name, value in row.items() if name is not None}
        except (UnicodeDecodeError, csv.Error) as fault:
            raise _fault(table, reader.line_num + 1, f"is no CSV in UTF-8 ({fault})") from None


def _jsonl(files: Files, table: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with files.local(table).open("rb") as file:
        number = 0
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise _fault(table, number, "is no JSON object in UTF-8")
            yield number, row


def _fault(table: str, line: int, what: str) -> InputError:
    return InputError(
        f"{table}, line {line:,}: {what}", next_step="correct the table in the source, then extract again"
    )
