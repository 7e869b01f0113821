"""Summarize what a source contains, in one pass over its paths; only folders are kept in memory."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from larder.tree.file_names import is_image_name, litter_reason
from larder.tree.splits import SplitNames

ARCHIVE_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz", ".7z", ".rar", ".parquet")
_LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".mat")
_LISTS_KEPT = 10_000
_MAX_SHOWN_CHARACTERS = 200
_LABEL = re.compile(r"[0-9]+_")


class SourceSummary:
    """Folders of a source that contain images, and files that may describe them.

    Attributes:
        folders: Number of images directly in each folder; "" is the top. Litter is left out.
        labelled: By folder, the number of images whose names begin with a number and an underscore.
        labels: Number of files with an image's class, as in WebDataset's shards (`.cls`).
        lists: Paths of tables and lists of names.
        archives: Paths of files that must be unpacked first.
        litter: Path of the first image that is left out as litter, or "".
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.folders: dict[str, int] = {}
        self.labelled: dict[str, int] = {}
        self.labels = 0
        self.lists: list[str] = []
        self.archives: list[str] = []
        self.litter = ""
        for path in paths:
            if litter_reason(path) is not None:
                self.litter = self.litter or (path if is_image_name(path) else "")
                continue
            if is_image_name(path):
                folder, _, name = path.rpartition("/")
                self.folders[folder] = self.folders.get(folder, 0) + 1
                if _LABEL.match(name):
                    self.labelled[folder] = self.labelled.get(folder, 0) + 1
                continue
            self.labels += path.endswith(".cls")
            kept = self.lists if path.lower().endswith(_LISTS) else self.archives
            if (kept is self.lists or path.lower().endswith(ARCHIVE_ENDINGS)) and len(kept) < _LISTS_KEPT:
                kept.append(path)

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(self.folders.values())

    @property
    def tops(self) -> set[str]:
        """First folder of each image's path; "" for an image in no folder."""
        return {folder.partition("/")[0] for folder in self.folders}

    def root(self, names: SplitNames) -> str:
        """Return the folders that enclose the whole dataset, as a prefix that ends with a slash, or ""."""
        prefix = ""
        while True:
            inside = [folder[len(prefix) :] for folder in self.folders]
            first = {folder.partition("/")[0] for folder in inside}
            if len(first) != 1 or any("/" not in folder for folder in inside) or names.find(min(first)) is not None:
                return prefix
            prefix += f"{min(first)}/"

    def bases(self, *paths: str) -> list[str]:
        """Return the prefixes below which the lists at all of these paths exist."""
        lists = set(self.lists)
        ends = [path.removesuffix(paths[0]) for path in self.lists if f"/{path}".endswith(f"/{paths[0]}")]
        return [base for base in ends if all(base + path in lists for path in paths)]

    def describe(self) -> str:
        """Describe the content for messages: the folders with images, or what the source has instead."""
        if not self.folders:
            if self.archives:
                return f"no images, but archives: {first_names(self.archives)}"
            return f"no images but hidden files and litter, such as {self.litter!a}" if self.litter else "no images"
        if set(self.folders) == {""}:
            return "images at its top, outside of any folder"
        return f"images in {first_names(sorted(self.folders))}"


def first_names(names: Iterable[str], count: int = 6) -> str:
    """Return the first `count` names, escaped for messages, and the number of the others."""
    rest = iter(names)
    shown = ", ".join(_shown(name) for name in islice(rest, count))
    more = sum(1 for _ in rest)
    return f"{shown} and {more:,} more" if more else shown


def _shown(name: str) -> str:
    if not name:
        return "the top"
    shown = name if name.isprintable() else ascii(name)
    return shown if len(shown) <= _MAX_SHOWN_CHARACTERS else f"{shown[:_MAX_SHOWN_CHARACTERS]}…"
