"""Decompress byte ranges of larger objects, such as zip members and Parquet pages.

`deflate` is RFC 1951, as used by zip. `gzip` is RFC 1952, and `snappy` is Snappy's raw format, both as used by Parquet
(https://github.com/google/snappy/blob/main/format_description.txt). This module uses only the standard library, since
the packing stages install no decompression libraries.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Literal, get_args

Codec = Literal["deflate", "gzip", "snappy"]
CODECS: tuple[Codec, ...] = get_args(Codec)


def decompress(codec: Codec, packed: bytes, max_bytes: int) -> bytes:
    """Decompress bytes.

    Args:
        codec: Compression format.
        packed: Compressed bytes.
        max_bytes: Maximum number of bytes to return.

    Returns:
        The first `max_bytes` decompressed bytes, or fewer if there are fewer.

    Raises:
        ValueError: If the bytes are not in this format.
    """
    return _DECOMPRESS[codec](packed, max_bytes)


def _inflate(packed: bytes, max_bytes: int, wbits: int = -zlib.MAX_WBITS) -> bytes:
    try:
        return zlib.decompressobj(wbits).decompress(packed, max_bytes)
    except zlib.error as fault:
        raise ValueError(str(fault)) from None


def _gunzip(packed: bytes, max_bytes: int) -> bytes:
    return _inflate(packed, max_bytes, 16 + zlib.MAX_WBITS)


def _decompress_snappy(packed: bytes, max_bytes: int) -> bytes:
    """Decompress Snappy in Python. Images don't compress, so a page has few long literals, which Python copies fast."""
    length, at = _parse_varint(packed, 0)
    expected, out = min(length, max_bytes), bytearray()
    try:
        while len(out) < expected:
            tag = packed[at]
            at += 1
            kind, size = tag & 3, tag >> 2
            if kind == 0:
                if size >= 60:
                    extra = size - 59
                    size = int.from_bytes(packed[at : at + extra], "little")
                    at += extra
                piece = packed[at : at + size + 1]
                if len(piece) <= size:
                    raise ValueError("it breaks off")
                out += piece
                at += size + 1
                continue
            if kind == 1:
                offset, size = (tag >> 5) << 8 | packed[at], (size & 7) + 4
                at += 1
            else:
                wide = 2 if kind == 2 else 4
                offset, size = int.from_bytes(packed[at : at + wide], "little"), size + 1
                at += wide
            _copy_back(out, offset, size)
    except IndexError:
        raise ValueError("it breaks off") from None
    return bytes(out[:expected])


def _copy_back(out: bytearray, offset: int, size: int) -> None:
    if not 0 < offset <= len(out):
        raise ValueError("invalid back-reference")
    piece = out[-offset:] if offset < size else out[-offset : len(out) - offset + size]
    out += (piece * (size // len(piece) + 1))[:size]


def _parse_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 35:
        if at >= len(data):
            raise ValueError("it breaks off")
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("invalid length")


_DECOMPRESS: dict[Codec, Callable[[bytes, int], bytes]] = {
    "deflate": _inflate,
    "gzip": _gunzip,
    "snappy": _decompress_snappy,
}
