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
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NamedTuple, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json  # three times as fast as json.loads

from larder.errors import InputError
from larder.fingerprint import ETAG_SETTINGS
from larder.packed import CODECS, Codec
from larder.settings import in_words

VERSION: Literal[1] = 1
META = "_larder"
MANIFEST, RUN = f"{META}/manifest.json", f"{META}/run.json"
INDEX_IN_STORE = re.compile(rf"{META}/index-([0-9a-f]{{64}})\.jsonl")
"""The path of an index in a store, and in it the index's digest: see `index_name`."""

MANIFEST_BYTES = 32 << 20
"""The most that a manifest may have: a million classes of three splits take 50 bytes each."""
LINE_BYTES = 64 << 10
"""The most that a line of an index may have: two paths of 4 KiB, each byte of them escaped, take less."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_is_sha256 = re.compile("[0-9a-f]{64}").fullmatch
_is_object = re.compile(r"s3://[A-Za-z0-9._-]{1,255}/.{1,1024}", re.DOTALL).fullmatch
_LARGEST = (1 << 63) - 1
"""What arrays, tensors and SQLite hold."""
_AGAIN = "run the command that made it once more, with LARDER_FORCE=true"

Artifact = Literal["raw", "tree", "objects", "index", "webdataset", "litdata"]

Line = str | bytes


def is_inside(path: str) -> bool:
    """Whether a path stays below the folder that it is joined to: relative, without `.`, `..` and empty parts."""
    if "/." in path or "//" in path or "\0" in path or path[:1] in ("", ".", "/") or path[-1] == "/":
        return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))
    return True


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
    object: str | None = None
    """Where the bytes lie that are elsewhere in the store: `s3://bucket/key`."""
    offset: int | None = None
    """Of the first byte in that object; None for the whole object."""
    packed: int | None = None
    """The length there, where the bytes are packed; None where they lie as they are."""
    codec: Codec | None = None
    """How they are packed."""
    at: int | None = None
    """Where the image begins in what that unpacks to; None for 0."""

    def to_json(self) -> str:
        """One line of the index, without the newline; `label` is spelled `class` there."""
        fields = {"class" if name == "label" else name: value for name, value in self._asdict().items()}
        return _encode({name: value for name, value in fields.items() if value is not None})

    @classmethod
    def from_json(cls, line: Line) -> IndexEntry:
        """Parse a line that this process has written or checked."""
        fields = from_json(line)
        fields["label"] = fields.pop("class", None)
        return cls(**fields)

    @classmethod
    def checked(cls, line: Line) -> IndexEntry:
        """Parse a line from elsewhere. Raises ValueError unless it is one of an index."""
        try:
            entry = cls.from_json(line)
        except (TypeError, AttributeError, KeyError) as fault:
            raise ValueError(f"its keys are not those of a file: {fault}") from None
        path, size, sha256, label, width, height, source, etag, key, place, offset, packed, codec, at = entry
        # Spelled out, since a call for each value would take half as long again as parsing the line.
        if not (type(path) is str and is_inside(path)):
            raise ValueError("its path leaves the folder, or is none")
        if not (type(size) is int and 0 <= size <= _LARGEST and type(sha256) is str and _is_sha256(sha256)):
            raise ValueError("its length or its sha256 is none")
        if not (
            (label is None or (type(label) is int and 0 <= label <= _LARGEST))
            and (width is None or (type(width) is int and 0 <= width <= _LARGEST))
            and (height is None or (type(height) is int and 0 <= height <= _LARGEST))
        ):
            raise ValueError("its class, width or height is none")
        if not ((source is None or type(source) is str) and (etag is None or type(etag) is str)):
            raise ValueError("its source or ETag is none")
        if not (key is None or (type(key) is str and is_inside(key))):
            raise ValueError("its key is none")
        if place is not None and not (type(place) is str and _is_object(place)):
            raise ValueError("its object is none")
        if offset is not None and not (type(offset) is int and 0 <= offset <= _LARGEST - size):
            raise ValueError("its offset is none")
        if packed is not None and not (type(packed) is int and 0 <= packed <= _LARGEST and offset is not None):
            raise ValueError("its packed length is none")
        if (packed is None) != (codec is None) or (codec is not None and codec not in CODECS):
            raise ValueError("its codec is none")
        if at is not None and not (type(at) is int and 0 <= at <= _LARGEST - size and packed is not None):
            raise ValueError("its place in what is packed is none")
        return entry


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
        """Parse a line that this process has written or checked."""
        fields = from_json(line)
        fields["label"] = fields.pop("class")
        return cls(**fields)

    @classmethod
    def checked(cls, line: Line) -> SampleEntry:
        """Parse a line from elsewhere. Raises ValueError unless it is one of an index of samples."""
        try:
            entry = cls.from_json(line)
        except (TypeError, AttributeError, KeyError) as fault:
            raise ValueError(f"its keys are not those of a sample: {fault}") from None
        file, offset, size, sha256, label, source, key = entry
        if not (type(file) is str and is_inside(file) and type(source) is str and is_inside(source)):
            raise ValueError("its file or its source leaves the folder, or is none")
        if not all(type(value) is int and 0 <= value <= _LARGEST for value in (offset, size, label)):
            raise ValueError("its offset, length or class is none")
        if not (type(sha256) is str and _is_sha256(sha256)):
            raise ValueError("its sha256 is none")
        if not (key is None or (type(key) is str and is_inside(key))):
            raise ValueError("its key is none")
        return entry


def _a_folder(name: str) -> str:
    if "/" in name or not is_inside(name):
        raise ValueError("must be the name of a folder")
    return name


Count = Annotated[int, Field(ge=0, le=_LARGEST)]
_Number = Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, strict=True)


class SplitSummary(_Frozen):
    """One split: the number of samples, their bytes, and the number of samples of each class by index."""

    samples: Count
    bytes: Count
    samples_per_class: list[Count]


class IndexSummary(_Frozen):
    """The index: its length in bytes and its digest."""

    bytes: Count
    sha256: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]
    """Names a file in a store, too; empty is no file's."""


class Manifest(_Frozen):
    """What an artifact is. `input` names what it was made from, by digest where that has one."""

    version: Literal[1] = VERSION
    artifact: Artifact
    dataset: str
    classes: list[str]
    splits: dict[Annotated[str, AfterValidator(_a_folder)], SplitSummary]
    input: dict[str, str | _Number]
    settings: dict[str, str | _Number]
    files: Count
    bytes: Count
    index: IndexSummary
    samples: IndexSummary | None = None
    """The index of samples, which only packed artifacts have."""

    @model_validator(mode="after")
    def _counts_every_class(self) -> Self:
        if any(len(split.samples_per_class) != len(self.classes) for split in self.splits.values()):
            raise ValueError("samples_per_class must have a number for each class")
        return self

    def to_json(self) -> str:
        """The manifest's canonical bytes as text: sorted keys, two spaces, a newline at the end."""
        return json.dumps(self.model_dump(exclude_none=True), sort_keys=True, indent=2, ensure_ascii=False) + "\n"

    def digest(self) -> str:
        """sha256 of the canonical bytes: what the next stage's manifest names as its input."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def in_store(self) -> bool:
        """Whether it lies in a store. Where it describes what larder has put there, the settings say how ETags come
        about.
        """
        return self.artifact == "index" or ETAG_SETTINGS.keys() <= self.settings.keys()

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
            text = file.read(MANIFEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return parse_manifest(text, str(path))


def parse_manifest(text: bytes, name: str) -> Manifest:
    """The manifest that `text`, found at `name`, holds. Raises InputError when it isn't one."""
    try:
        if len(text) > MANIFEST_BYTES:
            raise ValueError(f"file: must have at most {MANIFEST_BYTES:,} bytes")
        return parse_strictly(Manifest, text)
    except ValueError as fault:
        raise InputError(f"{name} is not a manifest that this version reads ({fault})", next_step=_AGAIN) from None


_Model = TypeVar("_Model", bound=BaseModel)


def parse_strictly(kind: type[_Model], text: bytes) -> _Model:
    """The model that a JSON document is. Raises ValueError, which says where it isn't, and for a key that comes twice.

    Parsers disagree about which of two values such a key has.
    """
    try:
        found = kind.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"]) or "file"
        raise ValueError(f"{where[:200]}: {in_words(fault)[:200]}") from None
    json.loads(text, object_pairs_hook=_without_repetition)
    return found


def _without_repetition(pairs: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        raise ValueError("file: a key comes twice")


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
    except (FileNotFoundError, ValueError, RecursionError):
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
    yield from parse_index(path, classes=len(manifest.classes))


def read_samples(folder: Path, manifest: Manifest) -> Iterator[SampleEntry]:
    """Stream a packed artifact's index of samples after checking its digest. Raises InputError when that is wrong."""
    path = folder / META / samples_name(manifest)
    require_digest(path, manifest.samples)
    yield from parse_samples(path)


def require_digest(path: Path, summary: IndexSummary | None) -> None:
    """Raise InputError unless an index file is what its manifest says."""
    wrong = InputError(f"{path} is not what its manifest says", next_step=_AGAIN)
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


def parse_index(place: Path | IO[bytes], name: str = "", classes: int | None = None) -> Iterator[IndexEntry]:
    """Stream the entries of an index, a path or an open file, which errors call `name`.

    Raises InputError for a line that isn't one, and for one that isn't sorted or, of so many `classes`, has another.
    """
    before = ""
    for entry in _parsed(place, name, IndexEntry.checked):
        if entry.path <= before:
            raise InputError(f"{name or place} isn't sorted at {entry.path[:200]!r}", next_step=_AGAIN)
        if classes is not None and entry.label is not None and entry.label >= classes:
            raise InputError(
                f"{name or place}: {entry.path[:200]!r} has class {entry.label}, and the manifest names {classes:,}",
                next_step=_AGAIN,
            )
        before = entry.path
        yield entry


def parse_samples(place: Path | IO[bytes], name: str = "") -> Iterator[SampleEntry]:
    """Stream an index of samples, a path or an open file, which errors call `name`.

    Raises InputError for a line that isn't one.
    """
    return _parsed(place, name, SampleEntry.checked)


_Entry = TypeVar("_Entry")


def _parsed(place: Path | IO[bytes], name: str, parse: Callable[[bytes], _Entry]) -> Iterator[_Entry]:
    with place.open("rb") if isinstance(place, Path) else nullcontext(place) as file:
        for number, line in enumerate(iter(partial(file.readline, LINE_BYTES), b""), start=1):
            try:
                entry = parse(line)
            except ValueError as fault:
                raise InputError(
                    f"line {number:,} of {name or place} is not an index entry: {str(fault)[:200]}", next_step=_AGAIN
                ) from None
            yield entry


def first_missing(folder: Path, manifest: Manifest) -> str | None:
    """The first path of the index that is absent or has another length; None when all files are in place."""
    for entry in read_index(folder, manifest):
        try:
            if os.stat(folder / entry.path, follow_symlinks=False).st_size != entry.bytes:
                return entry.path
        except (FileNotFoundError, NotADirectoryError):
            return entry.path
    return None
