"""What larder has created on this machine, for `uninstall`: in the engine, and as files.

Only what carries the checkout's compose project, or lies where larder puts it, is larder's. Symlinks are neither
followed nor removed.
"""

from __future__ import annotations

from typing import NamedTuple

from larder.cli.inventory import Holding

DATA = ("data", "shards", "chunks")
UNVERIFIED = "NOT VERIFIED IN A STORE"


class Thing(NamedTuple):
    """Something that larder has created.

    Attributes:
        kind: container, network, volume, image, or files.
        name: Its name, or its path.
        size: As people read it; empty where nothing tells.
        note: What is in it.
    """

    kind: str
    name: str
    size: str = ""
    note: str = ""


def note_of(what: str, holding: Holding | None) -> str:
    """Return what a volume holds. Data that can't be looked at may be the only copy, too."""
    if what not in DATA:
        return what
    if holding is not None and not holding.fault and not holding.artifacts and not holding.unfinished:
        return f"{what}; empty"
    return f"{what}; {UNVERIFIED}"
