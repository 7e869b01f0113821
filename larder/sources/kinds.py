"""What a listing of files is: images as they are, archives to unpack, or Parquet files to take images from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from larder.sources.members import is_litter

Kind = Literal["files", "archives", "parquet"]

ARCHIVE = re.compile(
    r"(.+)\.(?:zip|tar|tar\.gz|tgz|tar\.zst|tzst|tar\.bz2|tbz2?|tar\.xz|txz)", re.IGNORECASE | re.DOTALL
)
_IMAGES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class Kinds:
    """Finds out what files are from their names. Hidden files and litter say nothing."""

    def __init__(self) -> None:
        self.images = False
        self.archives = self.tables = 0

    def add(self, path: str) -> None:
        """Look at one more path."""
        if is_litter(path) or is_hidden(path):
            return
        if path.lower().endswith(_IMAGES):
            self.images = True
        elif is_archive(path):
            self.archives += 1
        elif is_parquet(path):
            self.tables += 1

    @property
    def kind(self) -> Kind:
        """What they are. Where there are images, archives beside them are none of this program's business."""
        if self.images:
            return "files"
        if self.tables:
            return "parquet"
        return "archives" if self.archives else "files"


def kind_of(paths: Iterable[str]) -> Kind:
    """What files with these paths are. Looks no further than the first image."""
    kinds = Kinds()
    for path in paths:
        kinds.add(path)
        if kinds.images:
            break
    return kinds.kind


def is_archive(path: str) -> bool:
    """Whether a name is an archive's."""
    return ARCHIVE.fullmatch(path) is not None


def is_parquet(path: str) -> bool:
    """Whether a name is that of a Parquet file with samples; `metadata.parquet` is a table beside images."""
    name = path.rpartition("/")[2].lower()
    return name.endswith(".parquet") and name != "metadata.parquet"


def is_hidden(path: str) -> bool:
    """Whether a file or a folder above it is hidden."""
    return any(part.startswith(".") for part in path.split("/"))
