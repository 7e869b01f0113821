"""A table at hand: a CSV file with the columns `file`, `label` and, optionally, `split`.

`file` is a path below the source's top, or below the table's folder. Labels may be names or numbers; classes are
numbered in the order of the sorted labels (as numbers where all are). Without `split`, everything is `training`; the
usual short names of the splits (train, val, test) mean Food-11's.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from larder.contract import META
from larder.errors import InputError
from larder.ledger import explained
from services.transform.recipes import SPLITS, Files, RejectError, Sample

_DEFAULT_SPLIT = "training"
_NAME_IT = "set LARDER_CSV to the table's path in the source"


class Table:
    """The table's rows, in an SQLite file so that its length doesn't matter."""

    def __init__(self, rows: sqlite3.Connection, table: str) -> None:
        labels = [str(row[0]) for row in rows.execute("SELECT DISTINCT label FROM rows")]
        self.classes = sorted(labels, key=int) if all(label.isdecimal() for label in labels) else sorted(labels)
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._rows, self._table = rows, table

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        if path == self._table:
            return None
        row = self._rows.execute("SELECT split, label FROM rows WHERE file = ?", (path,)).fetchone()
        if row is None:
            raise RejectError(f"is not named in {self._table}")
        self._rows.execute("UPDATE rows SET seen = 1 WHERE file = ?", (path,))
        return Sample(row[0], self._labels[row[1]], PurePosixPath(path).name)

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        for file, line in self._rows.execute("SELECT file, line FROM rows WHERE seen = 0 ORDER BY file"):
            yield file, f"is named in {self._table}, line {line}, but is not in the source"


def open(files: Files) -> Table:
    """Read the table. Raises InputError when there is none, or when it is none of the kind."""
    table = str(PurePosixPath(files.csv)) if files.csv else _find(files)
    path = files.folder / table
    if not path.is_file():
        raise InputError(f"the source has no file {table}", next_step=_NAME_IT)
    files.require_intact(table)
    with explained(files.scratch):
        return Table(_load(files, table), table)


def _load(files: Files, table: str) -> sqlite3.Connection:
    """The table's rows in a database."""
    database = files.scratch / "csv.sqlite"
    database.unlink(missing_ok=True)
    rows = sqlite3.connect(database)
    rows.execute("PRAGMA journal_mode = OFF")
    rows.execute("CREATE TABLE rows (file TEXT PRIMARY KEY, label TEXT, split TEXT, line INTEGER, seen INTEGER)")
    folder = str(PurePosixPath(table).parent)
    prefix = "" if folder == "." else folder + "/"
    for line, file, label, split in _read(files, table):
        place = file if not prefix or (files.folder / file).exists() else prefix + file
        try:
            rows.execute("INSERT INTO rows VALUES (?, ?, ?, ?, 0)", (place, label, split, line))
        except sqlite3.IntegrityError:
            raise _fault(table, line, f"names {file!r} a second time") from None
    return rows


def _find(files: Files) -> str:
    found = [path for path in files.paths() if "/" not in path and path.lower().endswith(".csv")]
    if len(found) != 1:
        raise InputError(
            f"the source has {', '.join(found) if found else 'no CSV file'} at its top; exactly one is expected",
            next_step=_NAME_IT,
        )
    return found[0]


def _read(files: Files, table: str) -> Iterator[tuple[int, str, str, str]]:
    """Line number, file, label and split of every row."""
    with (files.folder / table).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        try:
            columns = reader.fieldnames or []
            if not {"file", "label"} <= set(columns):
                has = f"has the columns {', '.join(columns)}" if columns else "is empty"
                raise _fault(table, 1, f"{has}, and the columns file and label are needed")
            for row in reader:
                name, label, split = row["file"], row["label"], row.get("split") or _DEFAULT_SPLIT
                if not name or not label:
                    raise _fault(table, reader.line_num, "lacks the file or the label")
                if "/" in split or split in (".", "..", META) or not split.isprintable():
                    raise _fault(table, reader.line_num, f"has the split {split!r}, which can't be a folder's name")
                yield reader.line_num, str(PurePosixPath(name)), label, SPLITS.get(split, split)
        except (UnicodeDecodeError, csv.Error) as fault:
            raise _fault(table, reader.line_num + 1, f"is no CSV in UTF-8 ({fault})") from None


def _fault(table: str, line: int, what: str) -> InputError:
    return InputError(f"{table}, line {line}: {what}", next_step="correct the table in the source, then extract again")
