"""A compressed tar archive as a source: one pass from front to back."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, cast

import zstandard
from isal import igzip_threaded

from larder.sources.members import CHUNK_BYTES, Member, damaged
from larder.sources.tar import EndMarking, explained, members_of
from larder.sources.zip import InflateError

_FAULTS = (OSError, InflateError, zstandard.ZstdError)


class TarStreamSource:
    """The files of a tar.gz or tar.zst archive."""

    parallel = False
    counted = False
    verb = "unpack"
    total: int | None = None

    def __init__(self, path: Path, name: str, codec: Literal["gzip", "zstd"]) -> None:
        self.path, self.name, self.codec = path, name, codec
        self._archive: tarfile.TarFile | None = None
        self._info: tarfile.TarInfo | None = None

    def scan(self) -> Iterator[Member]:
        """See `Source.scan`. `read` gives the bytes of the member that was yielded last."""
        with (
            explained(self.name, *_FAULTS),
            self._decompress() as stream,
            tarfile.open(fileobj=stream, mode="r|", tarinfo=EndMarking) as archive,
        ):
            self._archive = archive
            for info, member in members_of(archive, self.name):
                self._info = info
                yield member

    def _decompress(self) -> IO[bytes]:
        if self.codec == "gzip":  # inflated in a thread of its own
            return cast(IO[bytes], igzip_threaded.open(self.path, "rb", threads=1))  # type: ignore[no-untyped-call]
        reader = zstandard.ZstdDecompressor().stream_reader(self.path.open("rb"), read_across_frames=True, closefd=True)
        return cast(IO[bytes], reader)

    def read(self, member: Member) -> Iterator[bytes]:
        """See `Source.read`."""
        file: Any = self._archive.extractfile(self._info) if self._archive and self._info else None
        length = 0
        with explained(self.name, *_FAULTS):
            while chunk := file.read(CHUNK_BYTES):
                length += len(chunk)
                yield chunk
        if length != member.bytes:
            raise damaged(self.name, f"{member.path!r} breaks off")
