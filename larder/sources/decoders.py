"""Decompress the rarer methods of zip, and compressed tar archives, with bounded memory.

Each decoder takes an iterator of compressed bytes and yields pieces of a few MB at most, even at extreme compression
ratios. Dictionaries larger than compressors use by default are refused before memory is allocated.
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
"""Function from compressed pieces, and the decompressed size that the archive states, to decompressed pieces."""

InflateError = cast(type[Exception], isal_zlib.error)  # isal's type stub calls it an instance
DECODE_ERRORS: tuple[type[Exception], ...] = (
    InflateError,
    zstandard.ZstdError,
    lzma.LZMAError,
    OSError,
    EOFError,
    ValueError,
)
"""Errors that decoders raise for damaged data. An OSError with an errno comes from the disk instead."""

_PIECE_BYTES = 1 << 20
_INPUT_BYTES = 64 << 10  # input per call of a bzip2 or xz decoder, which copies the bytes after a stream's end
_MAX_XZ_BYTES = 80 << 20  # xz -9 takes 65 MiB
_MAX_DICTIONARY_BYTES = 64 << 20
_MAX_WINDOW_BYTES = 128 << 20  # zstd --ultra -22, and --long
_DEFLATE64_BYTES = 512  # a byte expands to up to 29 KB, and the decoder returns all at once

_LZMA_HEADER = struct.Struct("<HHBI")  # version, length of properties: lc/lp/pb in one byte, dictionary size (5.8.8)


class _Decompressor(Protocol):
    """The interface that bz2's and lzma's decompressors share."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def find_zip_decoder(method: int) -> Decoder | None:
    """Return the decoder for one of zip's compression methods (APPNOTE 4.4.5) except deflate, or None."""
    return _ZIP_DECODERS.get(method)


def _inflate64(packed: Iterator[bytes], _size: int) -> Iterator[bytes]:
    """Decompress Deflate64, which Windows Explorer writes for files of 2 GB and more."""
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
    return _decompress_stream(bz2.BZ2Decompressor(), packed)


def _unxz(packed: Iterator[bytes], _size: int) -> Iterator[bytes]:
    return _decompress_stream(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_BYTES), packed)


def _unlzma(packed: Iterator[bytes], size: int) -> Iterator[bytes]:
    """Decompress LZMA in a zip: a header with the properties, then the data, with or without an end marker."""
    head = b""
    for piece in packed:
        head += piece
        if len(head) >= _LZMA_HEADER.size:
            break
    if len(head) < _LZMA_HEADER.size:
        raise lzma.LZMAError("its LZMA header breaks off")
    _, length, properties, dictionary = _LZMA_HEADER.unpack_from(head)
    if length != 5 or properties >= 9 * 5 * 5:
        raise lzma.LZMAError("invalid LZMA header")
    dictionary = max(4096, min(dictionary, size))  # no match is further back than the file is long
    if dictionary > _MAX_DICTIONARY_BYTES:
        raise lzma.LZMAError(f"it needs a dictionary of {dictionary:,} bytes; up to {_MAX_DICTIONARY_BYTES:,} are read")
    options = {
        "id": lzma.FILTER_LZMA1,
        "dict_size": dictionary,
        "lc": properties % 9,
        "lp": properties // 9 % 5,
        "pb": properties // 45,
    }
    rest = _prepend(head[_LZMA_HEADER.size :], packed)
    return _decompress_stream(lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[options]), rest)


def _unzstd(packed: Iterator[bytes], _size: int) -> Iterator[bytes]:
    with _zstd_reader(io.BufferedReader(_Pieces(packed), _INPUT_BYTES)) as reader:
        while piece := reader.read(_PIECE_BYTES):
            yield piece


_ZIP_DECODERS: dict[int, Decoder] = {
    9: _inflate64,
    12: _bunzip2,
    14: _unlzma,
    20: _unzstd,
    93: _unzstd,
    95: _unxz,
}


def _decompress_stream(decompressor: _Decompressor, packed: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress one stream, and take no pieces after its end."""
    for piece in packed:
        yield decompressor.decompress(piece, _PIECE_BYTES)
        while not (decompressor.eof or decompressor.needs_input):
            yield decompressor.decompress(b"", _PIECE_BYTES)
        if decompressor.eof:
            return


def _prepend(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def open_stream(path: Path, codec: Codec) -> IO[bytes]:
    """Open a compressed file for one sequential read of its decompressed content."""
    if codec == "gzip":  # decompressed in a separate thread
        return cast(IO[bytes], igzip_threaded.open(path, "rb", threads=1))  # type: ignore[no-untyped-call]
    file = path.open("rb", buffering=0)
    if codec == "zstd":
        return _zstd_reader(file)
    return io.BufferedReader(_Pieces(_decompress_all_streams(file, codec), closing=file), _PIECE_BYTES)


def _zstd_reader(file: IO[bytes] | io.BufferedReader) -> IO[bytes]:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    reader = decompressor.stream_reader(file, read_size=_INPUT_BYTES, read_across_frames=True, closefd=True)
    return cast(IO[bytes], reader)


def _decompress_all_streams(file: IO[bytes], codec: Codec) -> Iterator[bytes]:
    """Decompress all streams of a bzip2, xz or lzma file. Parallel compressors write several, padded with zeros."""
    packed = b""
    while packed := packed.lstrip(b"\0") or file.read(_INPUT_BYTES):
        if not packed.strip(b"\0"):
            packed = b""
            continue
        decompressor: _Decompressor = (
            bz2.BZ2Decompressor() if codec == "bzip2" else lzma.LZMADecompressor(memlimit=_MAX_XZ_BYTES)
        )
        yield from _decompress_stream(decompressor, _prepend(packed, iter(lambda: file.read(_INPUT_BYTES), b"")))
        if not decompressor.eof:
            raise EOFError("it breaks off")
        packed = decompressor.unused_data


class _Pieces(io.RawIOBase):
    """A file object that reads from an iterable of bytes."""

    def __init__(self, pieces: Iterable[bytes], closing: IO[bytes] | None = None) -> None:
        self._pieces, self._rest, self._closing = iter(pieces), memoryview(b""), closing

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
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
        if self._closing is not None:
            self._closing.close()
        super().close()
