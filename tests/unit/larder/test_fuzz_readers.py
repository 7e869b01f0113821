"""A short run of the fuzz targets of what readers parse, the same each time."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

ROUNDS = 400
PIECES = (
    b"\0", b"\xff", b"-", b"1e400", b"NaN", b"[", b"{", b'"', b"/..", b"\\ud800", b"99999999999999999999", b"\n",
    b"5", b"S",
)  # fmt: skip


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """The same with some bytes flipped, left out, repeated or put in."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, end = sorted(chance.choices(range(len(found) + 1), k=2))
        match chance.randrange(4):
            case 0 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                del found[at : min(end, at + 64)]
            case 2:
                found[at:at] = found[at : min(end, at + 1024)]
            case _:
                found[at:at] = chance.choice(PIECES)
    return bytes(found)


@pytest.mark.parametrize("name", ["chunks", "index", "manifest", "shards"])
def test_a_short_run(tmp_path: Path, name: str) -> None:
    module, chance = importlib.import_module(f"tests.fuzz.{name}"), random.Random(name)
    for seed in module.SEEDS:
        module.target(seed, tmp_path)
    for _ in range(ROUNDS):
        module.target(spoilt(chance.choice(module.SEEDS), chance), tmp_path)
