"""Assign a label to each value in the column of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from larder.sources.members import BadSourceError, damaged_source_error
from larder.sources.parquet_columns import FIX, MAX_CLASSES, ParquetColumns, ParquetPart, choose_column_hint
from larder.sources.parquet_reader import (
    LABELS_AT_ONCE,
    MAX_LABELS_BYTES,
    choose_batch_rows,
    decode_dictionary,
    map_parquet_errors,
    open_table,
    read_batches,
    require_pages,
)
from larder.sources.parquet_splits import splits_in
from larder.sources.parts import SourcePart
from larder.tree.file_names import look_alikes, sorted_labels

_UNLABELLED = -1  # `datasets` uses it for splits without labels


class AssignedLabels(NamedTuple):
    """The labels of a Parquet dataset."""

    labels: dict[Any, int]
    """Label of each value in the column of classes."""
    rows: Counter[str]
    """Number of rows of each split."""
    unlabelled: set[str]
    """Splits without labels."""


def assign_labels(files: Sequence[ParquetPart], columns: ParquetColumns) -> AssignedLabels:
    """Assign labels to the values in the column of classes. This reads only the columns of labels and splits.

    Raises:
        BadSourceError: If a label has no class, or a row has no label while others of its split have one.
    """
    counter = _LabelCounter(columns)
    for file in files:
        counter.count(file)
    unlabelled = counter.unlabelled()
    if columns.names is not None:
        _require_distinct(columns.names, columns.label)
        return AssignedLabels({number: number for number in range(len(columns.names))}, counter.rows, unlabelled)
    by_text = {str(value): value for value in counter.values}
    ordered = [by_text[text] for text in sorted_labels(by_text)]
    _require_distinct(list(by_text), columns.label)
    return AssignedLabels({value: label for label, value in enumerate(ordered)}, counter.rows, unlabelled)


class _LabelCounter:
    """Count the rows of each split, and collect the values in the column of classes."""

    def __init__(self, columns: ParquetColumns) -> None:
        self.rows = Counter[str]()
        self.values: set[Any] = set()
        self._columns = columns
        self._labelled: set[str] = set()
        self._missing: dict[str, tuple[ParquetPart, int]] = {}
        """The first row without a label, by split."""

    def count(self, file: ParquetPart) -> None:
        """Count the rows of a file. Raises BadSourceError for a label without a class."""
        columns = self._columns
        with open_table(file.part) as table:
            groups = range(table.num_row_groups)
            sizes = (require_pages(table, file.part, group, columns.describing, MAX_LABELS_BYTES) for group in groups)
            row, at_once = 0, choose_batch_rows(max(sizes, default=0), LABELS_AT_ONCE)
            for batch in read_batches(table, file.part, None, at_once, columns.describing):
                self._count_batch(batch, file, row)
                row += len(batch)

    def _count_batch(self, batch: pa.RecordBatch, file: ParquetPart, row: int) -> None:
        """Count the rows of a batch, which begins at `row` of the file."""
        columns = self._columns
        missing_values = {None, ""} if columns.names is None else {None, _UNLABELLED}
        for (split, value), count in _count_values(batch, file, columns).items():
            self.rows[split] += count
            if value in missing_values:
                self._missing.setdefault(split, (file, row + _find_row(batch, file, columns, (split, value))))
                continue
            self._labelled.add(split)
            self.values.add(value)
            if columns.names is not None and not 0 <= value < len(columns.names):
                at = row + _find_row(batch, file, columns, (split, value))
                raise row_error(file.part, at, f"has the label {value}, and there are {len(columns.names)} classes")
        if len(self.values) > MAX_CLASSES:
            raise BadSourceError(
                f"{file.part.name}: the column {columns.label!r} has more than {MAX_CLASSES:,} values",
                next_step=choose_column_hint("LABEL"),
            )

    def unlabelled(self) -> set[str]:
        """Return the splits without labels. Raises BadSourceError if only some rows of a split have a label."""
        for split, (file, at) in self._missing.items():
            if split in self._labelled:
                raise row_error(
                    file.part, at, f"has no label in the column {self._columns.label!r}, and other rows have one"
                )
        return self._missing.keys() - self._labelled


def _count_values(batch: pa.RecordBatch, file: ParquetPart, columns: ParquetColumns) -> dict[tuple[str, Any], int]:
    """Count the rows of a batch by split and value in the column of labels."""
    if columns.split is not None:
        return Counter(_values_in(batch, file, columns))
    counted = pc.value_counts(decode_dictionary(batch.column(columns.label)))
    counts = zip(label_values(counted.field(0), file.part), counted.field(1).to_pylist(), strict=True)
    return {(file.split, value): count for value, count in counts}


def _find_row(batch: pa.RecordBatch, file: ParquetPart, columns: ParquetColumns, expected: tuple[str, Any]) -> int:
    """Return the first row of a batch with this split and value in the column of labels."""
    return next(at for at, value in enumerate(_values_in(batch, file, columns)) if value == expected)


def _require_distinct(names: Sequence[str], column: str) -> None:
    """Raise BadSourceError if two classes look alike."""
    for first, other in look_alikes(names):
        raise BadSourceError(
            f"the column {column!r} has two classes that look alike: {first!a} and {other!a}", next_step=FIX
        )


def read_labels(
    file: ParquetPart, columns: ParquetColumns, labels: Mapping[Any, int], group: int
) -> Iterator[tuple[str, int] | None]:
    """Yield split and label of each row of a row group; None if its split is left out.

    Args:
        file: The Parquet file.
        columns: The columns to read.
        labels: Label of each value in the column of classes.
        group: Number of the row group.

    Raises:
        BadSourceError: If the file has changed since it was checked.
    """
    with open_table(file.part) as table:
        for batch in read_batches(table, file.part, group, LABELS_AT_ONCE, columns.describing):
            yield from labels_in(batch, file, columns, labels)


def labels_in(
    batch: pa.RecordBatch, file: ParquetPart, columns: ParquetColumns, labels: Mapping[Any, int]
) -> Iterator[tuple[str, int] | None]:
    """Yield split and label of each row of a batch; None if its split is left out.

    Args:
        batch: The rows, with the columns of labels and splits.
        file: The Parquet file.
        columns: The columns to read.
        labels: Label of each value in the column of classes.

    Raises:
        BadSourceError: If the file has changed since it was checked.
    """
    for split, value in _values_in(batch, file, columns):
        if columns.split is not None and split in columns.split.left_out:
            yield None
        elif value in labels:
            yield split, labels[value]
        else:
            raise damaged_source_error(file.part.name, "it has changed while it was read")


def _values_in(batch: pa.RecordBatch, file: ParquetPart, columns: ParquetColumns) -> Iterable[tuple[str, Any]]:
    """Return split and value in the column of labels of each row."""
    values = label_values(decode_dictionary(batch.column(columns.label)), file.part)
    if columns.split is None:
        return zip(repeat(file.split), values, strict=False)
    return zip(splits_in(batch.column(columns.split.column), file.part, columns.split), values, strict=True)


def label_values(labels: pa.Array, part: SourcePart) -> list[Any]:
    """Convert labels to Python values. Raises BadSourceError for invalid UTF-8, which pyarrow doesn't check earlier."""
    with map_parquet_errors(part, "the column of labels"):
        values: list[Any] = labels.to_pylist()
    return values


def row_error(part: SourcePart, row: int, what: str) -> BadSourceError:
    """Return the error for a row."""
    return BadSourceError(f"{part.name}: row {row:,} {what}", next_step=FIX)
