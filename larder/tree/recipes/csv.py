"""A table at hand: a CSV file with the columns `file`, `label` and, optionally, `split`.

Other usual names of these columns are understood, in any case; the separator is a comma, a semicolon, a tab or a bar.
`file` is a path below the source's top, or below the table's folder. Spaces around values don't count, and names are
compared in Unicode's NFC. Labels may be names or numbers; classes are numbered in the order of the sorted labels (as
numbers where all are). Without `split`, everything is `training`; the usual names of the splits (Train, val, test_set)
mean Food-11's.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from larder.errors import InputError
from larder.splits import known_split
from larder.tree.listing import LEFT_OUT, Listing, Row, TwiceError
from larder.tree.names import comparable, sorted_labels
from larder.tree.recipes import DEFAULT_SPLIT, Files, LeftOutError, RejectError, Sample, require_distinct
from larder.tree.splits import OUT, is_folder_name
from larder.tree.survey import some

_NAME_IT = "set LARDER_CSV to the table's path in the source"
_ALIASES = {
    "file": ("filename", "filepath", "path", "image", "imagefile", "imagename", "imagepath", "imageid", "img"),
    "label": ("labels", "class", "classname", "category", "target"),
    "split": ("set", "subset", "partition"),
}  # fmt: skip
_SEPARATORS = (",", ";", "\t", "|")
_MOST_SPLITS = 1000
_HEADER_BYTES = 1 << 20


class Columns(NamedTuple):
    """Where a table has its columns, and what is between them."""

    separator: str
    width: int
    file: int
    label: int
    split: int | None


class Table:
    """The table's rows."""

    names_samples = True

    def __init__(self, listing: Listing, table: str, is_undivided: bool) -> None:
        labels = listing.labels()
        self.classes = sorted_labels(labels)
        self.is_undivided = is_undivided
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._listing, self._table = listing, table
        folder = str(PurePosixPath(table).parent)
        self._prefix = () if folder == "." else (f"{folder}/",)

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        if path == self._table:
            return None
        sample = self._listing.find(path, self._labels, *self._prefix)
        if sample is None:
            raise RejectError(f"is not named in {self._table}")
        if sample.split == LEFT_OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        return sample

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        return self._listing.absent()


def recognise(files: Files) -> str | None:
    """See `recipes`: a table at the top has the columns, and names a file that is there."""
    for table in _tables(files):
        try:
            row = next(_read(files, table, _columns(files, table), set()), None)
        except InputError:
            continue
        if row is not None and files.exists(row.file):
            return f"{table} names images and their labels"
    return None


def open(files: Files) -> Table:
    """Read the table. Raises InputError when there is none, or when it is none of the kind."""
    table = str(PurePosixPath(files.csv)) if files.csv else _find(files)
    if not files.exists(table):
        raise InputError(f"the source has no file {table}", next_step=_NAME_IT)
    files.require_intact(table)
    columns = _columns(files, table)
    listing = Listing(files.scratch)
    values = set[str]()
    for row in _read(files, table, columns, values):
        try:
            listing.add(row)
        except TwiceError:
            raise _fault(row.place, f"names {row.file!r} a second time") from None
    listing.finish()
    if unused := files.splits.unused(values):
        raise InputError(
            f"LARDER_SPLITS names {some(unused)}, and {table} has the splits {some(sorted(values)) or '(none)'}",
            next_step="correct LARDER_SPLITS",
        )
    _require_distinct(listing, table)
    return Table(listing, table, columns.split is None)


def _require_distinct(listing: Listing, table: str) -> None:
    correct = f"write them alike in {table} in the source, then extract again"
    require_distinct(f"{table} has labels", listing.labels(), correct)
    require_distinct(f"{table} has splits", listing.splits(), correct)


def _tables(files: Files) -> list[str]:
    return [path for path in files.survey.lists if "/" not in path and path.lower().endswith((".csv", ".tsv"))]


def _find(files: Files) -> str:
    """The table at the top; of several, the one that has the columns."""
    found = _tables(files)
    fitting = [table for table in found if _fits(files, table)] if len(found) > 1 else found
    if len(fitting) != 1:
        raise InputError(
            f"the source has {some(found) if found else 'no CSV file'} at its top; exactly one is expected",
            next_step=_NAME_IT,
        )
    return fitting[0]


def _fits(files: Files, table: str) -> bool:
    try:
        return bool(_columns(files, table))
    except InputError:
        return False


def _columns(files: Files, table: str) -> Columns:
    """Find the separator and the columns by the first line. Raises InputError for a table that lacks some."""
    line = f"{table}, line 1"
    with files.local(table).open("rb") as file:
        begin = file.read(_HEADER_BYTES)
    if begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _fault(line, "is in UTF-16: save the table as CSV in UTF-8")
    text = begin.removeprefix(codecs.BOM_UTF8).decode(errors="replace")
    if not text.strip():
        raise _fault(line, "is empty, and the columns file and label are needed")
    headers = []
    for separator in _SEPARATORS:
        try:
            headers.append((separator, next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])))
        except csv.Error as fault:
            raise _fault(line, f"is no CSV in UTF-8 ({fault})") from None
    for separator, header in headers:
        file_at, label_at = (_place(header, wanted, line) for wanted in ("file", "label"))
        if file_at is not None and label_at is not None:
            return Columns(separator, len(header), file_at, label_at, _place(header, "split", line))
    _, most = max(headers, key=lambda found: len(found[1]))
    raise _fault(
        line, f"has the columns {some(most, 12)}, and the columns file and label are needed (or "
        "filename, path, image; class, category)",
    )  # fmt: skip


def _place(header: Sequence[str], wanted: str, line: str) -> int | None:
    """The number of the column that is wanted, by its name or else by another usual one."""
    names = ["".join(letter for letter in name.casefold() if letter not in " _-\t\ufeff\xa0") for name in header]
    found = [number for number, name in enumerate(names) if name == wanted]
    found = found or [number for number, name in enumerate(names) if name in _ALIASES[wanted]]
    if len(found) > 1:
        both = " and ".join(_shown(header[number]) for number in found)
        raise _fault(line, f"has several columns that may be the {wanted}: {both}; call the right one {wanted}")
    return found[0] if found else None


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _read(files: Files, table: str, columns: Columns, splits: set[str]) -> Iterator[Row]:
    """Every row; the values that they have as splits are added to `splits`, as far as LARDER_SPLITS may name them."""
    with files.local(table).open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=columns.separator)
        try:
            for number, values in enumerate(reader):
                if number and values:
                    if columns.split is not None and files.splits.given and len(splits) < _MOST_SPLITS:
                        splits.update(value.strip() for value in values[columns.split : columns.split + 1])
                    yield _row(files, table, f"{table}, line {reader.line_num}", columns, values)
        except (UnicodeDecodeError, csv.Error) as fault:
            raise _fault(f"{table}, line {reader.line_num + 1}", f"is no CSV in UTF-8 ({fault})") from None


def _row(files: Files, table: str, line: str, columns: Columns, values: list[str]) -> Row:
    """One row as a sample. Raises InputError for one that lacks something, or has too much."""
    values = [value.strip() for value in values]
    if any(values[columns.width :]):
        raise _fault(
            line, f"has {len(values)} values for {columns.width} columns: put quotes around a value with "
            f"{columns.separator!r} in it",
        )  # fmt: skip
    values += [""] * (columns.width - len(values))
    name, label = values[columns.file], values[columns.label]
    split = values[columns.split] if columns.split is not None else ""
    if not name or not label:
        raise _fault(line, "lacks the file or the label")
    return Row(_path(files, table, name), label, _split(files, line, split), line)


def _path(files: Files, table: str, name: str) -> str:
    """The file that a row means: below the source's top, or below the table's folder; with Windows' slashes, too."""
    folder = str(PurePosixPath(table).parent)
    prefix = "" if folder == "." else f"{folder}/"
    if "\\" in name and not any(files.exists(place) for place in (name, prefix + name)):
        name = name.replace("\\", "/")
    file = str(PurePosixPath(name))
    return file if not prefix or files.exists(file) else prefix + file


def _split(files: Files, line: str, value: str) -> str:
    if not value:
        return DEFAULT_SPLIT
    split = files.splits.find(value) or known_split(value) or comparable(value)
    if split == OUT:
        return LEFT_OUT
    if not is_folder_name(split):
        raise _fault(line, f"has the split {split!r}, which can't be a folder's name")
    return split


def _fault(line: str, what: str) -> InputError:
    return InputError(f"{line}: {what}", next_step="correct the table in the source, then extract again")
