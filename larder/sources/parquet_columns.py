"""Choose the columns of images and classes in Parquet files: by settings, the files' own features, or their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from larder.sources.members import BadSourceError
from larder.sources.parquet_reader import open_table
from larder.sources.parts import SourcePart
from larder.tree.splits import COLUMNS, folder_of_value

MAX_CLASSES = 100_000
FIX = "fix the dataset, then run again"
_LABEL_NAMES = ("label", "labels", "class", "target", "category", "class_label")
_FIELD_WORDS = {"image": "images", "label": "labels", "text": "the labels' types", "names": "the classes' names"}
_PLURAL = {"IMAGE": "images", "LABEL": "classes"}


class ParquetPart(NamedTuple):
    """A file with its split and number of rows."""

    part: SourcePart
    split: str
    rows: int


class RowSplits(NamedTuple):
    """The column that names the split of each row."""

    column: str
    names: Sequence[str] | None = None
    """Names of its values, if they are numbers with names."""
    left_out: frozenset[str] = frozenset()
    """Splits without labels, whose rows are left out."""

    def folder(self, value: Any) -> str:
        """Return the folder for rows with this value. Raises ValueError if it can't be a folder."""
        if self.names is not None and value is not None:
            value = self.names[value] if 0 <= value < len(self.names) else None
        return folder_of_value(value)


class ParquetColumns(NamedTuple):
    """The columns to read, whether labels are text, and the names of the classes if the dataset states them."""

    image: str
    label: str
    text: bool
    names: Sequence[str] | None
    split: RowSplits | None = None
    """The column of splits, if it names the splits of rows; else the file's split counts."""

    @property
    def describing(self) -> list[str]:
        """The columns of labels and splits."""
        return [self.label] if self.split is None else [self.label, self.split.column]


class ParquetSettings(Protocol):
    """The settings of a stage that concern Parquet files."""

    @property
    def image_column(self) -> str:
        """LARDER_IMAGE_COLUMN."""

    @property
    def label_column(self) -> str:
        """LARDER_LABEL_COLUMN."""

    @property
    def max_files(self) -> int:
        """LARDER_MAX_FILES."""


def find_columns(
    files: Sequence[ParquetPart], stated: Mapping[str, Sequence[str]], settings: ParquetSettings
) -> ParquetColumns:
    """Return the columns, which must be the same in every file."""
    first: ParquetColumns | None = None
    for file in files:
        with open_table(file.part) as table:
            columns = _find_in_schema(table.schema_arrow, file.part, stated, settings)
        if first is not None and columns != first:
            differ = next(field for field in ParquetColumns._fields if getattr(columns, field) != getattr(first, field))
            raise BadSourceError(
                f"{files[0].part.name} and {file.part.name} belong to different datasets: their columns differ "
                f"({_FIELD_WORDS[differ]})",
                next_step="name the files of one dataset alone as LARDER_SOURCE",
            )
        first = columns
    assert first is not None
    return first


def _find_in_schema(
    schema: pa.Schema, part: SourcePart, stated: Mapping[str, Sequence[str]], settings: ParquetSettings
) -> ParquetColumns:
    features = column_features(schema)
    image = _choose_column(
        "IMAGE",
        settings.image_column,
        schema,
        part,
        [column for column in schema.names if features.get(column, {}).get("_type") == "Image"],
        [column for column in schema.names if _holds_bytes(schema, column, in_struct=True)],
        [column for column in schema.names if _holds_bytes(schema, column)],
    )
    if not _holds_bytes(schema, image):
        raise _unsuitable_error(part, image, schema, "images", "bytes, or a struct with the field `bytes`")
    named = [column for column in schema.names if features.get(column, {}).get("_type") == "ClassLabel"]
    label = _choose_column(
        "LABEL",
        settings.label_column,
        schema,
        part,
        [column for column in named if column.strip().lower() not in COLUMNS] or named,
        [column for column in schema.names if column in stated],
        [column for column in schema.names if column.lower() in _LABEL_NAMES],
    )
    kind = value_type(schema.field(label).type)
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or is_text(kind)):
        raise _unsuitable_error(part, label, schema, "classes", "numbers or texts")
    names = features.get(label, {}).get("names") or stated.get(label)
    if names is None or not pa.types.is_integer(kind):
        return ParquetColumns(image, label, is_text(kind), None)
    if not isinstance(names, list) or len(names) > MAX_CLASSES or len(set(map(str, names))) < len(names):
        raise BadSourceError(f"{part.name}: the names of {label!r}'s classes are not a list of names", next_step=FIX)
    return ParquetColumns(image, label, False, [str(name) for name in names])


def column_features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return the features that `datasets` records in the schema; empty if another library wrote the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    pairs = features.items() if isinstance(features, dict) else ()
    return {str(column): feature for column, feature in pairs if isinstance(feature, dict)}


def _choose_column(what: str, given: str, schema: pa.Schema, part: SourcePart, *candidates: Sequence[str]) -> str:
    """Return the column that a setting names, or else the only column in the first list of candidates with any."""
    if given:
        if schema.names.count(given) != 1:
            raise BadSourceError(
                f"{part.name} has {_listed(schema)}, and no column {given!r}", next_step=choose_column_hint(what)
            )
        return given
    first = next((columns for columns in candidates if columns), [])
    if len(first) == 1 and schema.names.count(first[0]) == 1:
        return first[0]
    which = (
        f"several columns of {_PLURAL[what]}: {', '.join(map(repr, first))}"
        if first
        else (f"{_listed(schema)}, and no column of {_PLURAL[what]}")
    )
    raise BadSourceError(f"{part.name} has {which}", next_step=choose_column_hint(what))


def choose_column_hint(what: str) -> str:
    """Return the next step for a column that can't be chosen; `what` is "IMAGE" or "LABEL"."""
    return f"set LARDER_{what}_COLUMN to the column of {_PLURAL[what]}"


def _listed(schema: pa.Schema) -> str:
    shown = ", ".join(f"{field.name!r} ({str(field.type)[:40]})" for field in list(schema)[:20])
    return f"the columns {shown}" if shown else "no columns"


def _unsuitable_error(part: SourcePart, column: str, schema: pa.Schema, what: str, expected: str) -> BadSourceError:
    kind = str(schema.field(column).type)[:80]
    return BadSourceError(
        f"{part.name}: the column {column!r} holds {kind}, and {what} must be {expected}",
        next_step=choose_column_hint("IMAGE" if what == "images" else "LABEL"),
    )


def _holds_bytes(schema: pa.Schema, column: str, in_struct: bool = False) -> bool:
    if schema.names.count(column) != 1:
        return False
    kind = schema.field(column).type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_binary(kind.field("bytes").type)
    return not in_struct and _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def is_text(kind: pa.DataType) -> bool:
    """Return whether values of a type are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def value_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, also of a column with a dictionary."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
