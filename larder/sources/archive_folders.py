"""Name the folder for the files of each archive, if a source consists of several archives."""

from __future__ import annotations

import re
from typing import Literal

from larder.sources.kinds import ARCHIVE

ArchiveFolders = Literal["set", "archive", "none"]

_SHARD = re.compile(r"(?:[-_.](?:\d+-of-\d+|\d{3,})|(?:^|(?<=/))\d{4,})$")
"""Shard numbers as WebDataset, img2dataset, `datasets` and people write them. Shorter numbers may be part of a name."""


def name_archive_folder(name: str, rule: ArchiveFolders) -> str:
    """Return the folder for an archive's files, or "" for none.

    Args:
        name: Path of the archive in the source.
        rule: Value of LARDER_ARCHIVE_FOLDERS: "set" drops the extension and a shard number, "archive" drops only the
            extension, "none" gives no folder.
    """
    if rule == "none":
        return ""
    match = ARCHIVE.fullmatch(name)
    stem = match[1] if match else name
    return _SHARD.sub("", stem).rstrip("/") if rule == "set" else stem


def join_folder(folder: str, path: str) -> str:
    """Return a member's path in the source: train/cat/1.jpg for both cat/1.jpg and train/cat/1.jpg in train.tar."""
    above, _, name = folder.rpartition("/")
    if name and path.startswith(f"{name}/"):
        return f"{above}/{path}" if above else path
    return f"{folder}/{path}" if folder else path
