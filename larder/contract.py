"""What a stage leaves behind: the manifest and the index, read and verified.

    <artifact>/_larder/index.jsonl     one line per file, sorted by path
    <artifact>/_larder/samples.jsonl   of packed artifacts: one line per sample, in the order in which they lie
    <artifact>/_larder/manifest.json   what the artifact is; written last, so no manifest means not done
    <artifact>/_larder/run.json        what varies from run to run: times, rates, host, versions, rejects

Manifest and index hold no clock, host name or secret: the same input and settings give the same bytes.
`docs/contract.md` describes the fields for people.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json  # three times as fast as json.loads

from larder.errors import InputError
from larder.fingerprint import ETAG_SETTINGS
from larder.settings import in_words

VERSION: Literal[1] = 1
META = "_larder"
MOST_MANIFEST_BYTES, MOST_LINE_BYTES = 16 << 20, 64 << 10
"""Of a manifest, and of a line of an index."""
MANIFEST, RUN = f"{META}/manifest.json", f"{META}/run.json"
INDEX_IN_STORE = re.compile(rf"{META}/index-([0-9a-f]{{64}})\.jsonl")
"""The path of an index in a store, and in it the index's digest: see `index_name`."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

Artifact = Literal["raw", "tree", "objects", "webdataset", "litdata"]


Line = str | bytes


class IndexEntry(NamedTuple):
    """One file of an artifact. `path` is relative to the artifact; absent fields don't apply to the artifact."""

    path: str
    bytes: int
    sha256: str
    label: int | None = None
    width: int | None = None
    height: int | None = None
    source: str | None = None
    etag: str | None = None
    key: str | None = None
    """While samples are packed: the key of one that can't have that of its path. No index has it."""

    def to_json(self) -> str:
        """One line of the index, without the newline; `label` is spelled `class` there."""
        fields = {"class" if name == "label" else name: value for name, value in self._asdict().items()}
        return _encode({name: value for name, value in fields.items() if value is not None})

    @classmethod
    def from_json(cls, line: Line) -> IndexEntry:
        """Parse one line of the index. Raises ValueError, TypeError or KeyError on a line that isn't one."""
        fields = from_json(line)
        fields["label"] = fields.pop("class", None)
        return cls(**fields)


class SampleEntry(NamedTuple):
    """One sample of a packed artifact: its image lies in `file` from `offset` on, and was `source` in the tree."""

    file: str
    offset: int
    bytes: int
    sha256: str
    label: int
    source: str
    key: str | None = None
    """In shards: the sample's key, where its path doesn't give it (larder.shards)."""

    def to_json(self) -> str:
        """One line of the index of samples, without the newline; `label` is spelled `class` there."""
        key = {} if self.key is None else {"key": self.key}
        return _encode({
            "file": self.file, "offset": self.offset, "bytes": self.bytes, "sha256": self.sha256,
            "source": self.source, "class": self.label, **key,
        })  # fmt: skip

    @classmethod
    def from_json(cls, line: Line) -> SampleEntry:
        """Parse one line of the index of samples. Raises ValueError, TypeError or KeyError on a line that isn't one."""
        fields = from_json(line)
        fields["label"] = fields.pop("class")
        return cls(**fields)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class SplitSummary(_Frozen):
    """One split: the number of samples, their bytes, and the number of samples of each class by index."""

    samples: int
    bytes: int
    samples_per_class: list[int]


class IndexSummary(_Frozen):
    """The index: its length in bytes and its digest."""

    bytes: int
    sha256: str


class Manifest(_Frozen):
    """What an artifact is. `input` names what it was made from, by digest where that has one."""

    version: Literal[1] = VERSION
    artifact: Artifact
    dataset: str
    classes: list[str]
    splits: dict[str, SplitSummary]
    input: dict[str, str | int]
    settings: dict[str, str | int]
    files: int
    bytes: int
    index: IndexSummary
    samples: IndexSummary | None = None
    """The index of samples, which only packed artifacts have."""

    def to_json(self) -> str:
        """The manifest's canonical bytes as text: sorted keys, two spaces, a newline at the end."""
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True, indent=2, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """sha256 of the canonical bytes: what the next stage's manifest names as its input."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def in_store(self) -> bool:
        """Whether it describes objects of a store: then the settings say how their ETags come about."""
        return ETAG_SETTINGS.keys() <= self.settings.keys()

    def empty_class_folders(self) -> Iterator[str]:
        """The folders, `<split>/<class folder>`, of classes that a split has no samples of.

        A tree has them all the same, so that who numbers the class folders of one split gets the numbers of all.
        """
        for name, split in sorted(self.splits.items()):
            for label, samples in enumerate(split.samples_per_class):
                if not samples:
                    yield f"{name}/{class_folder(label, len(self.classes))}"

    def stored(self, index: IndexSummary) -> Manifest:
        """The manifest of this artifact's copy in a store, where `index` has the ETags.

        Packed artifacts keep their name and what they were made from; of a tree become objects, made from that tree.
        """
        if self.samples is not None:
            return self.model_copy(update={"settings": self.settings | ETAG_SETTINGS, "index": index})
        return self.model_copy(update={
            "artifact": "objects", "input": {"kind": self.artifact, "manifest": self.digest()},
            "settings": ETAG_SETTINGS, "index": index,
        })  # fmt: skip


def class_folder(label: int, classes: int) -> str:
    """The name of a class's folder, of so many classes: sorted names are sorted numbers.

    >>> class_folder(3, 11), class_folder(3, 1000)
    ('class_03', 'class_003')
    """
    return f"class_{label:0{max(2, len(str(classes - 1)))}d}"


def find_manifest(folder: Path) -> Manifest | None:
    """The manifest of an artifact, or None when there is none, which means that it isn't done.

    Raises InputError when there is one that can't be read as such.
    """
    path = folder / META / "manifest.json"
    try:
        with path.open("rb") as file:
            text = file.read(MOST_MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, name: str) -> Manifest:
    """The manifest that `text`, found at `name`, holds. Raises InputError when it isn't one."""
    if len(text) > MOST_MANIFEST_BYTES:
        raise InputError(
            f"{name} is no manifest: it has more than {MOST_MANIFEST_BYTES >> 20} MiB",
            next_step="run the command that made it once more, with LARDER_FORCE=true",
        )
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "file"
        raise InputError(
            f"{name} is not a manifest that this version reads ({where}: {in_words(fault)})",
            next_step="run the command that made it once more, with LARDER_FORCE=true",
        ) from error


def read_manifest(folder: Path, *, made_by: str) -> Manifest:
    """The manifest of an artifact that must be there; `made_by` names what makes it (larder.next_step)."""
    manifest = find_manifest(folder)
    if manifest is None:
        raise InputError(f"{folder} holds no finished data: no {META}/manifest.json", next_step=f"run {made_by}")
    return manifest


def read_run(folder: Path) -> dict[str, Any]:
    """What the last run recorded, or an empty dict: nothing depends on it but the up-to-date check."""
    try:
        record = json.loads((folder / META / "run.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def index_name(manifest: Manifest) -> str:
    """The index's file name. In a store, where nothing replaces two objects in one step, it carries the digest, so that
    the manifest that is in place always finds its own.
    """
    return f"index-{manifest.index.sha256}.jsonl" if manifest.in_store else "index.jsonl"


def samples_name(manifest: Manifest) -> str:
    """The file name of a packed artifact's index of samples, with its digest in a store: see `index_name`."""
    if manifest.samples is None:
        raise ValueError(f"{manifest.artifact} data have no index of samples")
    return f"samples-{manifest.samples.sha256}.jsonl" if manifest.in_store else "samples.jsonl"


def read_index(folder: Path, manifest: Manifest) -> Iterator[IndexEntry]:
    """Stream the index after checking its digest. Raises InputError when it isn't what the manifest says."""
    path = folder / META / index_name(manifest)
    require_digest(path, manifest.index)
    yield from parse_index(path)


def read_samples(folder: Path, manifest: Manifest) -> Iterator[SampleEntry]:
    """Stream a packed artifact's index of samples after checking its digest. Raises InputError when that is wrong."""
    path = folder / META / samples_name(manifest)
    require_digest(path, manifest.samples)
    yield from parse_samples(path)


def require_digest(path: Path, summary: IndexSummary | None) -> None:
    """Raise InputError unless an index file is what its manifest says."""
    wrong = InputError(
        f"{path} is not what its manifest says",
        next_step="run the command that made it once more, with LARDER_FORCE=true",
    )
    try:
        with path.open("rb") as file:
            if summary is None or hashlib.file_digest(file, "sha256").hexdigest() != summary.sha256:
                raise wrong
    except FileNotFoundError:
        raise wrong from None


class IndexWriter:
    """Writes an index line by line; `summary` says what was written."""

    def __init__(self, path: Path) -> None:
        self._file, self._digest, self._length = path.open("wb"), hashlib.sha256(), 0

    def add(self, entry: IndexEntry | SampleEntry) -> None:
        """Write one line. Raises OSError with the file's name when the disk can't take it."""
        line = entry.to_json().encode() + b"\n"
        self._digest.update(line)
        try:
            self._length += self._file.write(line)
        except OSError as fault:
            fault.filename = self._file.name
            raise

    @property
    def summary(self) -> IndexSummary:
        """Length and digest of what was written so far."""
        return IndexSummary(bytes=self._length, sha256=self._digest.hexdigest())

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()  # writes what is left
        except OSError as fault:
            fault.filename = self._file.name
            raise


def write_index(path: Path, entries: Iterable[IndexEntry]) -> IndexSummary:
    """Write an index file; `entries` come sorted by path."""
    with IndexWriter(path) as index:
        for entry in entries:
            index.add(entry)
    return index.summary


def parse_index(path: Path) -> Iterator[IndexEntry]:
    """Stream the entries of an index file. Raises InputError for a line that no index has."""
    with path.open("rb") as file:
        for line in _lines(file):
            yield IndexEntry.from_json(line)


def parse_samples(path: Path) -> Iterator[SampleEntry]:
    """Stream the entries of an index of samples. Raises InputError for a line that no index has."""
    with path.open("rb") as file:
        for line in _lines(file):
            yield SampleEntry.from_json(line)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file. One without an end would fill the memory."""
    for line in iter(partial(file.readline, MOST_LINE_BYTES), b""):
        if len(line) == MOST_LINE_BYTES:
            raise InputError(
                f"invalid line in index {file.name}: it has {MOST_LINE_BYTES >> 10} KiB or more",
                next_step="run the command that made it once more, with LARDER_FORCE=true",
            )
        yield line


def first_missing(folder: Path, manifest: Manifest) -> str | None:
    """The first path of the index that is absent or has another length; None when all files are in place."""
    for entry in read_index(folder, manifest):
        try:
            if os.stat(folder / entry.path, follow_symlinks=False).st_size != entry.bytes:
                return entry.path
        except (FileNotFoundError, NotADirectoryError):
            return entry.path
    return None
