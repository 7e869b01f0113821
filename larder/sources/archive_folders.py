"""The folder below which the files of each of several archives go."""

from __future__ import annotations

import re
from typing import Literal

from larder.sources.kinds import ARCHIVE

ArchiveFolders = Literal["set", "archive", "none"]

_SHARD = re.compile(r"(?:[-_.](?:\d+-of-\d+|\d{3,})|(?:^|(?<=/))\d{4,})$")
"""The number of a shard, as WebDataset, img2dataset, `datasets` and people write it. Shorter ones may be names."""


def folder_of(name: str, rule: ArchiveFolders) -> str:
    """The folder below which an archive's files go, by the setting LARDER_ARCHIVE_FOLDERS; "" for none."""
    if rule == "none":
        return ""
    match = ARCHIVE.fullmatch(name)
    stem = match[1] if match else name
    return _SHARD.sub("", stem).rstrip("/") if rule == "set" else stem


def below(folder: str, path: str) -> str:
    """A member's path in the whole source: train/cat/1.jpg for both cat/1.jpg and train/cat/1.jpg of train.tar."""
    above, _, name = folder.rpartition("/")
    if name and path.startswith(f"{name}/"):
        return f"{above}/{path}" if above else path
    return f"{folder}/{path}" if folder else path
