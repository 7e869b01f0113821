"""Find and read the column of splits in Parquet files.

A column of splits (split, set, subset, partition) names the split of each row if all files belong to the split
`train`, as files without a split in their name do. Otherwise the column must agree with the split of its file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from larder.sources.members import BadSourceError
from larder.sources.parquet_columns import (
    FIX,
    ParquetColumns,
    ParquetPart,
    RowSplits,
    column_features,
    is_text,
    value_type,
)
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
from larder.sources.parts import SourcePart
from larder.splits import TRAINING, find_known_split
from larder.tree.splits import COLUMNS, NO_VALUE

_MAX_SHOWN = 100
_MAX_SPLITS = 1000


def find_row_splits(files: Sequence[ParquetPart], columns: ParquetColumns) -> RowSplits | None:
    """Return the column that names the splits of rows; None if each row has the split of its file.

    Args:
        files: The files, with their splits.
        columns: The columns of images and classes.

    Raises:
        BadSourceError: If the column and a file's name or folder name different splits, or if only some files have
            the column.
    """
    columns_of_files = [(file, *_split_column(file, columns)) for file in files]
    contradiction = next(
        (
            (file, splits, folder)
            for file, splits, folders in columns_of_files
            if splits is not None
            for folder in sorted(folders)
            if folder != NO_VALUE and _known_or_same(folder) != _known_or_same(file.split)
        ),
        None,
    )
    if contradiction is None:
        return None
    file, splits, folder = contradiction
    if any(_known_or_same(other.split) != TRAINING for other in files):
        raise BadSourceError(
            f"{file.part.name}: the column {splits.column!r} says {folder[:_MAX_SHOWN]!a}, and the file's name or "
            f"folder says {file.split!r}",
            next_step=f"write the rows of each split into a file of its own (train.parquet, validation.parquet), "
            f"or leave the column {splits.column!r} out, then run again",
        )
    for other, other_splits, _ in columns_of_files:
        if other_splits != splits:
            raise BadSourceError(
                f"{file.part.name} has a column of splits, {splits.column!r}, and {other.part.name} has none like it",
                next_step=FIX,
            )
    return splits


def _known_or_same(name: str) -> str:
    return find_known_split(name) or name


def _split_column(file: ParquetPart, columns: ParquetColumns) -> tuple[RowSplits | None, set[str]]:
    """Return a file's column of splits, and the splits in it.

    The column is named `split`, or has another usual name and known splits. Raises BadSourceError if there are several
    such columns, or if one has values that can't be splits.
    """
    with open_table(file.part) as table:
        schema, features = table.schema_arrow, column_features(table.schema_arrow)
        names = [
            name
            for name in schema.names
            if name.strip().lower() in COLUMNS
            and name not in (columns.image, columns.label)
            and schema.names.count(name) == 1
            and _can_name_splits(file.part, schema.field(name))
        ]
        candidates = list[tuple[RowSplits, set[str]]]()
        for name in [name for name in names if _is_split(name)] or names:
            given = features.get(name, {}).get("names")
            is_number = pa.types.is_integer(value_type(schema.field(name).type))
            splits = RowSplits(name, list(map(str, given)) if isinstance(given, list) and is_number else None)
            folders = _distinct_splits(table, file.part, splits)
            if _is_split(name) or any(map(find_known_split, folders)):
                candidates.append((splits, folders))
    if len(candidates) > 1:
        several = " and ".join(repr(splits.column) for splits, _ in candidates)
        raise BadSourceError(
            f"{file.part.name} has several columns that may be the split: {several}",
            next_step="call the right one split, or leave out the others, then run again",
        )
    return candidates[0] if candidates else (None, set())


def _is_split(column: str) -> bool:
    """Return whether a column is named `split`. Such a column has precedence, and must hold splits."""
    return column.strip().lower() == COLUMNS[0]


def _can_name_splits(part: SourcePart, field: pa.Field) -> bool:
    """Return whether a column's values can be splits. Raises BadSourceError if they can't and it is named `split`."""
    kind = value_type(field.type)
    if is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return True
    if _is_split(field.name) and not pa.types.is_null(kind):
        raise BadSourceError(
            f"{part.name}: the column {field.name!r} holds {str(field.type)[:80]}, and splits must be texts or numbers",
            next_step="write the names of the splits there, or leave the column out, then run again",
        )
    return False


def _distinct_splits(table: pq.ParquetFile, part: SourcePart, splits: RowSplits) -> set[str]:
    """Return the distinct splits in a column, without "null" unless there are rows without a value."""
    groups = range(table.num_row_groups)
    sizes = (require_pages(table, part, group, [splits.column], MAX_LABELS_BYTES) for group in groups)
    at_once, folders = choose_batch_rows(max(sizes, default=0), LABELS_AT_ONCE), set[str]()
    for batch in read_batches(table, part, None, at_once, [splits.column]):
        folders.update(splits_in(pc.unique(decode_dictionary(batch.column(0))), part, splits))
        if len(folders) > _MAX_SPLITS:
            if not _is_split(splits.column):
                return set()
            raise BadSourceError(
                f"{part.name}: the column {splits.column!r} has more than {_MAX_SPLITS:,} values", next_step=FIX
            )
    return folders


def splits_in(column: pa.Array, part: SourcePart, splits: RowSplits) -> list[str]:
    """Return the split of each row. Raises BadSourceError for a value that can't be a folder."""
    known: dict[Any, str] = {}
    with map_parquet_errors(part, "its column of splits"):
        values = decode_dictionary(column).to_pylist()
    for value in values:
        if value not in known:
            try:
                known[value] = splits.folder(value)
            except ValueError as fault:
                raise BadSourceError(f"{part.name}: the column {splits.column!r} {fault}", next_step=FIX) from None
    return [known[value] for value in values]
