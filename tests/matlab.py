"""MATLAB files like those with ImageNet's lists."""

from __future__ import annotations

import base64
import struct
import zlib

HEADER = b"MATLAB 5.0 MAT-file".ljust(124)
META = HEADER + base64.b64decode(
    "AAFJTQ8AAADJAAAAeJzjY2BguMHMwMAGpDmAmIkBAlihfKAUAyMUswNxcWVecWpJMVCehYEPKm4BxJ4+wWFBzkYGhkbxni4M4X5AAg7K84tSiu"
    "G85IzMnJSi1DwIjw+qH2Y/G5r9jEgYBDih4hDwwR6k3wFJPwsW/ZxI+gWg/DwDI0NDS3MLSwaEOwiZw4VmDjcQZ2eWKKTlV+goHF4JN8eDgH+Y"
    "GVD9I4HkHyjDAUJxOFAWPgwO5IePoYmJsamx+XAOH4EaysLHwNzMZJCHDwCb+jAs"
)
"""What SciPy 1.17 writes of a struct array as in ILSVRC's meta.mat, compressed."""


def unpacked(order: str = "<") -> bytes:
    """The same without compression, and a file with one number in the other byte order."""
    if order == "<":
        return META[:128] + zlib.decompress(META[136:])
    array = _element(6, struct.pack(">II", 2, 0)) + _element(5, struct.pack(">ii", 1, 1)) + _element(1, b"x")
    array += _element(5, struct.pack(">i", 8)) + _element(1, b"number\0\0")
    number = _element(6, struct.pack(">II", 6, 0)) + _element(5, struct.pack(">ii", 1, 1)) + _element(1, b"")
    array += _element(14, number + _element(9, struct.pack(">d", 7.0)))
    return HEADER + b"\1\0MI" + _element(14, array)


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)
