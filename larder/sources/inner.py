"""Unpack archives inside an archive, one level deep. Each becomes a folder of its name.

Many datasets are distributed this way: train.zip and test.zip in one zip, or one tar per class in a tar. An inner
archive that the outer one stores without compression is read in place. Otherwise it is first copied to a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from larder.sources.archive import SourceOptions, open_archive
from larder.sources.limits import ReadMeter
from larder.sources.members import (
    Archive,
    Member,
    UnsafeNameError,
    is_litter,
    quote_name,
    safe_path,
    unsafe_source_error,
)
from larder.sources.random_access import RandomAccessArchive
from larder.sources.tar import TarSource
from larder.volume import require_space

if TYPE_CHECKING:
    import tempfile

_ENDINGS = (
    ".tar.gz",
    ".tar.bz2",
    ".tar.xz",
    ".tar.zst",
    ".tar",
    ".tgz",
    ".tbz2",
    ".tbz",
    ".txz",
    ".tzst",
    ".zip",
)
_LAST_CHARACTERS = {ending[-1] for ending in _ENDINGS} | {ending[-1].upper() for ending in _ENDINGS}
"""Last characters of the endings. They are compared first, since there may be millions of files."""
_LEAVE_THEM = "fix it in the source, or set LARDER_INNER_ARCHIVES=false to leave archives in the archive as they are"


class InnerLocation(NamedTuple):
    """Place of a file in an inner archive."""

    source: Archive
    member: Member


class InnerArchivesSource:
    """An archive whose inner archives are replaced by their files."""

    def __init__(self, outer: Archive, options: SourceOptions) -> None:
        self.outer, self.options = outer, options
        self.name, self.parallel, self.sizes_known = outer.name, outer.parallel, outer.sizes_known
        self.action, self.total = outer.action, outer.total
        self.inner_count = 0
        """Number of inner archives that the last scan has found."""
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_temporary": None}

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        meter = ReadMeter(self.name, self.options.limits)
        self.inner_count = 0
        for member in self.outer.scan(meter):
            if member.path[-1] in _LAST_CHARACTERS and member.link is None and _folder_of(member.path):
                yield from self._files_of(member, meter)
            else:
                yield member

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        if isinstance(member.location, InnerLocation):
            return member.location.source.read(member.location.member)
        return self.outer.read(member)

    def _files_of(self, member: Member, meter: ReadMeter) -> Iterator[Member]:
        """Yield the files of an inner archive, or the member itself if it isn't an archive in spite of its name."""
        if (inner := self._open_in_place(member)) is not None:
            meter.uncount_file(member.bytes)
            yield from self._move_into_folder(inner, member.path, meter)
            return
        copy = self._copy_to_file(member)
        inner = self._open_copy(copy, member, meter)
        if inner is not None:
            yield from self._move_into_folder(inner, member.path, meter)
        else:
            whole = TarSource(copy, self.name, self.options.limits)  # can read any byte range of a file
            yield member._replace(location=InnerLocation(whole, member._replace(location=0)))
        if not self.parallel:  # the files have been read during the scan
            copy.unlink(missing_ok=True)
            _tar_beside(copy).unlink(missing_ok=True)

    def _open_in_place(self, member: Member) -> Archive | None:
        """Open an inner archive in place, or return None. Not for a tar in a zip: only the zip has a checksum."""
        if not isinstance(self.outer, RandomAccessArchive) or (byte_range := self.outer.range_of(member)) is None:
            return None
        inner = open_archive(self.outer.path, self._name_of(member), self.options, *byte_range)
        unchecked = isinstance(inner, TarSource) and not isinstance(self.outer, TarSource)
        return None if unchecked else inner

    def _open_copy(self, copy: Path, member: Member, meter: ReadMeter) -> Archive | None:
        """Open the copy of an inner archive. Decompress a compressed tar to make its files readable in any order."""
        name = self._name_of(member)
        inner = open_archive(copy, name, self.options)
        if inner is None or isinstance(inner, RandomAccessArchive):
            return inner
        from larder.sources.decoders import open_stream
        from larder.sources.tar_headers import BLOCK_BYTES, is_header
        from larder.sources.tar_stream import TarStreamSource, map_decode_errors

        assert isinstance(inner, TarStreamSource)
        tar = _tar_beside(copy)
        if not tar.exists():
            with map_decode_errors(name), open_stream(copy, inner.codec) as stream:
                head = stream.read(BLOCK_BYTES)
                if not is_header(head):
                    return None
                self._write(tar, _chunks(head, stream, meter))
        return TarSource(tar, name, self.options.limits)

    def _copy_to_file(self, member: Member) -> Path:
        """Copy an inner archive to a file, unless an earlier scan has done so, and return the path."""
        folder = self._work()
        path = folder / hashlib.sha256(member.path.encode()).hexdigest()[:32]
        if not (path.exists() and path.stat().st_size == member.bytes):
            require_space(folder, member.bytes, self._name_of(member))
            self._write(path, self.outer.read(member))
        return path

    def _write(self, path: Path, chunks: Iterator[bytes]) -> None:
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
        part.rename(path)

    def _work(self) -> Path:
        if self.options.work is not None:
            self.options.work.mkdir(parents=True, exist_ok=True)
            return self.options.work
        if self._temporary is None:
            import tempfile  # imported here because few sources need it

            self._temporary = tempfile.TemporaryDirectory(prefix="larder-")
        return Path(self._temporary.name)

    def _move_into_folder(self, inner: Archive, path: str, meter: ReadMeter) -> Iterator[Member]:
        """Yield the files of the inner archive at `path`, moved into its folder. Don't repeat a folder of that name."""
        self.inner_count += 1
        folder = _folder_of(path)
        own = folder.rpartition("/")[2] + "/"
        for member in inner.scan(meter):
            try:
                moved = safe_path(f"{folder}/{member.path.removeprefix(own)}")
            except UnsafeNameError as fault:
                raise unsafe_source_error(f"{self.name}: {quote_name(path)}", member.path, fault, _LEAVE_THEM) from None
            if is_litter(moved):  # because of the archive's name
                meter.count_skipped()
                continue
            link = None if member.link is None else f"{folder}/{member.link.removeprefix(own)}"
            yield Member(moved, member.bytes, InnerLocation(inner, member), link)

    def _name_of(self, member: Member) -> str:
        return f"{self.name}: {quote_name(member.path)}"


def _chunks(head: bytes, stream: Any, meter: ReadMeter) -> Iterator[bytes]:
    chunk = head
    while chunk:
        meter.count_overhead(len(chunk))
        yield chunk
        chunk = stream.read(1 << 20)


def _tar_beside(copy: Path) -> Path:
    return copy.with_suffix(".tar")


def _folder_of(path: str) -> str:
    """Return the folder for an archive: its path without the ending. Return "" if the name isn't an archive's."""
    lowered = path.lower()
    if not lowered.endswith(_ENDINGS):
        return ""
    ending = next(ending for ending in _ENDINGS if lowered.endswith(ending))
    folder = path[: -len(ending)]
    return "" if folder in ("", ".", "..") or folder.endswith(("/", "/.", "/..")) else folder
