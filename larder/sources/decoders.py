"""What compressed bytes unpack to, in bounded pieces: the rarer methods of zip, and the streams around tar.

Each decoder takes an iterator of packed bytes and gives pieces of a few MB at most, however much a byte unpacks to. A
dictionary larger than any packer makes by default is refused before memory is taken for it.
"""

from __future__ import annotations

import bz2
import io
import lzma
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Literal, Protocol, cast

import zstandard
from isal import igzip_threaded, isal_zlib

from larder.errors import InputError

Codec = Literal["gzip", "zstd", "bzip2", "xz"]
Decoder = Callable[[Iterator[bytes], int], Iterator[bytes]]
"""From packed pieces and the unpacked size that the archive states to unpacked pieces."""

InflateError = cast(type[Exception], isal_zlib.error)  # isal's type stub calls it an instance
FAULTS: tuple[type[Exception], ...] = (InflateError, zstandard.ZstdError, lzma.LZMAError, OSError, EOFError, ValueError)
"""What decoders raise for damaged bytes. An OSError with an errno is none of these: it is the disk's."""

_PIECE_BYTES = 1 << 20
_PACKED_BYTES = 64 << 10  # what a bzip2 or xz decoder is given at once: it copies what follows the end of a stream
_MOST_XZ_BYTES = 80 << 20  # xz -9 takes 65 MiB
_MOST_DICTIONARY_BYTES = 64 << 20
_MOST_WINDOW_BYTES = 128 << 20  # zstd --ultra -22, and --long
_DEFLATE64_BYTES = 512  # a byte unpacks to up to 29 KB, and the decoder gives all at once

_LZMA_HEADER = struct.Struct("<HHBI")  # version, length of what follows: lc/lp/pb in one byte, dictionary (5.8.8)


class _Decompressor(Protocol):
    """What bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def of_zip(method: int) -> Decoder | None:
    """The decoder for a compression method of zip (APPNOTE 4.4.5) but deflate, or None when there is none."""
    return _OF_ZIP.get(method)


def _inflate64(packed: Iterator[bytes], _size: int) -> Iterator[bytes]:
    """Deflate64, as Windows Explorer writes it for files of 2 GB and more."""
    try:
        from inflate64 import Inflater
    except ImportError:
        raise InputError(
            "the archive is compressed with Deflate64, and the library that reads it is not installed",
            next_step="install it with `pip install larder-data[archives]`, or unpack the archive with 7-Zip and give "
            "the folder as the source",
        ) from None
    inflater = Inflater()
    for piece in packed:
        for at in range(0, len(piece), _DEFLATE64_BYTES):
            if inflater.eof:
                return
            yield inflater.inflate(piece[at : at + _DEFLATE64_BYTES])


def _bunzip2(packed: Iterator[bytes], _size: int) -> Iterator[bytes]:
    return _drained(bz2.BZ2Decompressor(), packed)


def _unxz(packed: Iterator[bytes], _size: int) -> Iterator[bytes]:
    return _drained(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_XZ_BYTES), packed)


def _unlzma(packed: Iterator[bytes], size: int) -> Iterator[bytes]:
    """LZMA: a header that says how it was packed, then the bytes, with or without an end mark."""
    head = b""
    for piece in packed:
        head += piece
        if len(head) >= _LZMA_HEADER.size:
            break
    if len(head) < _LZMA_HEADER.size:
        raise lzma.LZMAError("its LZMA header breaks off")
    _, length, properties, dictionary = _LZMA_HEADER.unpack_from(head)
    if length != 5 or properties >= 9 * 5 * 5:
        raise lzma.LZMAError("its LZMA header is none")
    dictionary = max(4096, min(dictionary, size))  # no match lies further back than the file is long
    if dictionary > _MOST_DICTIONARY_BYTES:
        raise lzma.LZMAError(
            f"it needs a dictionary of {dictionary:,} bytes; up to {_MOST_DICTIONARY_BYTES:,} are read"
        )
    options = {
        "id": lzma.FILTER_LZMA1, "dict_size": dictionary,
        "lc": properties % 9, "lp": properties // 9 % 5, "pb": properties // 45,
    }  # fmt: skip
    rest = _chained(head[_LZMA_HEADER.size :], packed)
    return _drained(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options]), rest)


def _unzstd(packed: Iterator[bytes], _size: int) -> Iterator[bytes]:
    with _zstd_reader(io.BufferedReader(_Pieces(packed), _PACKED_BYTES)) as reader:
        while piece := reader.read(_PIECE_BYTES):
            yield piece


_OF_ZIP: dict[int, Decoder] = {
    9: _inflate64, 12: _bunzip2, 14: _unlzma, 20: _unzstd, 93: _unzstd, 95: _unxz,
}  # fmt: skip


def _drained(decompressor: _Decompressor, packed: Iterator[bytes]) -> Iterator[bytes]:
    """What one stream unpacks to. Pieces behind its end are not taken."""
    for piece in packed:
        yield decompressor.decompress(piece, _PIECE_BYTES)
        while not (decompressor.eof or decompressor.needs_input):
            yield decompressor.decompress(b"", _PIECE_BYTES)
        if decompressor.eof:
            return


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def open_stream(path: Path, codec: Codec) -> IO[bytes]:
    """What a compressed file unpacks to, as a file that is read once from front to back."""
    if codec == "gzip":  # inflated in a thread of its own
        return cast(IO[bytes], igzip_threaded.open(path, "rb", threads=1))  # type: ignore[no-untyped-call]
    file = path.open("rb", buffering=0)
    if codec == "zstd":
        return _zstd_reader(file)
    return io.BufferedReader(_Pieces(_streams(file, codec), closing=file), _PIECE_BYTES)


def _zstd_reader(file: IO[bytes] | io.BufferedReader) -> IO[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MOST_WINDOW_BYTES)
    reader = decompressor.stream_reader(file, read_size=_PACKED_BYTES, read_across_frames=True, closefd=True)
    return cast(IO[bytes], reader)


def _streams(file: IO[bytes], codec: Codec) -> Iterator[bytes]:
    """Every stream of a bzip2, xz or lzma file: parallel packers write several in a row, with zeros between them."""
    packed = b""
    while packed := packed.lstrip(b"\0") or file.read(_PACKED_BYTES):
        if not packed.strip(b"\0"):
            packed = b""
            continue
        decompressor: _Decompressor = (
            bz2.BZ2Decompressor() if codec == "bzip2" else lzma.LZMADecompressor(memlimit=_MOST_XZ_BYTES)
        )
        yield from _drained(decompressor, _chained(packed, iter(lambda: file.read(_PACKED_BYTES), b"")))
        if not decompressor.eof:
            raise EOFError("it breaks off")
        packed = decompressor.unused_data


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterable[bytes], closing: IO[bytes] | None = None) -> None:
        self._pieces, self._rest, self._closing = iter(pieces), memoryview(b""), closing

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """See `io.RawIOBase`."""
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """See `io.RawIOBase`."""
        if self._closing is not None:
            self._closing.close()
        super().close()
