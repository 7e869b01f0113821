"""A CSV table with the columns `file`, `label` and, optionally, `split`.

Other usual names of these columns are accepted, in any case. The separator is a comma, semicolon, tab or vertical bar.
`file` is a path below the source's top or below the table's folder. Spaces around values are ignored, and names are
compared in Unicode NFC. Labels may be names or numbers; classes are sorted, numerically if all are numbers. Without
`split`, all samples are `training`; usual names of splits (Train, val, test_set) map to training, validation and
evaluation.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from larder.errors import InputError
from larder.tree.file_names import normalized, sorted_labels
from larder.tree.image_listing import LEFT_OUT, DuplicateFileError, ImageListing, ListingRow
from larder.tree.labels import require_classes
from larder.tree.recipes import (
    DEFAULT_SPLIT,
    AssignedSample,
    LeftOutError,
    RecipeFiles,
    require_distinct,
    unlisted_error,
)
from larder.tree.source_summary import first_names
from larder.tree.splits import COLUMNS, OUT, SplitColumn, SplitNames

if TYPE_CHECKING:
    from _csv import Reader

_SET_TABLE = "set LARDER_CSV to the table's path in the source"
_ALIASES = {
    "file": ("filename", "filepath", "path", "image", "imagefile", "imagename", "imagepath", "imageid", "img"),
    "label": ("labels", "class", "classname", "category", "target"),
    "split": COLUMNS[1:],
}
_SEPARATORS = (",", ";", "\t", "|")
_HEADER_BYTES = 1 << 20
_MAX_ROWS_CHECKED, _SHOWN_CHARACTERS = 100, 100


class TableColumns(NamedTuple):
    """Separator and column positions of a table."""

    separator: str
    width: int
    file: int
    label: int
    split: int | None


class TableRecipe:
    """Recipe that takes split and class from the rows of a table."""

    names_samples = True

    def __init__(self, listing: ImageListing, table: str, is_undivided: bool, names: SplitNames) -> None:
        labels = listing.labels()
        self.classes = sorted_labels(labels)
        self.is_undivided = is_undivided
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._listing, self._table, self._names = listing, table, names
        folder = str(PurePosixPath(table).parent)
        self._prefix = () if folder == "." else (f"{folder}/",)

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        if path == self._table:
            return None
        sample = self._listing.find(path, self._labels, *self._prefix)
        if sample is None:
            raise unlisted_error(path, f"is not named in {self._table}", self._names)
        if sample.split == LEFT_OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        return sample

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        return self._listing.missing_files()


def recognize(files: RecipeFiles) -> str | None:
    """Detect a table at the top that has the columns and names an existing file; see `recipes`."""
    for table in _tables(files):
        if not _reject_reason(files, table):
            return f"{table} names images and their labels"
    return None


def explain(files: RecipeFiles) -> str:
    """Return why no table at the top fits; "" if there is none."""
    return next((_reject_reason(files, table) for table in _tables(files)), "")


def _reject_reason(files: RecipeFiles, table: str) -> str:
    """Return why a table doesn't name images and their labels, or "" if it does, judging by its first rows."""
    try:
        rows = _read_samples(files, table, _columns(files, table), SplitColumn(files.splits))
        named = [row.file for row in islice(rows, _MAX_ROWS_CHECKED)]
    except InputError as fault:
        return fault.what
    if not named:
        return f"{table} has no rows"
    if any(map(files.exists, named)):
        return ""
    expected = set(map(normalized, named))
    if any(normalized(path) in expected for path in files.paths()):
        return ""
    return f"{table} names {named[0][:_SHOWN_CHARACTERS]!a} first, which is no file of the source"


def open(files: RecipeFiles) -> TableRecipe:
    """Read the table.

    Raises:
        InputError: If there is no table, or it lacks columns.
    """
    table = str(PurePosixPath(files.csv)) if files.csv else _find_table(files)
    if not files.exists(table):
        raise InputError(f"the source has no file {table}", next_step=_SET_TABLE)
    files.require_intact(table)
    columns = _columns(files, table)
    listing = ImageListing(files.scratch)
    splits = SplitColumn(files.splits)
    for row in _read_samples(files, table, columns, splits):
        try:
            listing.add(row)
        except DuplicateFileError:
            raise _table_error(row.position, f"names {row.file!r} a second time") from None
    splits.require_values()
    listing.finish()
    if files.splits.given and (unused := files.splits.unused(splits.values | files.summary.tops)):
        raise InputError(
            f"LARDER_SPLITS names {first_names(unused)}, and {table} has the splits "
            f"{first_names(sorted(splits.values)) or '(none)'}",
            next_step="correct LARDER_SPLITS",
        )
    if not files.label_column:
        require_classes(
            listing.labels(),
            len(listing),
            f"{table}: the column of labels",
            lambda: _other_columns(files, table, columns),
        )
    _require_distinct(listing, table)
    return TableRecipe(listing, table, columns.split is None, files.splits)


def _require_distinct(listing: ImageListing, table: str) -> None:
    correct = f"spell them the same way in {table} in the source, then extract again"
    require_distinct(f"{table} has labels", listing.labels(), correct)
    require_distinct(f"{table} has splits", listing.splits(), correct)


def _tables(files: RecipeFiles) -> list[str]:
    return [path for path in files.summary.lists if "/" not in path and path.lower().endswith((".csv", ".tsv"))]


def _find_table(files: RecipeFiles) -> str:
    """Return the table at the top; if there are several, the one with the required columns."""
    tables = _tables(files)
    fitting = [table for table in tables if _has_columns(files, table)] if len(tables) > 1 else tables
    if len(fitting) != 1:
        raise InputError(
            f"the source has {first_names(tables) if tables else 'no CSV file'} at its top; exactly one is expected",
            next_step=_SET_TABLE,
        )
    return fitting[0]


def _has_columns(files: RecipeFiles, table: str) -> bool:
    try:
        return bool(_columns(files, table))
    except InputError:
        return False


def _columns(files: RecipeFiles, table: str) -> TableColumns:
    """Find the separator and the columns from the first line. Raise InputError if a column is missing."""
    line = f"{table}, line 1"
    with files.local(table).open("rb") as file:
        begin = file.read(_HEADER_BYTES)
    if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _table_error(line, "is in UTF-16: save the table as CSV in UTF-8")
    text = begin.removeprefix(codecs.BOM_UTF8).decode(errors="replace")
    if not text.strip():
        raise _table_error(line, "is empty, and the columns file and label are needed")
    headers = list[tuple[str, list[str]]]()
    for separator in _SEPARATORS:
        try:
            headers.append((separator, next(_rows(io.StringIO(text, newline=""), separator), [])))
        except csv.Error as fault:
            raise _table_error(line, f"is not CSV in UTF-8 ({fault})") from None
    for separator, header in headers:
        file_at, label_at = _column(header, "file", line), _label_column(files, header, line)
        if file_at is not None and label_at is not None:
            return TableColumns(separator, len(header), file_at, label_at, _column(header, "split", line))
    _, longest = max(headers, key=lambda candidate: len(candidate[1]))
    raise _table_error(
        line,
        f"has the columns {first_names(longest, 12)}, and the columns file and "
        f"{files.label_column or 'label'} are needed (or filename, path, image; class, category)",
    )


def _label_column(files: RecipeFiles, header: Sequence[str], line: str) -> int | None:
    """Return the position of the column of classes; LARDER_LABEL_COLUMN has precedence."""
    if not files.label_column:
        return _column(header, "label", line)
    numbers = [number for number, name in enumerate(header) if name.strip() == files.label_column.strip()]
    return numbers[0] if len(numbers) == 1 else None


def _column(header: Sequence[str], column_name: str, line: str) -> int | None:
    """Return the position of a column: by its own name, else by another usual name."""
    names = ["".join(letter for letter in name.casefold() if letter not in " _-\t\ufeff\xa0") for name in header]
    numbers = [number for number, name in enumerate(names) if name == column_name]
    numbers = numbers or [number for number, name in enumerate(names) if name in _ALIASES[column_name]]
    if len(numbers) > 1:
        both = " and ".join(_quote(header[number]) for number in numbers)
        raise _table_error(
            line, f"has several columns that may be the {column_name}: {both}; call the right one {column_name}"
        )
    return numbers[0] if numbers else None


def _quote(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _rows(lines: Iterable[str], separator: str) -> Reader:
    """Read rows; a quote after a separator and spaces also starts a quoted value."""
    return csv.reader(lines, delimiter=separator, skipinitialspace=True)


def _other_columns(files: RecipeFiles, table: str, columns: TableColumns) -> Iterator[dict[str, object]]:
    """Yield every row without the columns that are in use."""
    with files.local(table).open(newline="", encoding="utf-8-sig") as file:
        rows = _rows(file, columns.separator)
        header = next(rows)
        used = {columns.file, columns.label, columns.split}
        for values in filter(None, rows):
            yield {
                name.strip(): value
                for at, (name, value) in enumerate(zip(header, values, strict=False))
                if at not in used
            }


def _read_samples(files: RecipeFiles, table: str, columns: TableColumns, splits: SplitColumn) -> Iterator[ListingRow]:
    """Yield every row as a sample; `splits` maps its split."""
    with files.local(table).open(newline="", encoding="utf-8-sig") as file:
        reader = _rows(file, columns.separator)
        try:
            for number, values in enumerate(reader):
                if number and values:
                    yield _row(files, table, f"{table}, line {reader.line_num}", columns, values, splits)
        except (UnicodeDecodeError, csv.Error) as fault:
            raise _table_error(f"{table}, line {reader.line_num + 1}", f"is not CSV in UTF-8 ({fault})") from None


def _row(
    files: RecipeFiles, table: str, line: str, columns: TableColumns, values: list[str], splits: SplitColumn
) -> ListingRow:
    """Convert a row to a sample. Raise InputError if a value is missing or there are too many."""
    values = [value.strip() for value in values]
    if any(values[columns.width :]):
        raise _table_error(
            line,
            f"has {len(values)} values for {columns.width} columns: put quotes around a value with "
            f"{columns.separator!r} in it",
        )
    values += [""] * (columns.width - len(values))
    name, label = values[columns.file], values[columns.label]
    if not name or not label:
        raise _table_error(line, "lacks the file or the label")
    split = DEFAULT_SPLIT if columns.split is None else _split(splits, line, values[columns.split])
    return ListingRow(_path(files, table, name), label, split, line)


def _path(files: RecipeFiles, table: str, name: str) -> str:
    """Return the path that a row names, below the source's top or the table's folder. Accept Windows separators."""
    folder = str(PurePosixPath(table).parent)
    prefix = "" if folder == "." else f"{folder}/"
    if "\\" in name and not any(map(files.exists, (name, prefix + name))):
        name = name.replace("\\", "/")
    file = str(PurePosixPath(name))
    return file if not prefix or files.exists(file) else prefix + file


def _split(splits: SplitColumn, line: str, value: str) -> str:
    try:
        split = splits.split(value, line)
    except ValueError as fault:
        raise _table_error(line, str(fault)) from None
    return LEFT_OUT if split == OUT else split


def _table_error(line: str, what: str) -> InputError:
    return InputError(f"{line}: {what}", next_step="correct the table in the source, then extract again")
