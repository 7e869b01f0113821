"""Bytes that lie packed in a larger object: how they are unpacked by themselves.

`deflate` is RFC 1951, as zip has it; `gzip` is RFC 1952, and `snappy` Snappy's raw format, as Parquet has them
(https://github.com/google/snappy/blob/main/format_description.txt). It takes the standard library alone: packing stages
have no other.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Literal, get_args

Codec = Literal["deflate", "gzip", "snappy"]
CODECS: tuple[Codec, ...] = get_args(Codec)


def unpack(codec: Codec, packed: bytes, most: int) -> bytes:
    """What packed bytes hold, at most so many of it. Raises ValueError for what isn't packed like this."""
    return _UNPACK[codec](packed, most)


def _inflate(packed: bytes, most: int, wbits: int = -zlib.MAX_WBITS) -> bytes:
    try:
        return zlib.decompressobj(wbits).decompress(packed, most)
    except zlib.error as fault:
        raise ValueError(str(fault)) from None


def _gunzip(packed: bytes, most: int) -> bytes:
    return _inflate(packed, most, 16 + zlib.MAX_WBITS)


def _unsnap(packed: bytes, most: int) -> bytes:
    """Images don't shrink, so most of a page is few long literals, which Python copies as fast as any."""
    length, at = _varint(packed, 0)
    wanted, out = min(length, most), bytearray()
    try:
        while len(out) < wanted:
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
            _repeat(out, offset, size)
    except IndexError:
        raise ValueError("it breaks off") from None
    return bytes(out[:wanted])


def _repeat(out: bytearray, offset: int, size: int) -> None:
    if not 0 < offset <= len(out):
        raise ValueError("it refers to what is not there")
    piece = out[-offset:] if offset < size else out[-offset : len(out) - offset + size]
    out += (piece * (size // len(piece) + 1))[:size]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 35:
        if at >= len(data):
            raise ValueError("it breaks off")
        byte = data[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("its length is none")


_UNPACK: dict[Codec, Callable[[bytes, int], bytes]] = {"deflate": _inflate, "gzip": _gunzip, "snappy": _unsnap}
