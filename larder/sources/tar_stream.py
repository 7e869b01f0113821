"""A compressed tar archive as a source: one pass from front to back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from larder.sources.decoders import FAULTS, Codec, open_stream
from larder.sources.formats import no_tar_inside
from larder.sources.limits import Limits, Meter
from larder.sources.members import CHUNK_BYTES, Member, damaged, shown
from larder.sources.tar_headers import BLOCK_BYTES, is_header, members_of


class TarStreamSource:
    """The files of a tar archive that is compressed as a whole."""

    parallel = False
    counted = False
    verb = "unpack"
    total: int | None = None

    def __init__(self, path: Path, name: str, limits: Limits, codec: Codec) -> None:
        self.path, self.name, self.limits, self.codec = path, name, limits, codec
        self._cursor: _Cursor | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cursor": None}

    def scan(self, meter: Meter | None = None) -> Iterator[Member]:
        """See `Source.scan`. `read` gives the bytes of the member that was yielded last."""
        with explained(self.name), open_stream(self.path, self.codec) as stream:
            self._cursor = cursor = _Cursor(stream)
            head = cursor.peek()
            if head.strip(b"\0") and not is_header(head) and head[257:262] != b"ustar":
                raise no_tar_inside(self.name, self.codec, head)
            yield from members_of(cursor, self.name, meter or Meter(self.name, self.limits))

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        cursor, end = self._cursor, member.place + member.bytes
        if cursor is None or cursor.position != member.place:
            raise RuntimeError("a stream's members are read in their order, once")
        with explained(self.name):
            while cursor.position < end:
                chunk = cursor.take(min(CHUNK_BYTES, end - cursor.position))
                if not chunk:
                    raise damaged(self.name, f"{shown(member.path)} breaks off")
                yield chunk


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Turn what decoders raise into the error for a damaged archive; a disk's own error stays one."""
    try:
        yield
    except FAULTS as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        raise damaged(name, str(fault) or "it breaks off") from None


class _Cursor:
    """See `tar_headers.Cursor`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._ahead, self.position = stream, b"", 0

    def peek(self) -> bytes:
        """The first block."""
        self._ahead = self.take(BLOCK_BYTES)
        self.position = 0
        return self._ahead

    def take(self, length: int) -> bytes:
        """See `tar_headers.Cursor`."""
        taken, self._ahead = self._ahead[:length], self._ahead[length:]
        while len(taken) < length and (more := self._stream.read(length - len(taken))):
            taken = taken + more if taken else more
        self.position += len(taken)
        return taken

    def skip_to(self, position: int) -> None:
        """See `tar_headers.Cursor`."""
        while self.position < position and self.take(min(CHUNK_BYTES, position - self.position)):
            pass
