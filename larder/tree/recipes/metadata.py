"""Tables beside images, as `datasets` defines them for ImageFolder: `metadata.csv` or `metadata.jsonl` in any folder.

Each row has a `file_name`, a path below the table's folder, and a class. The column of classes is LARDER_LABEL_COLUMN,
or the only possible one. The split is in a column `split` (set, subset, partition), or is that of the first folder in
the image's path with a split's name; if both exist, they must agree. Without splits, all samples are `training`. See
https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

import csv
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from larder.errors import InputError
from larder.ledger import map_database_errors
from larder.tree.file_names import sorted_labels
from larder.tree.labels import require_classes
from larder.tree.recipes import (
    DEFAULT_SPLIT,
    AssignedSample,
    LeftOutError,
    RecipeFiles,
    RejectError,
    require_distinct,
    require_no_unknown_splits,
    unlisted_error,
)
from larder.tree.source_summary import first_names
from larder.tree.splits import COLUMNS, KNOWN_NAMES, OUT, SplitColumn, SplitNames

_TABLES = ("metadata.csv", "metadata.jsonl")
_FILE = "file_name"
_LABEL_NAMES = ("label", "labels", "class", "target", "category")
_MAX_LINE_BYTES = 1 << 20
_MAX_FOLDERS = 10_000


class MetadataRecipe:
    """Recipe that takes split and class from the tables. Rows are in an SQLite file, so that memory stays constant."""

    def __init__(self, rows: sqlite3.Connection, tables: Iterable[str], names: SplitNames = KNOWN_NAMES) -> None:
        labels = rows.execute("SELECT DISTINCT label FROM rows WHERE split <> ?", (OUT,))
        self.classes = sorted_labels(str(row[0]) for row in labels)
        splits = [str(row[0]) for row in rows.execute("SELECT DISTINCT split FROM rows")]
        require_distinct("the tables have classes", self.classes, "spell them the same, then extract again")
        require_distinct("the tables have splits", splits, "spell them the same, then extract again")
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._rows, self._tables, self._names = rows, frozenset(tables), names
        self._with_splits = any(splits)
        self.is_undivided = not self._with_splits

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        if path in self._tables:
            return None
        row = self._rows.execute("SELECT label, split FROM rows WHERE file = ?", (path,)).fetchone()
        if row is None:
            raise unlisted_error(path, "is not listed in any metadata table", self._names)
        self._rows.execute("UPDATE rows SET seen = 1 WHERE file = ?", (path,))
        label, split = row
        if split == OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        if self._with_splits and not split:
            raise RejectError("doesn't lie in a split's folder, and other files do")
        return AssignedSample(split or DEFAULT_SPLIT, self._labels[label], path.rpartition("/")[2])

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        query = "SELECT file, position FROM rows WHERE seen = 0 AND split <> ? ORDER BY file"
        for file, position in self._rows.execute(query, (OUT,)):
            yield file, f"is named in {position}, but is not in the source"


def recognize(files: RecipeFiles) -> str | None:
    """Detect a table with the column `file_name` in any folder; see `recipes`."""
    return next((path for path in _tables(files) if _has_column(files, path)), None)


def _tables(files: RecipeFiles) -> list[str]:
    return [path for path in files.summary.lists if path.rpartition("/")[2] in _TABLES]


def _has_column(files: RecipeFiles, table: str) -> bool:
    with files.local(table).open("rb") as file:
        return _FILE.encode() in file.readline(_MAX_LINE_BYTES)


def open(files: RecipeFiles) -> MetadataRecipe:
    """Read all tables.

    Raises:
        InputError: If there is no table, or one is invalid.
    """
    tables = _tables(files)
    if not tables:
        raise InputError(
            f"the source has no {' or '.join(_TABLES)}",
            next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE",
        )
    database = files.scratch / "metadata.sqlite"
    with map_database_errors(files.scratch):
        database.unlink(missing_ok=True)
        rows = sqlite3.connect(database)
        rows.execute("PRAGMA journal_mode = OFF")
        rows.execute("CREATE TABLE rows (file TEXT PRIMARY KEY, label TEXT, split TEXT, position TEXT, seen INTEGER)")
        splits = _Splits(files)
        for table in tables:
            files.require_intact(table)
            _load(files, table, rows, splits)
        splits.require_consistent()
        if not files.label_column:
            _require_classes(files, tables, rows)
        return MetadataRecipe(rows, tables, files.splits)


def _require_classes(files: RecipeFiles, tables: list[str], rows: sqlite3.Connection) -> None:
    labels = [str(row[0]) for row in rows.execute("SELECT DISTINCT label FROM rows WHERE split <> ?", (OUT,))]
    (count,) = rows.execute("SELECT count(*) FROM rows WHERE split <> ?", (OUT,)).fetchone()

    def read_other_columns() -> Iterator[Mapping[str, Any]]:
        for table in tables:
            label = split = ""
            for line, row in _read(files, table):
                split = split or _split_column(row, table, line, "")
                label = label or _label_column(row, table, split)
                yield {column: value for column, value in row.items() if column not in (_FILE, label, split)}

    require_classes(labels, count, f"{first_names(tables)}: the column of classes", read_other_columns)


class _Splits:
    """Splits of rows, from the column, the folders, or both."""

    def __init__(self, files: RecipeFiles) -> None:
        self._names, self._column = files.splits, SplitColumn(files.splits)
        self._folders, self._has_splits = set[str](), False

    def split(self, file: str, value: str | None, position: str) -> str:
        """Return the split of a row, "-" or "". Raise ValueError if it is invalid or contradicts the folder."""
        folders = file.split("/")[:-1]
        by_folder = next(filter(None, map(self._names.find, folders)), "")
        split = by_folder
        if value is not None:
            split = self._column.split(value, position)
            if by_folder and by_folder != split and OUT not in (by_folder, split):
                raise ValueError(
                    f"says that {file!a} is of the split {split!a}, and its folder says {by_folder!a}; "
                    "LARDER_SPLITS=none uses the column only"
                )
        if not split and len(self._folders) < _MAX_FOLDERS:
            self._folders.add("/".join(folders))
        self._has_splits = self._has_splits or bool(split)
        return OUT if by_folder == OUT else split

    def require_consistent(self) -> None:
        """Raise InputError if rows lack a split that others have, or folders resemble splits."""
        self._column.require_values()
        if not self._has_splits:
            require_no_unknown_splits(self._folders, self._names)


def _load(files: RecipeFiles, table: str, rows: sqlite3.Connection, splits: _Splits) -> None:
    folder, column = PurePosixPath(table).parent, files.label_column
    split_column, first = "", True
    for line, row in _read(files, table):
        current = _split_column(row, table, line, column)
        if not first and current != split_column:
            raise _metadata_error(
                table, line, f"has a column {current or split_column!r} or lacks it, unlike the first row"
            )
        split_column, first = current, False
        column = column or _label_column(row, table, split_column)
        name, label = row.get(_FILE), row.get(column)
        if isinstance(label, bool | int):
            label = str(label)
        if not (name and isinstance(name, str) and label and isinstance(label, str) and label.strip()):
            raise _metadata_error(
                table, line, f"lacks the {_FILE} or the {column!r}, or has another kind of value there"
            )
        try:
            file, position = str(folder / name), f"{table}, line {line:,}"
            split = splits.split(file, _split_value(row[split_column]) if split_column else None, position)
            rows.execute("INSERT INTO rows VALUES (?, ?, ?, ?, 0)", (file, label.strip(), split, position))
        except sqlite3.IntegrityError:
            (position,) = rows.execute("SELECT position FROM rows WHERE file = ?", (file,)).fetchone()
            raise _metadata_error(table, line, f"names {file!r}, as does {position}") from None
        except UnicodeEncodeError:
            raise _metadata_error(table, line, "is not valid Unicode") from None
        except ValueError as fault:
            raise _metadata_error(table, line, str(fault)) from None


def _split_column(row: Mapping[str, Any], table: str, line: int, label: str) -> str:
    """Return the column of splits: the one named `split`, else one with another usual name; "" if there is none."""
    names = [(column, column.strip().casefold()) for column in row if column not in (_FILE, label)]
    columns = [column for column, name in names if name == COLUMNS[0]]
    columns = columns or [column for column, name in names if name in COLUMNS]
    if len(columns) > 1:
        raise _metadata_error(
            table, line, f"has several columns that may be the split: {first_names(columns)}; call the right one split"
        )
    return columns[0] if columns else ""


def _split_value(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | bool | int):
        raise ValueError(f"has a split that is not text: {value!a}"[:200])
    return str(value)


def _label_column(row: Mapping[str, Any], table: str, split_column: str) -> str:
    """Return the column of classes: one with a usual name, else the only one beside file name and split."""
    columns = [str(column) for column in row if column not in (_FILE, split_column)]
    usual = [column for column in columns if column.lower() in _LABEL_NAMES]
    candidates = usual or columns
    if len(candidates) == 1:
        return candidates[0]
    raise InputError(
        f"{table} has the columns {', '.join(map(repr, columns)) or '(none)'} beside {_FILE}",
        next_step="set LARDER_LABEL_COLUMN to the one of classes",
    )


def _read(files: RecipeFiles, table: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield every row of a table, with its line number."""
    return (_csv if table.endswith(".csv") else _jsonl)(files, table)


def _csv(files: RecipeFiles, table: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with files.local(table).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        try:
            if _FILE not in (reader.fieldnames or ()):
                raise _metadata_error(table, 1, f"has no column {_FILE}")
            for row in reader:
                yield reader.line_num, {name: value for name, value in row.items() if name is not None}
        except (UnicodeDecodeError, csv.Error) as fault:
            raise _metadata_error(table, reader.line_num + 1, f"is not CSV in UTF-8 ({fault})") from None


def _jsonl(files: RecipeFiles, table: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with files.local(table).open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE_BYTES):
            number += 1
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise _metadata_error(table, number, "is not a JSON object in UTF-8")
            yield number, row


def _metadata_error(table: str, line: int, what: str) -> InputError:
    return InputError(
        f"{table}, line {line:,}: {what}", next_step="correct the table in the source, then extract again"
    )
