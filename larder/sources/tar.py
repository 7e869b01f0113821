"""Read an uncompressed tar archive as a source: scan the headers, and read members in parallel."""

from __future__ import annotations

from collections.abc import Iterator

from larder.sources.limits import ReadMeter
from larder.sources.members import EntryFaults, Member, damaged_source_error, quote_name
from larder.sources.random_access import RandomAccessArchive, ScanPlace
from larder.sources.tar_headers import BLOCK_BYTES, read_members


class TarSource(RandomAccessArchive):
    """The files of a tar archive."""

    def scan(self, meter: ReadMeter | None = None) -> Iterator[Member]:
        """See `Source.scan`."""
        length, self.faults, cursor = self.length(), EntryFaults(), _Cursor(self)
        meter = meter or ReadMeter(self.name, self.limits)
        cursor.position, meter.files = self.begin.position, meter.files + self.begin.files
        for member in read_members(cursor, self.name, meter, self.faults):
            if member.location + member.bytes > length:
                raise damaged_source_error(
                    self.name, f"{quote_name(member.path)} lies beyond the file's end, so it was cut off"
                )
            end = member.location + member.bytes
            self.place = ScanPlace(end + -end % BLOCK_BYTES, 0, meter.files)
            yield member
        self.faults.raise_if_any(self.name)

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        return self.iter_range(member.location, member.location + member.bytes, member.path)

    def range_of(self, member: Member) -> tuple[int, int]:
        """See `RandomAccessArchive.range_of`."""
        return self._start + member.location, member.bytes


class _Cursor:
    """See `tar_headers.TarCursor`."""

    def __init__(self, file: RandomAccessArchive) -> None:
        self._file, self._length, self.position = file, file.length(), 0

    def take(self, length: int) -> bytes:
        """See `tar_headers.TarCursor`."""
        taken = self._file.bytes_at(self.position, length)
        self.position += len(taken)
        return taken

    def skip_to(self, position: int) -> None:
        """See `tar_headers.TarCursor`."""
        self.position = min(position, self._length)
