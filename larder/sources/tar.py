"""An uncompressed tar archive as a source: headers are scanned, members are read in parallel."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from larder.sources.members import (
    CHUNK_BYTES,
    Member,
    UnsafeNameError,
    damaged,
    is_litter,
    link_target,
    refuse,
    safe_path,
)
from larder.sources.positioned import PositionedFile


class TarSource(PositionedFile):
    """The files of a tar archive."""

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`."""
        length = self.path.stat().st_size
        with explained(self.name), tarfile.open(self.path, "r:", tarinfo=EndMarking) as archive:
            for info, member in members_of(archive, self.name):
                if info.offset_data + member.bytes > length:
                    raise damaged(self.name, f"{member.path!r} lies beyond the file's end, so it was cut off")
                yield member

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        return self.chunks_at(member.place, member.place + member.bytes, member.path)


@contextmanager
def explained(name: str, *faults: type[Exception]) -> Iterator[None]:
    """Turn what tarfile raises, and `faults`, into the error for a damaged archive; a disk's own error stays one."""
    known: tuple[type[Exception], ...] = (tarfile.TarError, EOFError, *faults)
    try:
        yield
    except known as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        raise damaged(name, str(fault) or "it breaks off") from None


class EndMarking(tarfile.TarInfo):
    """Tells whether the archive ended with its end-of-archive block: one cut off between members has none."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> EndMarking:
        """Read the next header."""
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            archive.saw_end = True  # type: ignore[attr-defined]
            raise


def members_of(archive: tarfile.TarFile, name: str) -> Iterator[tuple[tarfile.TarInfo, Member]]:
    """Every file and link of an open archive, without litter; the archive's own list of them is kept empty.

    Raises InputError for what is unsafe or damaged.
    """
    while (info := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # tarfile remembers every member otherwise
        if info.isdir() or is_litter(info.name):
            continue
        try:
            yield info, _member(info)
        except UnsafeNameError as fault:
            raise refuse(name, [f"{info.name!r} {fault}"]) from None
    if not getattr(archive, "saw_end", False):
        raise damaged(name, "it has no end-of-archive block, so it was cut off")
    # To the end: a compressed file's checksum comes last, and another archive may have been appended.
    while chunk := archive.fileobj.read(CHUNK_BYTES):
        if chunk.strip(b"\0"):
            raise damaged(name, "it goes on after its end: are there several archives in one file?")


def _member(info: tarfile.TarInfo) -> Member:
    path = safe_path(info.name)
    if info.issym():
        return Member(path, 0, info.offset_data, link=link_target(path, info.linkname))
    if info.islnk():
        return Member(path, 0, info.offset_data, link=safe_path(info.linkname))
    if not info.isreg():
        raise UnsafeNameError("is a device or pipe")
    if info.issparse():
        raise UnsafeNameError("is a sparse file, which no image is")
    return Member(path, info.size, info.offset_data)
