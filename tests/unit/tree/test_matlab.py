"""Struct arrays in MATLAB's files."""

from __future__ import annotations

import random
import struct
import zlib

import pytest

from larder.tree.matlab import read_structs
from tests.matlab import META, unpacked


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
        (b"", "not a MATLAB file"),
        (META[:124] + b"\0\2XX" + META[128:], "not a MATLAB file"),
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
