"""Nearly valid inputs: valid ones with a few bytes changed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

PIECES = (
    b"\0",
    b"\xff",
    b"-",
    b"1e400",
    b"NaN",
    b"[",
    b"{",
    b'"',
    b"/..",
    b"\\ud800",
    b"99999999999999999999",
    b"\n",
    b"5",
    b"S",
)


def corrupt(data: bytes, chance: random.Random) -> bytes:
    """Return the data with some bytes flipped, left out, repeated or inserted."""
    mutated = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at, end = sorted(chance.choices(range(len(mutated) + 1), k=2))
        match chance.randrange(4):
            case 0 if at < len(mutated):
                mutated[at] ^= 1 << chance.randrange(8)
            case 1:
                del mutated[at : min(end, at + 64)]
            case 2:
                mutated[at:at] = mutated[at : min(end, at + 1024)]
            case _:
                mutated[at:at] = chance.choice(PIECES)
    return bytes(mutated)


def mutated(seeds: Sequence[bytes], parse: Callable[[bytes, Path], None]) -> Callable[[random.Random, Path], None]:
    """Return the target that passes a damaged seed to `parse`."""
    return lambda chance, folder: parse(corrupt(chance.choice(seeds), chance), folder)
