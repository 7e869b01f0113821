"""Find the samples of anybody's shards in their tar headers."""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from larder.errors import InputError
from larder.loaders.hints import CREATE_AGAIN, NAME_OTHER_PLACE
from larder.progress import Reporter
from larder.sources.limits import ReadMeter, SourceLimits
from larder.sources.members import Member
from larder.sources.tar_headers import read_members
from larder.stream.ordered_threads import StoppedError, map_in_threads
from larder.stream.samples import NO_LABEL, Rows, SampleTable, Skipped, TableBuilder
from larder.stream.shard_folders import ShardFolder
from larder.tar import BLOCK_BYTES

IMAGE_EXTENSIONS = frozenset(["jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "pnm", "tif", "tiff"])
"""Extensions of images, in lower case: the formats in `larder.images.IMAGE_FORMATS`."""
_NEAR_BYTES, _READ_BYTES, _HEADER_READ_BYTES = 256 << 10, 1 << 20, 4 << 10
"""If two headers are near each other, the next request for headers reads 1 MiB, with the images between them; else
4 KiB."""
_SCANNERS = 16
_LIMITS = SourceLimits(max_files=100_000_000, max_bytes=1 << 50)
_MAX_LABEL_BYTES = 20
_OF_THE_SHARD = re.compile(r"__[^/]*__($|/)")
"""Metadata, which webdataset skips, too."""


class Wanted(NamedTuple):
    """What to look for in shards."""

    image_extension: str | None
    """Extension of the images; None takes a sample's only image."""
    label_extension: str
    """Extension of the labels, which are decimal numbers."""
    on_damage: Literal["raise", "skip"]
    """Whether samples whose members or headers are invalid raise an error, or are left out."""


class _Row(NamedTuple):
    """One sample of a shard; see `larder.stream.samples.Rows`."""

    shard: int
    begin: int
    end: int
    offset: int
    length: int
    label: int


def scan_shards(
    folder: ShardFolder, below: str, wanted: Wanted, reporter: Reporter
) -> tuple[SampleTable, list[Skipped]]:
    """Return the samples of shards without larder's index: list the shards, and read their tar headers in parallel.

    Args:
        folder: The folder.
        below: The subfolder with the shards; empty for the folder itself.
        wanted: What to look for.
        reporter: Receives progress.

    Returns:
        The samples, and those that were left out.

    Raises:
        InputError: If there are no shards, or a sample has two images. Unless such samples are left out, also if a
            shard is damaged, or a sample has a link or an invalid label.
    """
    where = f"{folder.uri}/{below}".rstrip("/")
    shards = folder.list(below)
    if not shards:
        raise InputError(f"{where} has no tar files", next_step=NAME_OTHER_PLACE)
    builder, skipped = TableBuilder(folder.uri, list(shards)), list[Skipped]()
    with reporter.task("reading tar headers", len(shards), "shards") as task:
        for rows, left_out in map_in_threads(partial(_scan, folder, wanted), enumerate(shards.items()), _SCANNERS):
            builder.add(rows)
            skipped += left_out
            task.advance()
    return builder.build(), skipped


def _scan(
    folder: ShardFolder, wanted: Wanted, shard: tuple[int, tuple[str, int]], stop: threading.Event
) -> tuple[Rows, list[Skipped]]:
    """Return the samples of a shard, given its number, and its path and length, and those that are left out."""
    number, (path, length) = shard
    scan = _Scan(number, path, f"{folder.uri}/{path}", wanted)
    scan.read(_Cursor(folder, path, length, stop))
    return Rows._make(np.array(scan.rows, np.int64).reshape(-1, len(Rows._fields)).T), scan.skipped


class _Scan:
    """Cuts a shard into samples: consecutive members with the same key.

    Args:
        number: The shard's number.
        shard: Its path.
        uri: Its name in messages.
        wanted: What to look for.
    """

    def __init__(self, number: int, shard: str, uri: str, wanted: Wanted) -> None:
        self._number, self._shard, self._uri, self._wanted = number, shard, uri, wanted
        self._members = dict[str, tuple[int, int]]()
        self._key, self._begin, self._end, self._label = "", 0, 0, NO_LABEL
        self._fault: InputError | None = None
        self.rows, self.skipped = list[_Row](), list[Skipped]()

    def read(self, cursor: _Cursor) -> None:
        """Read a shard's headers, and add its samples to `rows` and `skipped`."""
        try:
            for member in read_members(cursor, self._uri, ReadMeter(self._uri, _LIMITS)):
                self._take(member, cursor)
        except InputError as fault:
            if self._wanted.on_damage == "raise" or isinstance(fault, _AmbiguousError):
                raise
            self._skip(cursor.position, fault)  # with the sample that it is in, and what follows
        else:
            self._finish()

    def _take(self, member: Member, cursor: _Cursor) -> None:
        """Add a member to its sample."""
        if (parts := split_key(member.path)) is None:
            return
        key, extension = parts
        if key != self._key:
            self._finish()
        if not self._members:
            self._key, self._begin = key, self._end
        try:
            self._check(member, extension.lower(), cursor)
        except InputError as fault:
            if self._wanted.on_damage == "raise":
                raise
            self._fault = self._fault or fault
        self._members[extension.lower()] = int(member.location), member.bytes
        self._end = int(member.location) + member.bytes + -member.bytes % BLOCK_BYTES

    def _check(self, member: Member, extension: str, cursor: _Cursor) -> None:
        """Raise InputError if a member can't be used. Read it if it is the label."""
        name = f"{self._uri}: {member.path!r}"
        if member.link is not None:
            raise InputError(
                f"{name} is a link, and links aren't followed",
                next_step="pack the files themselves (`tar --dereference --hard-dereference`)",
            )
        if extension in self._members:
            raise InputError(f"{name} is in the sample twice", next_step=CREATE_AGAIN)
        if extension == self._wanted.label_extension:
            self._label = _parse_label(cursor, member.bytes, name)

    def _finish(self) -> None:
        """Add the sample whose members were read."""
        if self._members and self._fault is not None:
            self._skip(self._begin, self._fault)
        elif self._members:
            images = [name for name in self._members if self._is_image(name)]
            if len(images) > 1:
                raise _AmbiguousError(
                    f"{self._uri}: the sample {self._key!r} has several images: {', '.join(images)}",
                    next_step="choose one by its extension, such as `image_extension='jpg'`, also for `samples()`",
                )
            position, size = self._members[images[0]] if images else (-1, 0)
            self.rows.append(_Row(self._number, self._begin, self._end, position, size, self._label))
        self._members, self._label, self._fault = {}, NO_LABEL, None

    def _skip(self, position: int, fault: InputError) -> None:
        self.skipped.append(Skipped(self._shard, position, fault.what.replace(self._uri, "the shard")))

    def _is_image(self, extension: str) -> bool:
        if self._wanted.image_extension is not None:
            return extension == self._wanted.image_extension
        return extension.rpartition(".")[2] in IMAGE_EXTENSIONS


class _AmbiguousError(InputError):
    """It isn't known which of a sample's images is wanted, so that leaving it out would be wrong."""


def _parse_label(cursor: _Cursor, size: int, name: str) -> int:
    text = cursor.take(min(size, _MAX_LABEL_BYTES)).strip()
    if size > _MAX_LABEL_BYTES or not text.isdigit() or len(text) > 18:
        raise InputError(
            f"{name} is {text[:20]!r}, and a label is a decimal number",
            next_step="pack the labels as numbers; to read the members as they are with `samples()`, give a "
            "`label_extension` that no member has",
        )
    return int(text)


def split_key(path: str) -> tuple[str, str] | None:
    """Split a member's path into the sample's key and the extension, at the first dot of the file name.

    Returns:
        Key and extension. None for a file that belongs to no sample, much as WebDataset has it: without a key or a dot,
        such as `README` or `.gitignore`, or of the shard itself, such as `__info__/license.txt`.

    Example:
        >>> split_key("a.b/0001.seg.png")
        ('a.b/0001', 'seg.png')
    """
    folder, slash, name = path.rpartition("/")
    stem, dot, extension = name.partition(".")
    if not (stem and dot) or (path.startswith("__") and _OF_THE_SHARD.match(path)):
        return None
    return f"{folder}{slash}{stem}", extension


class _Cursor:
    """A position in a shard that moves only forwards; see `larder.sources.tar_headers.TarCursor`."""

    def __init__(self, folder: ShardFolder, shard: str, length: int, stop: threading.Event) -> None:
        self._folder, self._shard, self._length, self._stop = folder, shard, length, stop
        self._ahead, self._begin, self.position, self._is_near = memoryview(b""), 0, 0, True

    def take(self, length: int) -> bytes:
        """Read the next `length` bytes, or fewer at the end. Raises StoppedError if nobody wants them any more."""
        if self._stop.is_set():
            raise StoppedError
        end = min(self.position + length, self._length)
        if not self._begin <= self.position <= end <= self._begin + len(self._ahead):
            ahead = _READ_BYTES if self._is_near else _HEADER_READ_BYTES
            read_end = min(self._length, max(end, self.position + ahead))
            self._ahead, self._begin = self._folder.read(self._shard, self.position, read_end), self.position
        taken = bytes(self._ahead[self.position - self._begin : end - self._begin])
        self.position = end
        return taken

    def skip_to(self, position: int) -> None:
        """Move forward to `position`."""
        self._is_near = position - self.position < _NEAR_BYTES
        self.position = min(position, self._length)
