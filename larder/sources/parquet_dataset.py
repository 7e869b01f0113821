"""Open Parquet files as one dataset: choose files and columns, and check splits and labels, without reading images."""

from __future__ import annotations

from collections.abc import Sequence

from larder.progress import Reporter, format_amount
from larder.sources.cards import Card, choose_files
from larder.sources.limits import TooLargeError
from larder.sources.members import BadSourceError, UnsafeNameError, safe_path
from larder.sources.parquet import ParquetSource
from larder.sources.parquet_columns import FIX, ParquetPart, ParquetSettings, choose_column_hint, find_columns
from larder.sources.parquet_labels import assign_labels
from larder.sources.parquet_reader import open_table
from larder.sources.parquet_splits import find_row_splits
from larder.sources.parts import SourcePart
from larder.tree.labels import require_classes

_SHOWN_SPLITS = 20


def open_parquet(
    name: str, parts: Sequence[SourcePart], card: Card, settings: ParquetSettings, reporter: Reporter
) -> ParquetSource:
    """Check the columns, splits and labels of all files, without reading images.

    Args:
        name: Name of the source in messages.
        parts: The Parquet files.
        card: The dataset card.
        settings: Settings of the stage.
        reporter: Receives events about files and splits that are left out.

    Raises:
        BadSourceError: If the files aren't a dataset of labelled images.
        TooLargeError: If they have more rows than LARDER_MAX_FILES.
    """
    by_name = {part.name: part for part in parts}
    chosen = choose_files(by_name, card, name)
    files = [
        _count_rows(by_name[path], _require_folder_name(split, path)) for path, split in sorted(chosen.splits.items())
    ]
    if len(files) < len(parts):
        reporter.event("outside", f"taking the configuration {chosen.config!r}: {len(files)} of {len(parts)} files")
    if sum(file.rows for file in files) > settings.max_files:
        raise TooLargeError(
            f"{name} holds more than {settings.max_files:,} rows",
            next_step="if you trust it, raise LARDER_MAX_FILES and run again",
        )
    stated = {column: names for (config, column), names in card.class_names.items() if config == chosen.config}
    columns = find_columns(files, stated, settings)
    columns = columns._replace(split=find_row_splits(files, columns))
    labels, rows, unlabelled = assign_labels(files, columns)
    for split in sorted(unlabelled):
        left_out = format_amount(rows.pop(split), "rows")
        reporter.event("outside", f"leaving out the split {split!r}: {left_out}, none with a label")
    if not any(file.rows for file in files):
        raise BadSourceError(f"{name} holds no rows", next_step="check LARDER_SOURCE")
    if not rows:
        raise BadSourceError(f"{name}: no row has a label in {columns.label!r}", next_step=choose_column_hint("LABEL"))
    if columns.text and not settings.label_column:
        require_classes(list(labels), rows.total(), f"{files[0].part.name}: the column {columns.label!r}", lambda: ())
    if columns.split is None:
        return ParquetSource(name, [file for file in files if file.split in rows], columns, labels, rows)
    shown = ", ".join(f"{split!r} {count:,}" for split, count in sorted(rows.items())[:_SHOWN_SPLITS])
    reporter.event("splits", f"rows by the column {columns.split.column!r}: {shown}")
    columns = columns._replace(split=columns.split._replace(left_out=frozenset(unlabelled)))
    return ParquetSource(name, files, columns, labels, rows)


def _require_folder_name(split: str, path: str) -> str:
    try:
        if safe_path(split) == split and "/" not in split and not split.startswith("."):
            return split
    except UnsafeNameError:
        pass
    raise BadSourceError(f"{path} has the split {split!r}, which can't be a folder's name", next_step=FIX)


def _count_rows(part: SourcePart, split: str) -> ParquetPart:
    with open_table(part) as table:
        return ParquetPart(part, split, table.metadata.num_rows)
