"""Find what larder has created on this machine, for `uninstall`: in the engine, and as files.

Something is larder's only if it has the checkout's compose project, or lies where larder creates it. Symlinks are
neither followed nor removed.
"""

from __future__ import annotations

from typing import NamedTuple

from larder.cli.inventory import Contents

DATA_KINDS = ("data", "shards", "chunks")
UNVERIFIED = "NOT VERIFIED IN A STORE"


class InstalledItem(NamedTuple):
    """Something that larder has created.

    Attributes:
        kind: container, network, volume, image, or files.
        name: Name or path.
        size: Formatted size; empty if unknown.
        note: Description of the content.
    """

    kind: str
    name: str
    size: str = ""
    note: str = ""


def describe_volume(what: str, contents: Contents | None) -> str:
    """Describe a volume's content. Data that can't be inspected may also be the only copy."""
    if what not in DATA_KINDS:
        return what
    if contents is not None and not contents.fault and not contents.artifacts and not contents.unfinished:
        return f"{what}; empty"
    return f"{what}; {UNVERIFIED}"
