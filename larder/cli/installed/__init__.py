"""Find what larder has created on this machine, for `uninstall`: in the engine, and as files.

Something is larder's only if it has the checkout's compose project, or lies where larder creates it. Symlinks are
neither followed nor removed.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from larder.cli.inventory import Contents

DATA_KINDS = ("data", "shards", "chunks")
ONLY_COPY = "MAY BE THE ONLY COPY"


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


def describe_volume(what: str, contents: Contents | None, generated: Collection[str] = ()) -> str:
    """Describe a volume's content. Data that can't be inspected may also be the only copy.

    Args:
        what: Kind of the content.
        contents: The content; None if it is unknown.
        generated: Digests of the artifacts that larder can generate again.
    """
    if what not in DATA_KINDS:
        return what
    if contents is None or contents.fault or contents.unfinished:
        return f"{what}; {ONLY_COPY}"
    if not contents.artifacts:
        return f"{what}; empty"
    if all(artifact.digest in generated for artifact in contents.artifacts):
        return f"{what}; the generated sample"
    return f"{what}; {ONLY_COPY}"
