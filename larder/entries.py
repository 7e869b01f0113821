"""Define and parse the lines of an artifact's indexes of files and of samples (see `larder.contract`)."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic_core import from_json, to_json  # three and six times as fast as json's

from larder.codecs import CODECS, Codec

MAX_INT64 = (1 << 63) - 1
"""The largest number that arrays, tensors and SQLite can store."""
_is_sha256 = re.compile("[0-9a-f]{64}").fullmatch
_is_object = re.compile(r"s3://[A-Za-z0-9._-]{1,255}/.{1,1024}", re.DOTALL).fullmatch

Line = str | bytes


def is_inside(path: str) -> bool:
    """Return whether a path stays below the folder that it is joined to: relative, without `.`, `..` or empty parts."""
    if "/." in path or "//" in path or "\0" in path or path[:1] in ("", ".", "/") or path[-1] == "/":
        return "\0" not in path and not {"", ".", ".."} & set(path.split("/"))
    return True


class IndexEntry(NamedTuple):
    """One file of an artifact. `path` is relative to the artifact; fields that don't apply are None."""

    path: str
    """Path below the artifact."""
    bytes: int
    """Length of the file."""
    sha256: str
    """Digest of the file."""
    label: int | None = None
    """Label: a position in the manifest's `classes`. In `tree`, `objects` and `index`."""
    width: int | None = None
    """Width in pixels as stored, before EXIF orientation. In `tree`, `objects` and `index`; absent with
    `LARDER_VERIFY=none`."""
    height: int | None = None
    """Height in pixels, likewise."""
    source: str | None = None
    """Path in `raw`; in `index`, path in the source. In `tree`, `objects` and `index`."""
    etag: str | None = None
    """ETag of the object: the MD5 of its content, or of its parts' MD5s. Only in stores.
    In `index`, the ETag of `object` when it was read."""
    key: str | None = None
    """Key of a sample whose path can't be its key. Used only while packing; never in an index."""
    object: str | None = None
    """URI `s3://bucket/key` of the object that contains the image, if it is stored elsewhere. Only in `index`."""
    offset: int | None = None
    """Position of the first byte in that object; absent for the whole object. Only in `index`."""
    packed: int | None = None
    """Compressed length in that object; absent if the bytes are not compressed. Only in `index`."""
    codec: Codec | None = None
    """Compression of the bytes in that object. Only in `index`."""
    at: int | None = None
    """Position of the image in the decompressed bytes; absent for 0. Only in `index`."""

    def to_json(self) -> str:
        """Return the entry as a line of the index, without the newline. The field `label` is called `class` there."""
        fields = {name: value for name, value in zip(_JSON_KEYS, self, strict=True) if value is not None}
        return to_json(fields).decode()

    @classmethod
    def from_json(cls, line: Line) -> IndexEntry:
        """Parse a line that this process has written or checked."""
        fields = from_json(line)
        fields["label"] = fields.pop("class", None)
        return cls(**fields)

    @classmethod
    def checked(cls, line: Line) -> IndexEntry:
        """Parse and check a line from an untrusted index.

        Raises:
            ValueError: If the line is invalid.
        """
        try:
            entry = cls.from_json(line)
        except (TypeError, AttributeError, KeyError) as fault:
            raise ValueError(f"its keys are not those of a file: {fault}") from None
        path, size, sha256, label, width, height, source, etag, key, object_key, offset, packed, codec, at = entry
        # Checked inline: a function call for each value would add half of the parsing time.
        if not (type(path) is str and is_inside(path)):
            raise ValueError("invalid path: it must be a file below the folder")
        if not (type(size) is int and 0 <= size <= MAX_INT64 and type(sha256) is str and _is_sha256(sha256)):
            raise ValueError("invalid length or sha256")
        if not (
            (label is None or (type(label) is int and 0 <= label <= MAX_INT64))
            and (width is None or (type(width) is int and 0 <= width <= MAX_INT64))
            and (height is None or (type(height) is int and 0 <= height <= MAX_INT64))
        ):
            raise ValueError("invalid class, width or height")
        if not ((source is None or type(source) is str) and (etag is None or type(etag) is str)):
            raise ValueError("invalid source or ETag")
        if not (key is None or (type(key) is str and is_inside(key))):
            raise ValueError("invalid key")
        if object_key is not None and not (type(object_key) is str and _is_object(object_key)):
            raise ValueError("invalid object")
        if offset is not None and not (type(offset) is int and 0 <= offset <= MAX_INT64 - size):
            raise ValueError("invalid offset")
        if packed is not None and not (type(packed) is int and 0 <= packed <= MAX_INT64 and offset is not None):
            raise ValueError("invalid packed length")
        if (packed is None) != (codec is None) or (codec is not None and codec not in CODECS):
            raise ValueError("invalid codec")
        if at is not None and not (type(at) is int and 0 <= at <= MAX_INT64 - size and packed is not None):
            raise ValueError("invalid position in the packed bytes")
        return entry


_JSON_KEYS = tuple("class" if name == "label" else name for name in IndexEntry._fields)


class SampleEntry(NamedTuple):
    """One sample of a packed artifact. Its image begins at `offset` in `file`; its path in the tree is `source`."""

    file: str
    """Path of the shard or chunk, as in the index."""
    offset: int
    """Position of the image's first byte in that file."""
    bytes: int
    """Length of the image."""
    sha256: str
    """Digest of the image."""
    label: int
    """Label: a position in the manifest's `classes`."""
    source: str
    """Path in the tree."""
    key: str | None = None
    """Key of the sample in a shard, if it can't be derived from the path (`larder.shards`)."""

    def to_json(self) -> str:
        """Return the entry as a line of the index of samples, without the newline. `label` is called `class` there."""
        fields = {
            "file": self.file,
            "offset": self.offset,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "source": self.source,
            "class": self.label,
        }
        if self.key is not None:
            fields["key"] = self.key
        return to_json(fields).decode()

    @classmethod
    def from_json(cls, line: Line) -> SampleEntry:
        """Parse a line that this process has written or checked."""
        fields = from_json(line)
        fields["label"] = fields.pop("class")
        return cls(**fields)

    @classmethod
    def checked(cls, line: Line) -> SampleEntry:
        """Parse and check a line from an untrusted index of samples.

        Raises:
            ValueError: If the line is invalid.
        """
        try:
            entry = cls.from_json(line)
        except (TypeError, AttributeError, KeyError) as fault:
            raise ValueError(f"its keys are not those of a sample: {fault}") from None
        file, offset, size, sha256, label, source, key = entry
        if not (type(file) is str and is_inside(file) and type(source) is str and is_inside(source)):
            raise ValueError("invalid file or source: each must be a file below the folder")
        if not all(type(value) is int and 0 <= value <= MAX_INT64 for value in (offset, size, label)):
            raise ValueError("invalid offset, length or class")
        if not (type(sha256) is str and _is_sha256(sha256)):
            raise ValueError("invalid sha256")
        if not (key is None or (type(key) is str and is_inside(key))):
            raise ValueError("invalid key")
        return entry
