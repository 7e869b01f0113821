"""Read a compressed tar archive as a source, in one pass from front to back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from larder.sources.decoders import DECODE_ERRORS, Codec, open_stream
from larder.sources.formats import missing_tar_error
from larder.sources.limits import ReadMeter, SourceLimits
from larder.sources.members import BUFFER_BYTES, Member, damaged_source_error, quote_name
from larder.sources.tar_headers import BLOCK_BYTES, is_header, read_members


class TarStreamSource:
    """The files of a tar archive that is compressed as a whole."""

    parallel = False
    sizes_known = False
    action = "unpack"
    total: int | None = None

    def __init__(self, path: Path, name: str, limits: SourceLimits, codec: Codec) -> None:
        self.path, self.name, self.limits, self.codec = path, name, limits, codec
        self._cursor: _Cursor | None = None

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cursor": None}

    def scan(self, meter: ReadMeter | None = None) -> Iterator[Member]:
        """See `Source.scan`. Only the member yielded last can be read."""
        with map_decode_errors(self.name), open_stream(self.path, self.codec) as stream:
            self._cursor = cursor = _Cursor(stream)
            head = cursor.peek()
            if head.strip(b"\0") and not is_header(head) and head[257:262] != b"ustar":
                raise missing_tar_error(self.name, self.codec, head)
            yield from read_members(cursor, self.name, meter or ReadMeter(self.name, self.limits))

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        cursor, end = self._cursor, member.location + member.bytes
        if cursor is None or cursor.position != member.location:
            raise RuntimeError("a stream's members are read in their order, once")
        with map_decode_errors(self.name):
            while cursor.position < end:
                data = cursor.take(min(BUFFER_BYTES, end - cursor.position))
                if not data:
                    raise damaged_source_error(self.name, f"{quote_name(member.path)} breaks off")
                yield data


@contextmanager
def map_decode_errors(name: str) -> Iterator[None]:
    """Convert a decoder's error in the block into the error for a damaged archive. Keep disk errors as they are."""
    try:
        yield
    except DECODE_ERRORS as fault:
        if isinstance(fault, OSError) and fault.errno is not None:
            raise
        raise damaged_source_error(name, str(fault) or "it breaks off") from None


class _Cursor:
    """A position in a stream that moves only forwards; see `tar_headers.TarCursor`."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self._ahead, self.position = stream, b"", 0

    def peek(self) -> bytes:
        """Return the first block without moving the cursor."""
        self._ahead = self.take(BLOCK_BYTES)
        self.position = 0
        return self._ahead

    def take(self, length: int) -> bytes:
        """See `tar_headers.TarCursor`."""
        taken, self._ahead = self._ahead[:length], self._ahead[length:]
        while len(taken) < length and (more := self._stream.read(length - len(taken))):
            taken = taken + more if taken else more
        self.position += len(taken)
        return taken

    def skip_to(self, position: int) -> None:
        """See `tar_headers.TarCursor`."""
        while self.position < position and self.take(min(BUFFER_BYTES, position - self.position)):
            pass
