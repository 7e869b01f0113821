"""MATLAB's files, in both byte orders, and with a compressed variable."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

from larder.tree.matlab import read_structs
from tests.fuzz.mutations import corrupt
from tests.matlab import META, unpacked

SEEDS = (META, unpacked(), unpacked(">"))


def fuzz(chance: random.Random, folder: Path) -> None:
    """Damage a file before or after a variable is compressed, and read it."""
    data = corrupt(chance.choice(SEEDS), chance)
    if chance.random() < 0.3:
        packed = zlib.compress(data[128:])
        data = data[:128] + struct.pack("<II", 15, len(packed)) + packed
    try:
        structs = read_structs(data)
    except ValueError as fault:
        assert len(str(fault)) < 300
    else:
        assert all(value is None or isinstance(value, str | float | int) for one in structs for value in one.values())
