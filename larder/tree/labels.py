"""Derive the classes from labels, with one rule for all sources of labels.

Every label found is a class. Classes are sorted by `file_names.sorted_labels`: numerically if all are numbers.
Numbering has no gaps: classes "0", "1" and "3" get labels 0, 1 and 2. If a list names the classes, a number is an
index into that list.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from larder.errors import InputError
from larder.tree.file_names import parse_number, sorted_labels
from larder.tree.source_summary import first_names

_WORDS_OF_TEXT, _LETTERS_OF_TEXT, _WIDE_LETTERS_OF_TEXT = 4, 40, 10
_MIN_MEASURED = 10
_MAX_VALUES = 10_000
_SHOWN, _MAX_DIGITS = 80, 1000


def number_classes(labels: Collection[str], names: Sequence[str] = ()) -> tuple[list[str], dict[str, int]]:
    """Return the names of the classes, and the label number of each label text.

    Args:
        labels: The distinct labels found.
        names: Names of the classes in the order of a list; empty if there is no list.

    Raises:
        ValueError: If numbers and names are mixed, or a label isn't in the list.
    """
    numbers = {label for label in labels if is_number(label)}
    if numbers and len(numbers) < len(labels):
        other = min(set(labels) - numbers)
        raise ValueError(f"some labels are numbers ({_short(min(numbers))}), and others are names ({_short(other)})")
    if not names:
        classes = sorted_labels(labels)
        return classes, {name: label for label, name in enumerate(classes)}
    if numbers:
        largest = max(numbers, key=int)
        if int(largest) >= len(names):
            raise ValueError(f"the list of classes names {len(names):,}, and there is the label {_short(largest)}")
        return list(names), {number: int(number) for number in numbers}
    known = {name: label for label, name in enumerate(names)}
    if unknown := set(labels) - known.keys():
        raise ValueError(f"the list of classes lacks the class {_short(min(unknown))}")
    return list(names), known


def require_classes(
    labels: Collection[str], rows: int, what: str, read_rows: Callable[[], Iterable[Mapping[str, object]]]
) -> None:
    """Raise InputError for a column of captions or measurements, where nearly every row has another value.

    Args:
        labels: The distinct values.
        rows: Number of rows.
        what: Name of the column for messages, as in "the column 'text' of metadata.csv".
        read_rows: Reads the rows again, each without this column.
    """
    if 5 * len(labels) <= 4 * rows or rows < 2:
        return
    texts = sum(map(_is_text, labels))
    measured = sum(map(_is_fraction, labels)) if rows >= _MIN_MEASURED else 0
    if 2 * max(texts, measured) <= len(labels):
        return
    kind, columns = "texts" if texts >= measured else "measurements", _columns_of_classes(read_rows(), rows)
    step = (
        f"set LARDER_LABEL_COLUMN to the column of classes ({first_names(columns)} would do)"
        if columns
        else "add a column of classes to the table, then extract again"
    )
    raise InputError(
        f"{what} holds {kind}, and no classes: {len(labels):,} values in {rows:,} rows, such as {_short(min(labels))}",
        next_step=f"{step}; if each of these is a class, set LARDER_LABEL_COLUMN to this column",
    )


def _columns_of_classes(rows: Iterable[Mapping[str, object]], count: int) -> list[str]:
    """Return the columns that may hold classes: more than one value, and at least two rows per value on average."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for column, value in row.items():
            distinct = values.setdefault(column, set())
            if len(distinct) <= _MAX_VALUES:
                distinct.add(str(value).strip())
    return [
        column
        for column, distinct in values.items()
        if 1 < len(distinct) <= min(count // 2, _MAX_VALUES)
        and not any(_is_text(value) or not value for value in distinct)
    ]


def _is_text(label: str) -> bool:
    """Return whether a value is longer than class names usually are; also for scripts without spaces."""
    wide = sum(unicodedata.east_asian_width(letter) == "W" for letter in label[:_LETTERS_OF_TEXT])
    return len(label.split()) >= _WORDS_OF_TEXT or len(label) >= _LETTERS_OF_TEXT or wide >= _WIDE_LETTERS_OF_TEXT


def _is_fraction(label: str) -> bool:
    number = parse_number(label)
    return number is not None and number != number.to_integral_value()


def is_number(label: str) -> bool:
    """Return whether a label is a number, of at most 1,000 digits."""
    return label.isascii() and label.isdecimal() and len(label) <= _MAX_DIGITS


def _short(label: str) -> str:
    return ascii(label[:_SHOWN])
