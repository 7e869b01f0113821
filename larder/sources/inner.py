"""Archives in an archive, one level deep: each becomes a folder of its name.

So are many data sets handed out: train.zip and test.zip in one zip, or a tar per class in one tar. An inner archive is
read in place where its bytes lie in the outer one as they are; else it is first copied out of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from larder.sources.archive import Options, open_archive
from larder.sources.limits import Meter
from larder.sources.members import Archive, Member, UnsafeNameError, is_litter, refuse, safe_path, shown
from larder.sources.positioned import PositionedFile
from larder.sources.tar import TarSource
from larder.volume import require_space

if TYPE_CHECKING:
    import tempfile

_ENDINGS = (
    ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar", ".tgz", ".tbz2", ".tbz", ".txz", ".tzst", ".zip",
)  # fmt: skip
_LAST_CHARACTERS = {ending[-1] for ending in _ENDINGS} | {ending[-1].upper() for ending in _ENDINGS}
"""Looked at first: there may be millions of files."""
_LEAVE_THEM = "fix it in the source, or set LARDER_INNER_ARCHIVES=false to leave archives in the archive as they are"


class InnerPlace(NamedTuple):
    """Where a file's bytes are: in `source`, as its `member`."""

    source: Archive
    member: Member


class WithInner:
    """An archive, with the files of the archives in it in their place."""

    def __init__(self, outer: Archive, options: Options) -> None:
        self.outer, self.options = outer, options
        self.name, self.parallel, self.counted = outer.name, outer.parallel, outer.counted
        self.verb, self.total = outer.verb, outer.total
        self.found = 0
        """The number of inner archives, after a scan."""
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_temporary": None}

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        meter = Meter(self.name, self.options.limits)
        self.found = 0
        for member in self.outer.scan(meter):
            if member.path[-1] in _LAST_CHARACTERS and member.link is None and _folder_of(member.path):
                yield from self._files_of(member, meter)
            else:
                yield member

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        if isinstance(member.place, InnerPlace):
            return member.place.source.read(member.place.member)
        return self.outer.read(member)

    def _files_of(self, member: Member, meter: Meter) -> Iterator[Member]:
        """The files of an inner archive, or the member itself when it is only called like one."""
        if (inner := self._in_place(member)) is not None:
            meter.uncount(member.bytes)
            yield from self._moved(inner, member.path, meter)
            return
        copy = self._copied(member)
        inner = self._opened(copy, member, meter)
        if inner is not None:
            yield from self._moved(inner, member.path, meter)
        else:
            whole = TarSource(copy, self.name, self.options.limits)  # reads any range of a file
            yield member._replace(place=InnerPlace(whole, member._replace(place=0)))
        if not self.parallel:  # then the files have been read by now
            copy.unlink(missing_ok=True)
            _tar_beside(copy).unlink(missing_ok=True)

    def _in_place(self, member: Member) -> Archive | None:
        """An inner archive that can be read where it is. A tar in a zip can't: only the zip has a checksum of it."""
        if not isinstance(self.outer, PositionedFile) or (place := self.outer.range_of(member)) is None:
            return None
        inner = open_archive(self.outer.path, self._name_of(member), self.options, *place)
        unchecked = isinstance(inner, TarSource) and not isinstance(self.outer, TarSource)
        return None if unchecked else inner

    def _opened(self, copy: Path, member: Member, meter: Meter) -> Archive | None:
        """The archive that was copied. A compressed tar is decompressed, so that its files can be read in any order."""
        name = self._name_of(member)
        inner = open_archive(copy, name, self.options)
        if inner is None or isinstance(inner, PositionedFile):
            return inner
        from larder.sources.decoders import open_stream
        from larder.sources.tar_headers import BLOCK_BYTES, is_header
        from larder.sources.tar_stream import TarStreamSource, explained

        assert isinstance(inner, TarStreamSource)
        tar = _tar_beside(copy)
        if not tar.exists():
            with explained(name), open_stream(copy, inner.codec) as stream:
                head = stream.read(BLOCK_BYTES)
                if not is_header(head):
                    return None
                self._write(tar, _chunks(head, stream, meter))
        return TarSource(tar, name, self.options.limits)

    def _copied(self, member: Member) -> Path:
        """A file with an inner archive's bytes; an earlier scan may have made it."""
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
            import tempfile  # here, since few sources need it

            self._temporary = tempfile.TemporaryDirectory(prefix="larder-")
        return Path(self._temporary.name)

    def _moved(self, inner: Archive, path: str, meter: Meter) -> Iterator[Member]:
        """The files of the archive at `path` in its folder. One of the same name in it isn't repeated."""
        self.found += 1
        folder = _folder_of(path)
        own = folder.rpartition("/")[2] + "/"
        for member in inner.scan(meter):
            try:
                moved = safe_path(f"{folder}/{member.path.removeprefix(own)}")
            except UnsafeNameError as fault:
                raise refuse(f"{self.name}: {shown(path)}", member.path, fault, _LEAVE_THEM) from None
            if is_litter(moved):  # by the archive's own name
                meter.skip()
                continue
            link = None if member.link is None else f"{folder}/{member.link.removeprefix(own)}"
            yield Member(moved, member.bytes, InnerPlace(inner, member), link)

    def _name_of(self, member: Member) -> str:
        return f"{self.name}: {shown(member.path)}"


def _chunks(head: bytes, stream: Any, meter: Meter) -> Iterator[bytes]:
    chunk = head
    while chunk:
        meter.other(len(chunk))
        yield chunk
        chunk = stream.read(1 << 20)


def _tar_beside(copy: Path) -> Path:
    return copy.with_suffix(".tar")


def _folder_of(path: str) -> str:
    """The folder that an archive becomes: its path without the ending. "" for what isn't called an archive."""
    lowered = path.lower()
    if not lowered.endswith(_ENDINGS):
        return ""
    ending = next(ending for ending in _ENDINGS if lowered.endswith(ending))
    folder = path[: -len(ending)]
    return "" if folder in ("", ".", "..") or folder.endswith(("/", "/.", "/..")) else folder
