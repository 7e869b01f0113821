"""Find the samples of shards: in larder's index of samples, or in the tar headers of anybody's shards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from larder.contract import Manifest, SampleEntry
from larder.errors import ConfigurationError, InputError
from larder.images import MAX_IMAGE_BYTES
from larder.loaders.hints import CREATE_AGAIN, NAME_OTHER_PLACE
from larder.progress import Reporter
from larder.shards import member_names
from larder.sources.limits import ReadMeter, SourceLimits
from larder.sources.tar_headers import read_members
from larder.stream.samples import NO_LABEL, SampleRow, SampleTable
from larder.stream.shard_folders import ShardFolder
from larder.tar import BLOCK_BYTES, header_bytes, member_bytes

IMAGE_EXTENSIONS = frozenset(["jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm", "pnm", "tif", "tiff"])
"""Extensions of images, in lower case: the formats in `larder.images.IMAGE_FORMATS`."""
_NEAR_BYTES, _READ_BYTES, _HEADER_READ_BYTES = 256 << 10, 1 << 20, 4 << 10
"""If two headers are near each other, the next request for headers reads 1 MiB, with the images between them; else
4 KiB."""
_SCANNERS = 16
_MAX_SHARD_BYTES = 1 << 50
_LIMITS = SourceLimits(max_files=100_000_000, max_bytes=1 << 50)
_MAX_LABEL_BYTES = 20


class _Shards(NamedTuple):
    """The numbers of shards by path, in the order of the index."""

    paths: list[str]
    number: dict[str, int]


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
    shards = _Shards([], {})
    samples = manifest.splits[split].samples
    with reporter.task("reading the index of samples", samples, "samples") as task:

        def rows() -> Iterator[SampleRow]:
            for entry in folder.samples(manifest):
                if entry.file.startswith(f"{split}/"):
                    task.advance()
                    yield _row_of_entry(entry, shards, len(manifest.classes), folder.uri)

        table = SampleTable.of_rows(shards.paths, _checked(rows(), shards.paths, folder.uri))
    if len(table) != samples:
        raise InputError(
            f"the index of samples of {folder.uri} has {len(table):,} samples in {split!r}, its manifest {samples:,}",
            next_step=CREATE_AGAIN,
        )
    return table


def _row_of_entry(entry: SampleEntry, shards: _Shards, classes: int, uri: str) -> SampleRow:
    """Return the row of an entry. Its members are an image and, right behind it, a label (`larder.shards`)."""
    if entry.label >= classes:
        raise InputError(
            f"the index of samples of {uri}: {entry.source!r} has class {entry.label}; the manifest names {classes:,}",
            next_step=CREATE_AGAIN,
        )
    if entry.file not in shards.number:
        shards.number[entry.file] = len(shards.paths)
        shards.paths.append(entry.file)
    image, label = member_names(entry.source, entry.key)
    begin = entry.offset - header_bytes(image)
    end = entry.offset + entry.bytes + -entry.bytes % BLOCK_BYTES + member_bytes(label, len(str(entry.label)))
    digest = bytes.fromhex(entry.sha256)
    return SampleRow(shards.number[entry.file], begin, end, entry.offset, entry.bytes, entry.label, digest)


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

        def rows() -> Iterator[SampleRow]:
            scan = _Scan(folder, image_extension, label_extension)
            try:
                for found in pool.map(scan.rows, range(len(shards)), shards, shards.values()):
                    yield from found
                    task.advance()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

        return SampleTable.of_rows(list(shards), _checked(rows(), list(shards), folder.uri))


def _checked(rows: Iterable[SampleRow], shards: Sequence[str], uri: str) -> Iterator[SampleRow]:
    """Yield rows whose positions make sense: samples of one shard together, in ascending order, and of sane lengths."""
    last_shard = last_end = -1
    for row in rows:
        is_next = row.shard > last_shard and row.begin >= 0
        if not (is_next or (row.shard == last_shard and row.begin >= last_end)):
            raise InputError(
                f"the samples of {uri}/{shards[row.shard]} aren't listed together, in the order of the shard",
                next_step=CREATE_AGAIN,
            )
        is_sane = row.begin <= row.end <= _MAX_SHARD_BYTES and row.end - row.begin <= 4 * MAX_IMAGE_BYTES
        if row.length > MAX_IMAGE_BYTES or not is_sane:
            raise InputError(
                f"{uri}/{shards[row.shard]}, byte {row.offset:,}: a sample of {row.length:,} bytes is too large",
                next_step=CREATE_AGAIN,
            )
        last_shard, last_end = row.shard, row.end
        yield row


class _Scan:
    """Reads the tar headers of shards."""

    def __init__(self, folder: ShardFolder, image_extension: str | None, label_extension: str) -> None:
        self._folder, self._image, self._label = folder, image_extension, label_extension

    def rows(self, number: int, shard: str, length: int) -> list[SampleRow]:
        """Return the samples of one shard: its consecutive members with the same key."""
        uri = f"{self._folder.uri}/{shard}"
        cursor = _Cursor(self._folder, shard, length)
        rows: list[SampleRow] = []
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
        if not text.isdigit() or len(text) > 18:
            raise InputError(
                f"{name} is {text[:20]!r}, and a label is a decimal number",
                next_step="pack the labels as numbers, or read the members as they are with `samples()`",
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
    ) -> SampleRow:
        images = [name for name in members if self._is_image(name)]
        if len(images) > 1:
            raise InputError(
                f"{uri}: the sample {key!r} has several images: {', '.join(images)}",
                next_step="choose one by its extension, such as `image_extension='jpg'`",
            )
        position, size = members[images[0]] if images else (-1, 0)
        return SampleRow(shard, *extent, position, size, label)

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
