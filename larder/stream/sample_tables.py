"""Find the samples of shards: in larder's index of samples, or in the tar headers of anybody's shards."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from larder.contract import Manifest
from larder.errors import ConfigurationError, InputError
from larder.loaders.hints import CREATE_AGAIN, NAME_OTHER_PLACE
from larder.progress import Reporter
from larder.sources.limits import ReadMeter, SourceLimits
from larder.sources.tar_headers import read_members
from larder.stream.index_parser import IndexParser
from larder.stream.samples import NO_LABEL, Rows, SampleTable, TableBuilder
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


class _Row(NamedTuple):
    """One sample of a shard; see `larder.stream.samples.Rows`."""

    shard: int
    begin: int
    end: int
    offset: int
    length: int
    label: int


def read_index(folder: ShardFolder, manifest: Manifest, split: str, reporter: Reporter) -> SampleTable:
    """Return the samples of a split, from the index that a manifest names.

    Args:
        folder: The folder of all splits.
        manifest: Its manifest.
        split: The split, such as "training".
        reporter: Receives progress.

    Raises:
        InputError: If the index isn't the manifest's, or is inconsistent.
        ConfigurationError: If the manifest has no such split.
    """
    if split not in manifest.splits:
        raise ConfigurationError(
            f"{folder.uri} has no split {split!r}",
            next_step=f"name one of: {', '.join(sorted(manifest.splits)[:10])}",
        )
    samples = manifest.splits[split].samples
    with reporter.task("reading the index of samples", samples, "samples") as task:
        parser: IndexParser | None = None

        def begin(name: str) -> Callable[[bytes], object]:
            nonlocal parser
            parser = IndexParser(split, len(manifest.classes), folder.uri, name, task.advance)
            return parser.feed

        folder.feed_samples(manifest, begin)
        if parser is None:
            raise InputError(f"the index of samples of {folder.uri} is empty", next_step=CREATE_AGAIN)
        table = parser.finish()
    if len(table) != samples:
        raise InputError(
            f"the index of samples of {folder.uri} has {len(table):,} samples in {split!r}, its manifest {samples:,}",
            next_step=CREATE_AGAIN,
        )
    return table


def scan_shards(
    folder: ShardFolder, below: str, image_extension: str | None, label_extension: str, reporter: Reporter
) -> SampleTable:
    """Return the samples of shards without larder's index: list the shards, and read their tar headers in parallel.

    Args:
        folder: The folder.
        below: The subfolder with the shards; empty for the folder itself.
        image_extension: Extension of the images; None takes a sample's only image.
        label_extension: Extension of the labels, which are decimal numbers.
        reporter: Receives progress.

    Raises:
        InputError: If there are no shards, a shard is damaged, or a sample has two images or an invalid label.
    """
    where = f"{folder.uri}/{below}".rstrip("/")
    shards = folder.list(below)
    if not shards:
        raise InputError(f"{where} has no tar files", next_step=NAME_OTHER_PLACE)
    with (
        ThreadPoolExecutor(_SCANNERS) as pool,
        reporter.task("reading tar headers", len(shards), "shards") as task,
    ):
        builder, scan = TableBuilder(folder.uri, list(shards)), _Scan(folder, image_extension, label_extension)
        try:
            for found in pool.map(scan.rows, range(len(shards)), shards, shards.values()):
                if found:
                    builder.add(Rows._make(np.array(found, np.int64).T))
                task.advance()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return builder.build()


class _Scan:
    """Reads the tar headers of shards."""

    def __init__(self, folder: ShardFolder, image_extension: str | None, label_extension: str) -> None:
        self._folder, self._image, self._label = folder, image_extension, label_extension

    def rows(self, number: int, shard: str, length: int) -> list[_Row]:
        """Return the samples of one shard: its consecutive members with the same key."""
        uri = f"{self._folder.uri}/{shard}"
        cursor = _Cursor(self._folder, shard, length)
        rows: list[_Row] = []
        members: dict[str, tuple[int, int]] = {}
        key, begin, label, end = "", 0, NO_LABEL, 0
        for member in read_members(cursor, uri, ReadMeter(uri, _LIMITS)):
            member_key, extension = split_key(member.path)
            if members and member_key != key:
                rows.append(self._row(number, uri, key, (begin, end), members, label))
                members, label = {}, NO_LABEL
            if not members:
                key, begin = member_key, end
            extension = extension.lower()
            if extension in members:
                raise InputError(f"{uri}: {member.path!r} is in the sample twice", next_step=CREATE_AGAIN)
            position = int(member.location)
            members[extension] = position, member.bytes
            if extension == self._label:
                label = self._parse_label(cursor, member.bytes, f"{uri}: {member.path!r}")
            end = position + member.bytes + -member.bytes % BLOCK_BYTES
        if members:
            rows.append(self._row(number, uri, key, (begin, end), members, label))
        return rows

    def _parse_label(self, cursor: _Cursor, size: int, name: str) -> int:
        text = cursor.take(min(size, _MAX_LABEL_BYTES)).strip()
        if size > _MAX_LABEL_BYTES or not text.isdigit() or len(text) > 18:
            raise InputError(
                f"{name} is {text[:20]!r}, and a label is a decimal number",
                next_step="pack the labels as numbers; to read the members as they are with `samples()`, give a "
                "`label_extension` that no member has",
            )
        return int(text)

    def _row(
        self,
        shard: int,
        uri: str,
        key: str,
        extent: tuple[int, int],
        members: dict[str, tuple[int, int]],
        label: int,
    ) -> _Row:
        images = [name for name in members if self._is_image(name)]
        if len(images) > 1:
            raise InputError(
                f"{uri}: the sample {key!r} has several images: {', '.join(images)}",
                next_step="choose one by its extension, such as `image_extension='jpg'`, also for `samples()`",
            )
        position, size = members[images[0]] if images else (-1, 0)
        return _Row(shard, *extent, position, size, label)

    def _is_image(self, extension: str) -> bool:
        if self._image is not None:
            return extension == self._image
        return extension.rpartition(".")[2].lower() in IMAGE_EXTENSIONS


def split_key(path: str) -> tuple[str, str]:
    """Split a member's path into the sample's key and the extension, at the first dot of the file name.

    Example:
        >>> split_key("a.b/0001.seg.png")
        ('a.b/0001', 'seg.png')
    """
    folder, slash, name = path.rpartition("/")
    stem, _, extension = name.partition(".")
    return f"{folder}{slash}{stem}", extension


class _Cursor:
    """A position in a shard that moves only forwards; see `larder.sources.tar_headers.TarCursor`."""

    def __init__(self, folder: ShardFolder, shard: str, length: int) -> None:
        self._folder, self._shard, self._length = folder, shard, length
        self._ahead, self._begin, self.position, self._is_near = memoryview(b""), 0, 0, True

    def take(self, length: int) -> bytes:
        """Read the next `length` bytes, or fewer at the end."""
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
