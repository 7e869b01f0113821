"""Decide from a listing whether a source consists of images, archives or Parquet files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from larder.sources.members import is_litter

SourceKind = Literal["files", "archives", "parquet"]

ARCHIVE = re.compile(
    r"(.+)\.(?:zip|tar|tar\.gz|tgz|tar\.zst|tzst|tar\.bz2|tbz2?|tar\.xz|txz)", re.IGNORECASE | re.DOTALL
)
_IMAGES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class KindDetector:
    """Decide the kind of a source from its file names, ignoring hidden files and litter."""

    def __init__(self) -> None:
        self.images = False
        self.archives = self.tables = 0

    def add(self, path: str) -> None:
        """Count one more path."""
        if is_litter(path) or is_hidden(path):
            return
        if path.lower().endswith(_IMAGES):
            self.images = True
        elif is_archive(path):
            self.archives += 1
        elif is_parquet(path):
            self.tables += 1

    @property
    def kind(self) -> SourceKind:
        """Kind of the files so far. If there are images, archives beside them are ignored."""
        if self.images:
            return "files"
        if self.tables:
            return "parquet"
        return "archives" if self.archives else "files"


def detect_kind(paths: Iterable[str]) -> SourceKind:
    """Return the kind of a source with these paths. Stop at the first image."""
    kinds = KindDetector()
    for path in paths:
        kinds.add(path)
        if kinds.images:
            break
    return kinds.kind


def is_archive(path: str) -> bool:
    """Return whether a path has the ending of an archive."""
    return ARCHIVE.fullmatch(path) is not None


def is_parquet(path: str) -> bool:
    """Return whether a path is that of a Parquet file with samples; `metadata.parquet` is a table beside images."""
    name = path.rpartition("/")[2].lower()
    return name.endswith(".parquet") and name != "metadata.parquet"


def is_hidden(path: str) -> bool:
    """Return whether a file or a folder above it is hidden."""
    return any(part.startswith(".") for part in path.split("/"))
