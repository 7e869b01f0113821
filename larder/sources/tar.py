"""An uncompressed tar archive as a source: headers are scanned, members are read in parallel."""

from __future__ import annotations

from collections.abc import Iterator

from larder.sources.limits import Meter
from larder.sources.members import Faults, Member, damaged, shown
from larder.sources.positioned import PositionedFile
from larder.sources.tar_headers import members_of


class TarSource(PositionedFile):
    """The files of a tar archive."""

    def scan(self, meter: Meter | None = None) -> Iterator[Member]:
        """See `Source.scan`."""
        length, faults = self.length(), Faults()
        for member in members_of(_Cursor(self), self.name, meter or Meter(self.name, self.limits), faults):
            if member.place + member.bytes > length:
                raise damaged(self.name, f"{shown(member.path)} lies beyond the file's end, so it was cut off")
            yield member
        faults.raise_if_any(self.name)

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        return self.chunks_at(member.place, member.place + member.bytes, member.path)

    def range_of(self, member: Member) -> tuple[int, int]:
        """See `PositionedFile.range_of`."""
        return self._start + member.place, member.bytes


class _Cursor:
    """See `tar_headers.Cursor`."""

    def __init__(self, file: PositionedFile) -> None:
        self._file, self._length, self.position = file, file.length(), 0

    def take(self, length: int) -> bytes:
        """See `tar_headers.Cursor`."""
        taken = self._file.bytes_at(self.position, length)
        self.position += len(taken)
        return taken

    def skip_to(self, position: int) -> None:
        """See `tar_headers.Cursor`."""
        self.position = min(position, self._length)
