"""Struct arrays in MATLAB's files."""

from __future__ import annotations

import base64
import random
import struct
import zlib

import pytest

from larder.tree.matlab import read_structs

HEADER = b"MATLAB 5.0 MAT-file".ljust(124)
META = HEADER + base64.b64decode(
    "AAFJTQ8AAADJAAAAeJzjY2BguMHMwMAGpDmAmIkBAlihfKAUAyMUswNxcWVecWpJMVCehYEPKm4BxJ4+wWFBzkYGhkbxni4M4X5AAg7K84tSiu"
    "G85IzMnJSi1DwIjw+qH2Y/G5r9jEgYBDih4hDwwR6k3wFJPwsW/ZxI+gWg/DwDI0NDS3MLSwaEOwiZw4VmDjcQZ2eWKKTlV+goHF4JN8eDgH+Y"
    "GVD9I4HkHyjDAUJxOFAWPgwO5IePoYmJsamx+XAOH4EaysLHwNzMZJCHDwCb+jAs"
)
"""What SciPy 1.17 writes of a struct array as in ILSVRC's meta.mat, compressed."""


def unpacked(order: str = "<") -> bytes:
    """The same without compression; in the other byte order, a file with one number."""
    if order == "<":
        return META[:128] + zlib.decompress(META[136:])
    array = element(6, struct.pack(">II", 2, 0)) + element(5, struct.pack(">ii", 1, 1)) + element(1, b"x")
    array += element(5, struct.pack(">i", 8)) + element(1, b"number\0\0")
    number = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", 1, 1)) + element(1, b"")
    array += element(14, number + element(9, struct.pack(">d", 7.0)))
    return HEADER + b"\1\0MI" + element(14, array)


def element(kind: int, data: bytes) -> bytes:
    return struct.pack(">II", kind, len(data)) + data + bytes(-len(data) % 8)


@pytest.mark.parametrize("data", [META, unpacked()], ids=["compressed", "plain"])
def test_numbers_and_texts(data: bytes) -> None:
    assert read_structs(data) == [
        {"ILSVRC2012_ID": number, "WNID": synset, "words": "kit fox, é", "children": None}
        for number, synset in ((1, "n02119789"), (2, "n01443537"), (449, "n01440764"))
    ]


def test_the_other_byte_order() -> None:
    assert read_structs(unpacked(">")) == [{"number": 7.0}]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no MATLAB file"),
        (META[:124] + b"\0\2XX" + META[128:], "no MATLAB file"),
        (META[:128], "no struct array"),
        (META[:200], "beyond its end"),
        (META[:128] + struct.pack("<II", 15, 9) + b"123456789", "damaged"),
        (META[:128] + struct.pack("<II", 15, len(bomb := zlib.compress(bytes(17 << 20)))) + bomb, "has more than"),
        (META[:128] + bytes(8 * 300_000), "more than 200,000 elements"),
    ],
    ids=["empty", "order", "nothing", "cut", "no zlib", "bomb", "many"],
)
def test_what_is_none(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_structs(data)


def test_any_change_ends_in_values_or_an_error() -> None:
    data, chance = unpacked(), random.Random(1)
    for _ in range(2000):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(128, len(data))] = chance.choice([0, 1, 255, chance.randrange(256)])
        try:
            read_structs(bytes(changed[: chance.choice([len(data), len(data), chance.randrange(len(data))])]))
        except ValueError as fault:
            assert len(str(fault)) < 300
