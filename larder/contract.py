"""Define, read and verify the manifest and the indexes of an artifact.

    <artifact>/_larder/index.jsonl     one line per file, sorted by path
    <artifact>/_larder/samples.jsonl   packed artifacts only: one line per sample, in the packed order
    <artifact>/_larder/manifest.json   describes the artifact; written last, so without it the artifact is unfinished
    <artifact>/_larder/classes.json    the classes' names, by label: a copy from the manifest, for other programs
    <artifact>/_larder/run.json        what varies from run to run: times, rates, host, versions, rejects

Manifests and indexes contain no times, host names or secrets: the same input and settings give the same bytes.
`docs/contract.md` documents the fields; `larder.entries` defines the lines of both indexes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from larder.entries import MAX_INT64, is_inside
from larder.entries import IndexEntry as IndexEntry
from larder.entries import SampleEntry as SampleEntry
from larder.errors import InputError
from larder.fingerprint import ETAG_SETTINGS
from larder.settings import describe_fault

VERSION: Literal[1] = 1
META = "_larder"
MANIFEST, CLASSES, RUN = f"{META}/manifest.json", f"{META}/classes.json", f"{META}/run.json"
INDEX_IN_STORE = re.compile(rf"{META}/index-([0-9a-f]{{64}})\.jsonl")
"""Pattern of the path of an index in a store; the group is the index's digest (see `index_name`)."""

MAX_MANIFEST_BYTES = 32 << 20
"""Maximum size of a manifest. A class takes about 50 bytes in three splits, so a million classes fit."""
MAX_LINE_BYTES = 64 << 10
"""Maximum size of a line of an index. Two paths of 4 KiB with every byte escaped fit."""

_RUN_AGAIN = "run the command that made it again, with LARDER_FORCE=true"

Artifact = Literal["raw", "tree", "objects", "index", "webdataset", "litdata"]


def _validated_folder(name: str) -> str:
    if "/" in name or not is_inside(name):
        raise ValueError("must be the name of a folder")
    return name


Count = Annotated[int, Field(ge=0, le=MAX_INT64)]
_Number = Annotated[int, Field(ge=-MAX_INT64, le=MAX_INT64)]


class _FrozenModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, strict=True)


class SplitSummary(_FrozenModel):
    """One split: number of samples, their total bytes, and the number of samples per label."""

    samples: Count
    """Number of samples."""
    bytes: Count
    """Total length of their images."""
    samples_per_class: list[Count]
    """Number of samples by label."""


class IndexSummary(_FrozenModel):
    """Length in bytes and digest of an index."""

    bytes: Count
    """Length of the file."""
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
    """Digest of the file; in a store, also part of its name. Empty matches no file."""


class Manifest(_FrozenModel):
    """The description of an artifact. `input` identifies what it was made from, by digest if possible."""

    version: Literal[1] = VERSION
    """Version of the format."""
    artifact: Artifact
    """Kind of the artifact. `objects` is a tree in a store; `index` describes images elsewhere in a store."""
    dataset: str
    """Name of the dataset (`LARDER_DATASET`); `sample` for the generated one."""
    classes: list[str]
    """Names of the classes, by label; empty for `raw`."""
    splits: dict[Annotated[str, AfterValidator(_validated_folder)], SplitSummary]
    """Summary of each split, by name; empty for `raw`."""
    input: dict[str, str | _Number]
    """What the artifact was made from (see below)."""
    settings: dict[str, str | _Number]
    """Settings that change the output (see below)."""
    files: Count
    """Number of files in the index."""
    bytes: Count
    """Total length of these files."""
    index: IndexSummary
    """Summary of index.jsonl."""
    samples: IndexSummary | None = None
    """Summary of samples.jsonl; shards and chunks only."""

    @model_validator(mode="after")
    def _counts_every_class(self) -> Self:
        if any(len(split.samples_per_class) != len(self.classes) for split in self.splits.values()):
            raise ValueError("samples_per_class must have a number for each class")
        return self

    def to_json(self) -> str:
        """Return the canonical JSON text: sorted keys, indented by two spaces, with a newline at the end."""
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True, indent=2, ensure_ascii=False) + "\n"

    def classes_json(self) -> str:
        """Return the content of classes.json."""
        return json.dumps(self.classes, indent=0, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """Return the sha256 of the canonical JSON. The next stage's manifest refers to its input by this digest."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def in_store(self) -> bool:
        """Whether the artifact is in a store.

        Manifests of objects that larder uploaded have the settings that ETags depend on.
        """
        return self.artifact == "index" or ETAG_SETTINGS.keys() <= self.settings.keys()

    def empty_class_folders(self) -> Iterator[str]:
        """Yield the folders `<split>/<class folder>` of classes without samples in a split.

        A tree has these empty folders, so that numbering the class folders gives the same labels in every split.
        """
        for name, split in sorted(self.splits.items()):
            for label, samples in enumerate(split.samples_per_class):
                if not samples:
                    yield f"{name}/{class_folder(label, len(self.classes))}"

    def stored(self, index: IndexSummary) -> Manifest:
        """Return the manifest of this artifact's copy in a store.

        The copy of a packed artifact keeps its type and input. The copy of a tree has the type "objects", and the tree
        as its input.

        Args:
            index: Summary of the index with ETags.
        """
        if self.samples is not None:
            return self.model_copy(update={"settings": self.settings | ETAG_SETTINGS, "index": index})
        return self.model_copy(
            update={
                "artifact": "objects",
                "input": {"kind": self.artifact, "manifest": self.digest()},
                "settings": ETAG_SETTINGS,
                "index": index,
            }
        )


def class_folder(label: int, classes: int) -> str:
    """Return the name of a class's folder, with zeros in front so that the names sort like the labels.

    Args:
        label: The class's label.
        classes: Number of classes, which determines the number of digits.

    Example:
        >>> class_folder(3, 11), class_folder(3, 1000)
        ('class_03', 'class_003')
    """
    return f"class_{label:0{max(2, len(str(classes - 1)))}d}"


def find_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of an artifact, or None if there is none, which means that the artifact is unfinished.

    Raises:
        InputError: If the manifest is invalid.
    """
    path = folder / META / "manifest.json"
    try:
        with path.open("rb") as file:
            text = file.read(MAX_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, name: str) -> Manifest:
    """Parse a manifest.

    Args:
        text: The manifest's JSON.
        name: Path or URI of the manifest, for messages.

    Raises:
        InputError: If the manifest is invalid.
    """
    try:
        if len(text) > MAX_MANIFEST_BYTES:
            raise ValueError(f"file: must have at most {MAX_MANIFEST_BYTES:,} bytes")
        return parse_strictly(Manifest, text)
    except ValueError as fault:
        raise InputError(f"{name} is not a manifest that this version reads ({fault})", next_step=_RUN_AGAIN) from None


_Model = TypeVar("_Model", bound=BaseModel)


def parse_strictly(kind: type[_Model], text: bytes) -> _Model:
    """Parse a JSON document as a pydantic model.

    A repeated key is an error, since parsers disagree about which of its values counts.

    Raises:
        ValueError: If the document doesn't fit the model or repeats a key. The message says where.
    """
    try:
        parsed = kind.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "file"
        raise ValueError(f"{where[:200]}: {describe_fault(fault)[:200]}") from None
    json.loads(text, object_pairs_hook=_require_distinct_keys)
    return parsed


def _require_distinct_keys(pairs: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        raise ValueError("file: a key is repeated")


def read_manifest(folder: Path, *, made_by: str) -> Manifest:
    """Return the manifest of an artifact that must exist.

    Args:
        folder: The artifact's folder.
        made_by: The run that makes the artifact (`larder.next_step`), for the message.

    Raises:
        InputError: If the manifest is missing or invalid.
    """
    manifest = find_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder} holds no finished data: no {META}/manifest.json", next_step=f"run {made_by}")
    return manifest


def read_run(folder: Path) -> dict[str, Any]:
    """Return the record of the last run, or an empty dict if there is no valid one.

    Only the up-to-date check depends on it.
    """
    try:
        record = json.loads((folder / META / "run.json").read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def index_name(manifest: Manifest) -> str:
    """Return the file name of an artifact's index.

    In a store, the name contains the digest: two objects can't be replaced atomically, and so each manifest always
    refers to the index that it was written with.
    """
    return f"index-{manifest.index.sha256}.jsonl" if manifest.in_store else "index.jsonl"


def samples_name(manifest: Manifest) -> str:
    """Return the file name of a packed artifact's index of samples; see `index_name`."""
    if manifest.samples is None:
        raise ValueError(f"{manifest.artifact} data have no index of samples")
    return f"samples-{manifest.samples.sha256}.jsonl" if manifest.in_store else "samples.jsonl"


def read_index(folder: Path, manifest: Manifest) -> Iterator[IndexEntry]:
    """Check the digest of an artifact's index, then stream its entries.

    Raises:
        InputError: If the index doesn't have the digest in the manifest, or an entry is invalid.
    """
    path = folder / META / index_name(manifest)
    require_digest(path, manifest.index)
    yield from parse_index(path, classes=len(manifest.classes))


def require_digest(path: Path, summary: IndexSummary | None) -> None:
    """Check an index file against its manifest.

    Args:
        path: The index file.
        summary: The summary in the manifest; None if the manifest has none.

    Raises:
        InputError: If the file is missing or has another digest.
    """
    error = InputError(f"{path} is not what its manifest says", next_step=_RUN_AGAIN)
    try:
        with path.open("rb") as file:
            if summary is None or hashlib.file_digest(file, "sha256").hexdigest() != summary.sha256:
                raise error
    except FileNotFoundError:
        raise error from None


class IndexWriter:
    """Write an index line by line, and compute its length and digest."""

    def __init__(self, path: Path) -> None:
        self._file, self._digest, self._length = path.open("wb"), hashlib.sha256(), 0

    def add(self, entry: IndexEntry | SampleEntry) -> None:
        """Write one line. If that fails, raise OSError with the file's name."""
        line = entry.to_json().encode() + b"\n"
        self._digest.update(line)
        try:
            self._length += self._file.write(line)
        except OSError as fault:
            fault.filename = self._file.name
            raise

    @property
    def summary(self) -> IndexSummary:
        """Length and digest of the lines written so far."""
        return IndexSummary(bytes=self._length, sha256=self._digest.hexdigest())

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()  # flushes
        except OSError as fault:
            fault.filename = self._file.name
            raise


def write_index(path: Path, entries: Iterable[IndexEntry]) -> IndexSummary:
    """Write an index file and return its length and digest. `entries` must be sorted by path."""
    with IndexWriter(path) as index:
        for entry in entries:
            index.add(entry)
    return index.summary


def parse_index(path_or_file: Path | IO[bytes], name: str = "", classes: int | None = None) -> Iterator[IndexEntry]:
    """Stream the entries of an index, and check each one.

    Args:
        path_or_file: Path or open file.
        name: Name of the index in messages; the path by default.
        classes: Number of classes; None doesn't check labels.

    Yields:
        The entries, sorted by path.

    Raises:
        InputError: If a line is invalid, paths aren't sorted or are repeated, or a label isn't below `classes`.
    """
    previous = ""
    for entry in _parse_lines(path_or_file, name, IndexEntry.checked):
        if entry.path <= previous:
            raise InputError(f"{name or path_or_file} isn't sorted at {entry.path[:200]!r}", next_step=_RUN_AGAIN)
        if classes is not None and entry.label is not None and entry.label >= classes:
            raise InputError(
                f"{name or path_or_file}: {entry.path[:200]!r} has class {entry.label}; the manifest names {classes:,}",
                next_step=_RUN_AGAIN,
            )
        previous = entry.path
        yield entry


def parse_samples(path_or_file: Path | IO[bytes], name: str = "") -> Iterator[SampleEntry]:
    """Stream the entries of an index of samples, and check each one.

    Args:
        path_or_file: Path or open file.
        name: Name of the index in messages; the path by default.

    Raises:
        InputError: If a line is invalid.
    """
    return _parse_lines(path_or_file, name, SampleEntry.checked)


_Entry = TypeVar("_Entry")


def _parse_lines(path_or_file: Path | IO[bytes], name: str, parse: Callable[[bytes], _Entry]) -> Iterator[_Entry]:
    with path_or_file.open("rb") if isinstance(path_or_file, Path) else nullcontext(path_or_file) as file:
        for number, line in enumerate(iter(partial(file.readline, MAX_LINE_BYTES), b""), start=1):
            try:
                entry = parse(line)
            except ValueError as fault:
                raise invalid_line_error(number, name or str(path_or_file), fault) from None
            yield entry


def invalid_line_error(number: int, name: str, fault: ValueError) -> InputError:
    """Return the error for an invalid line of an index, by its number from 1 on, and the index's name."""
    return InputError(f"line {number:,} of {name} is not an index entry: {str(fault)[:200]}", next_step=_RUN_AGAIN)


def find_missing_file(folder: Path, manifest: Manifest) -> str | None:
    """Return the first path in the index whose file is missing or has another length, or None if there is none."""
    prefix = f"{folder}/"  # joined as text: a Path for each file would take half of the time
    for entry in read_index(folder, manifest):
        try:
            if os.stat(prefix + entry.path, follow_symlinks=False).st_size != entry.bytes:
                return entry.path
        except (FileNotFoundError, NotADirectoryError):
            return entry.path
    return None
