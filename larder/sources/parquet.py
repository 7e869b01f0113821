"""Parquet files with a column of images and one of classes, as the Hugging Face Hub keeps data sets.

They become `<split>/<label>/<file>-<row>.<ending>`, with the classes' names by label in `classes.json`, which the
recipe `parquet` reads. Labels are numbers, since names may hold slashes and their order is the data set's own.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from larder.progress import Reporter, amount
from larder.sources.cards import Card, choose
from larder.sources.limits import TooLargeError
from larder.sources.members import BadSourceError, Member, UnsafeNameError, damaged, safe_path
from larder.sources.parquet_pages import Read, page_sizes
from larder.sources.parts import Part

CLASSES = "classes.json"

_ROWS_AT_ONCE = 16
"""Few, since images may be large: with the page that they lie in, this is what is in memory."""
_MOST_PAGE_BYTES = 1 << 30
"""Of a page, unpacked: an image may have so many. Writers put some 1 MB into one, or a thousand images."""
_MOST_ROWS_BYTES = 256 << 20
"""Of rows at once that may all be the largest value of a dictionary, which stands in the file once."""
_LABELS_AT_ONCE = 1 << 16
_MOST_CLASSES = 100_000
_MOST_LABELS_BYTES = 64 << 20
"""Of a page of labels, unpacked."""
_MOST_SCHEMA_BYTES = 16 << 20
_LABEL_NAMES = ("label", "labels", "class", "target", "category", "class_label")
_UNLABELLED = -1  # by the convention of `datasets`, where a split has no labels
_ENDINGS = (
    (b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"GIF8", "gif"), (b"BM", "bmp"),
    (b"II*\0", "tif"), (b"MM\0*", "tif"),
)  # fmt: skip


class Columns(NamedTuple):
    """Which columns are read, whether labels are texts, and the classes' names where the data set states them."""

    image: str
    label: str
    text: bool
    names: Sequence[str] | None


class ParquetSettings(Protocol):
    """What a stage's settings say of Parquet files."""

    @property
    def image_column(self) -> str:
        """LARDER_IMAGE_COLUMN."""

    @property
    def label_column(self) -> str:
        """LARDER_LABEL_COLUMN."""

    @property
    def max_files(self) -> int:
        """LARDER_MAX_FILES."""


class RowsOfFile(NamedTuple):
    """A file, its split, and how many rows it has."""

    part: Part
    split: str
    rows: int


class ParquetSource:
    """The images of Parquet files. They are read a few rows at a time, in order."""

    parallel = False
    counted = False
    verb = "unpack"

    def __init__(self, name: str, files: Sequence[RowsOfFile], columns: Columns, labels: Mapping[Any, int]) -> None:
        self.name, self.files, self.columns, self.labels = name, files, columns, labels
        self.total: int | None = sum(file.rows for file in files) + 1
        classes = columns.names if columns.names is not None else [str(value) for value in labels]
        self.classes = list(classes)
        self._classes = json.dumps({"classes": self.classes}, ensure_ascii=False, indent=2).encode() + b"\n"

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`. Each member holds its bytes."""
        yield Member(CLASSES, len(self._classes), self._classes)
        for file in self.files:
            for row, image, label in self._rows(file):
                yield Member(path_of(file, row, image, label, len(self.classes)), len(image), image)

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        yield member.place

    def _rows(self, file: RowsOfFile) -> Iterator[tuple[int, bytes, int]]:
        """Number, image and label of every row."""
        columns, row = self.columns, 0
        with opened(file.part) as table:
            for group in range(table.num_row_groups):
                dictionary = _require_pages(table, file.part, group, [columns.image, columns.label], _MOST_PAGE_BYTES)
                at_once = _rows_at_once(dictionary, _ROWS_AT_ONCE)
                for batch in _batches(table, file.part, group, at_once, [columns.image, columns.label]):
                    images = _bytes_of(batch.column(columns.image))
                    labels = _values_of(batch.column(columns.label)).to_pylist()
                    for image, label in zip(images, labels, strict=True):
                        if not image.is_valid:
                            raise _at(file.part, row, f"has no image in the column {columns.image!r}, or only its path")
                        if label not in self.labels:
                            raise _at(file.part, row, "has changed while the file was read")
                        yield row, image.as_py(), self.labels[label]
                        row += 1


def path_of(file: RowsOfFile, row: int, image: bytes, label: int, classes: int) -> str:
    """The path that a row's image has in the source, of so many classes."""
    stem = file.part.name.removesuffix(".parquet").replace("/", "-")
    return f"{file.split}/{label:0{max(3, len(str(classes - 1)))}d}/{stem}-{row:07d}.{_ending(image)}"


def labels_of(file: RowsOfFile, columns: Columns, labels: Mapping[Any, int], group: int) -> Iterator[int]:
    """The label of each row of a row group."""
    with opened(file.part) as table:
        for batch in _batches(table, file.part, group, _LABELS_AT_ONCE, [columns.label]):
            for value in _values_of(batch.column(0)).to_pylist():
                if value not in labels:
                    raise damaged(file.part.name, "it has changed while it was read")
                yield labels[value]


def open_parquet(
    name: str, parts: Sequence[Part], card: Card, settings: ParquetSettings, reporter: Reporter
) -> ParquetSource:  # fmt: skip
    """Look at all files: their columns, splits and labels; images are read later.

    Raises BadSourceError when they are no such data set, TooLargeError when they hold more rows than files are allowed.
    """
    by_name = {part.name: part for part in parts}
    chosen = choose(by_name, card, name)
    files = [_look(by_name[path], _a_split(split, path)) for path, split in sorted(chosen.splits.items())]
    if len(files) < len(parts):
        reporter.event("outside", f"taking the configuration {chosen.config!r}: {len(files)} of {len(parts)} files")
    if sum(file.rows for file in files) > settings.max_files:
        raise TooLargeError(
            f"{name} holds more than {settings.max_files:,} rows",
            next_step="if you trust it, raise LARDER_MAX_FILES and run again",
        )
    stated = {column: names for (config, column), names in card.class_names.items() if config == chosen.config}
    columns = _same_columns(files, stated, settings)
    labels, unlabelled = _census(files, columns)
    kept = [file for file in files if file.split not in unlabelled]
    for split in sorted(unlabelled):
        rows = sum(file.rows for file in files if file.split == split)
        reporter.event("outside", f"leaving out the split {split!r}: {amount(rows, 'rows')}, none with a label")
    if not kept:
        raise BadSourceError(f"{name}: no row has a label in {columns.label!r}", next_step=_choosing("LABEL"))
    return ParquetSource(name, kept, columns, labels)


def _a_split(split: str, path: str) -> str:
    try:
        if safe_path(split) == split and "/" not in split and not split.startswith("."):
            return split
    except UnsafeNameError:
        pass
    raise BadSourceError(f"{path} has the split {split!r}, which can't be a folder's name", next_step=_FIX)


def _look(part: Part, split: str) -> RowsOfFile:
    with opened(part) as table:
        return RowsOfFile(part, split, table.metadata.num_rows)


def _same_columns(
    files: Sequence[RowsOfFile], stated: Mapping[str, Sequence[str]], settings: ParquetSettings
) -> Columns:
    """The columns, which must be the same ones in every file."""
    first: Columns | None = None
    for file in files:
        with opened(file.part) as table:
            found = _columns(table.schema_arrow, file.part, stated, settings)
        if first is not None and found != first:
            differ = next(field for field in Columns._fields if getattr(found, field) != getattr(first, field))
            raise BadSourceError(
                f"{files[0].part.name} and {file.part.name} belong to different data sets: their columns differ "
                f"({_DIFFERS[differ]})",
                next_step="name the files of one data set alone as LARDER_SOURCE",
            )
        first = found
    assert first is not None
    return first


def _columns(schema: pa.Schema, part: Part, stated: Mapping[str, Sequence[str]], settings: ParquetSettings) -> Columns:
    features = _features(schema)
    image = _choose(
        "IMAGE", settings.image_column, schema, part,
        [column for column in schema.names if features.get(column, {}).get("_type") == "Image"],
        [column for column in schema.names if _holds_bytes(schema, column, in_struct=True)],
        [column for column in schema.names if _holds_bytes(schema, column)],
    )  # fmt: skip
    if not _holds_bytes(schema, image):
        raise _unfit(part, image, schema, "images", "bytes, or a struct with the field `bytes`")
    label = _choose(
        "LABEL", settings.label_column, schema, part,
        [column for column in schema.names if features.get(column, {}).get("_type") == "ClassLabel"],
        [column for column in schema.names if column in stated],
        [column for column in schema.names if column.lower() in _LABEL_NAMES],
    )  # fmt: skip
    kind = _value_type(schema.field(label).type)
    if not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or _is_text(kind)):
        raise _unfit(part, label, schema, "classes", "numbers or texts")
    names = features.get(label, {}).get("names") or stated.get(label)
    if names is None or not pa.types.is_integer(kind):
        return Columns(image, label, _is_text(kind), None)
    if not isinstance(names, list) or len(names) > _MOST_CLASSES or len(set(map(str, names))) < len(names):
        raise BadSourceError(f"{part.name}: the names of {label!r}'s classes are no list of names", next_step=_FIX)
    return Columns(image, label, False, [str(name) for name in names])


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What `datasets` notes of each column in the schema; empty where something else wrote the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError, RecursionError):
        return {}
    pairs = features.items() if isinstance(features, dict) else ()
    return {str(column): feature for column, feature in pairs if isinstance(feature, dict)}


def _choose(what: str, given: str, schema: pa.Schema, part: Part, *candidates: Sequence[str]) -> str:
    """The column that a setting names, or the only one of the first candidates that there are."""
    if given:
        if schema.names.count(given) != 1:
            raise BadSourceError(
                f"{part.name} has {_listed(schema)}, and no column {given!r}", next_step=_choosing(what)
            )
        return given
    found = next((columns for columns in candidates if columns), [])
    if len(found) == 1 and schema.names.count(found[0]) == 1:
        return found[0]
    which = f"several columns of {_PLURAL[what]}: {', '.join(map(repr, found))}" if found else (
        f"{_listed(schema)}, and no column of {_PLURAL[what]}"
    )  # fmt: skip
    raise BadSourceError(f"{part.name} has {which}", next_step=_choosing(what))


_DIFFERS = {"image": "images", "label": "labels", "text": "the labels' types", "names": "the classes' names"}
_PLURAL = {"IMAGE": "images", "LABEL": "classes"}
_FIX = "fix the data set, then run again"


def _choosing(what: str) -> str:
    return f"set LARDER_{what}_COLUMN to the column of {_PLURAL[what]}"


def _listed(schema: pa.Schema) -> str:
    shown = ", ".join(f"{field.name!r} ({str(field.type)[:40]})" for field in list(schema)[:20])
    return f"the columns {shown}" if shown else "no columns"


def _unfit(part: Part, column: str, schema: pa.Schema, what: str, wanted: str) -> BadSourceError:
    kind = str(schema.field(column).type)[:80]
    return BadSourceError(
        f"{part.name}: the column {column!r} holds {kind}, and {what} must be {wanted}",
        next_step=_choosing("IMAGE" if what == "images" else "LABEL"),
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


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _values_of(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _bytes_of(column: pa.Array) -> pa.Array:
    """The images of a column; a row without a struct has none."""
    if pa.types.is_struct(column.type):
        return column.flatten()[column.type.get_field_index("bytes")]  # with the struct's own nulls
    return column


def _census(files: Sequence[RowsOfFile], columns: Columns) -> tuple[dict[Any, int], set[str]]:
    """The label of each value, and the splits without any label. Reads the column of labels alone.

    Raises BadSourceError for a value without a class, and for a row without a label in a split that has some.
    """
    seen: set[Any] = set()
    missing: dict[str, tuple[RowsOfFile, int]] = {}
    labelled: set[str] = set()
    for file in files:
        with opened(file.part) as table:
            groups = range(table.num_row_groups)
            sizes = (_require_pages(table, file.part, group, [columns.label], _MOST_LABELS_BYTES) for group in groups)
            row, at_once = 0, _rows_at_once(max(sizes, default=0), _LABELS_AT_ONCE)
            for batch in _batches(table, file.part, None, at_once, [columns.label]):
                values = _values_of(batch.column(0))
                found = set(pc.unique(values).to_pylist())
                if without := found & _no_labels(columns):
                    at = row + next(i for i, value in enumerate(values.to_pylist()) if value in without)
                    missing.setdefault(file.split, (file, at))
                if found := found - without:
                    labelled.add(file.split)
                if columns.names is not None and (wrong := {v for v in found if not 0 <= v < len(columns.names)}):
                    at = row + next(i for i, value in enumerate(values.to_pylist()) if value in wrong)
                    label = values[at - row].as_py()
                    raise _at(file.part, at, f"has the label {label}, and there are {len(columns.names)} classes")
                seen |= found
                if len(seen) > _MOST_CLASSES:
                    raise BadSourceError(
                        f"{file.part.name}: the column {columns.label!r} has more than {_MOST_CLASSES:,} values",
                        next_step=_choosing("LABEL"),
                    )
                row += len(values)
    for split, (file, at) in missing.items():
        if split in labelled:
            raise _at(file.part, at, f"has no label in the column {columns.label!r}, and other rows have one")
    if columns.names is not None:
        _require_different(columns.names, columns.label)
        return {number: number for number in range(len(columns.names))}, missing.keys() - labelled
    ordered = sorted(seen)
    _require_different([str(value) for value in ordered], columns.label)
    return {value: label for label, value in enumerate(ordered)}, missing.keys() - labelled


def _no_labels(columns: Columns) -> set[Any]:
    return {None, ""} if columns.names is None else {None, _UNLABELLED}


def _require_different(names: Sequence[str], column: str) -> None:
    """Raise BadSourceError for two classes that people can't tell apart."""
    met: dict[str, str] = {}
    for name in names:
        key = " ".join(unicodedata.normalize("NFC", name).casefold().split())
        if (other := met.setdefault(key, name)) != name:
            raise BadSourceError(
                f"the column {column!r} has two classes that look alike: {other!a} and {name!a}", next_step=_FIX
            )


def _at(part: Part, row: int, what: str) -> BadSourceError:
    return BadSourceError(f"{part.name}: row {row:,} {what}", next_step=_FIX)


@contextmanager
def opened(part: Part) -> Iterator[pq.ParquetFile]:
    """A Parquet file, read page by page. Raises BadSourceError when it isn't one."""
    with _explained(part, "its footer"):
        table = pq.ParquetFile(
            part.path if part.open is None else part.open(), pre_buffer=False, buffer_size=1 << 20,
            thrift_string_size_limit=_MOST_SCHEMA_BYTES,
            thrift_container_size_limit=1 << 20, page_checksum_verification=True,
        )  # fmt: skip
        table.schema_arrow  # noqa: B018  (what can't be had of it fails here)
    with table:
        yield table


def _require_pages(
    table: pq.ParquetFile, part: Part, group: int, columns: Sequence[str], most: int
) -> int:  # fmt: skip
    """Look at the pages of some columns of a row group; the bytes of the largest dictionary among them.

    Raises BadSourceError for one that unpacks to more than `most` bytes.
    """
    largest = 0
    with _explained(part, f"row group {group:,}"), _reading(part) as read:
        facts = table.metadata.row_group(group)
        for number in range(facts.num_columns):
            column = facts.column(number)
            if column.path_in_schema.partition(".")[0] not in columns:
                continue
            starts = [column.data_page_offset, column.dictionary_page_offset or column.data_page_offset]
            for page in page_sizes(read, min(starts), column.total_compressed_size):
                if page.bytes > most:
                    raise BadSourceError(
                        f"{part.name}: row group {group:,} has a page of {page.bytes:,} bytes in the column "
                        f"{column.path_in_schema!r}; at most {most:,} are read at once",
                        next_step="write the file with smaller pages or row groups, then run again",
                    )
                largest = max(largest, page.bytes if page.is_dictionary else 0)
    return largest


@contextmanager
def _reading(part: Part) -> Iterator[Read]:
    """What reads bytes of the file."""
    with part.path.open("rb") if part.open is None else part.open() as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            data: bytes = file.read(length)
            return data

        yield read


def _rows_at_once(dictionary_bytes: int, most: int) -> int:
    """How many rows may be read at once, where each may be a whole dictionary of so many bytes."""
    return max(1, min(most, _MOST_ROWS_BYTES // max(dictionary_bytes, 1)))


def _batches(
    table: pq.ParquetFile, part: Part, group: int | None, rows: int, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """Some columns of a row group, or of all, so many rows at a time."""
    where = "a row group" if group is None else f"row group {group:,}"
    groups = None if group is None else [group]
    with _explained(part, where):
        batches = table.iter_batches(batch_size=rows, row_groups=groups, columns=list(columns), use_threads=False)
    while True:
        with _explained(part, where):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


@contextmanager
def _explained(part: Part, what: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, OverflowError) as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        raise damaged(part.name, f"{what} can't be read ({' '.join(str(fault).split())[:200]})") from None


def _ending(image: bytes) -> str:
    """The usual ending for an image's format, told by its first bytes; transform looks closer."""
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "webp"
    return next((ending for start, ending in _ENDINGS if image.startswith(start)), "bin")
