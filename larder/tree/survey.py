"""What lies where in a source, at a glance: one pass over the names, of which only folders are kept."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice

from larder.tree.names import is_image_name, litter
from larder.tree.splits import SplitNames

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz", ".7z", ".rar", ".parquet")
_LISTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".mat")
_LISTS_KEPT = 10_000
_LONGEST = 200
_LABEL = re.compile(r"[0-9]+_")


class Survey:
    """The folders of a source that hold images, and files that may say what they are.

    Attributes:
        folders: By folder, "" for the top: how many images lie directly in it. Litter is left out.
        labelled: By folder: how many of them have names that begin with a number and an underscore.
        labels: How many files hold one image's class, as in WebDataset's shards (`.cls`).
        lists: Tables and lists of names, by path.
        archives: Files that must be unpacked first, by path.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self.folders: dict[str, int] = {}
        self.labelled: dict[str, int] = {}
        self.labels = 0
        self.lists: list[str] = []
        self.archives: list[str] = []
        for path in paths:
            if litter(path) is not None:
                continue
            if is_image_name(path):
                folder, _, name = path.rpartition("/")
                self.folders[folder] = self.folders.get(folder, 0) + 1
                if _LABEL.match(name):
                    self.labelled[folder] = self.labelled.get(folder, 0) + 1
                continue
            self.labels += path.endswith(".cls")
            kept = self.lists if path.lower().endswith(_LISTS) else self.archives
            if (kept is self.lists or path.lower().endswith(_ARCHIVES)) and len(kept) < _LISTS_KEPT:
                kept.append(path)

    @property
    def images(self) -> int:
        """The number of images."""
        return sum(self.folders.values())

    def root(self, names: SplitNames) -> str:
        """The folders around the data set, which hold nothing else, as a prefix with a slash at the end, or ""."""
        prefix = ""
        while True:
            inside = [folder[len(prefix) :] for folder in self.folders]
            first = {folder.partition("/")[0] for folder in inside}
            if len(first) != 1 or any("/" not in folder for folder in inside) or names.find(min(first)) is not None:
                return prefix
            prefix += f"{min(first)}/"

    def bases(self, *paths: str) -> list[str]:
        """The prefixes below which there are lists at all of these paths."""
        lists = set(self.lists)
        ends = [path.removesuffix(paths[0]) for path in self.lists if f"/{path}".endswith(f"/{paths[0]}")]
        return [base for base in ends if all(base + path in lists for path in paths)]

    def in_words(self) -> str:
        """What there is, for messages: the folders with images, or what there is in their place."""
        if not self.folders:
            if self.archives:
                return f"no images, but archives: {some(self.archives)}"
            return "no images"
        if set(self.folders) == {""}:
            return "images at its top, in no folder"
        return f"images in {some(sorted(self.folders))}"


def some(names: Iterable[str], count: int = 6) -> str:
    """The first of many names, escaped, for messages."""
    rest = iter(names)
    shown = ", ".join(_shown(name) for name in islice(rest, count))
    more = sum(1 for _ in rest)
    return f"{shown} and {more:,} more" if more else shown


def _shown(name: str) -> str:
    if not name:
        return "the top"
    shown = name if name.isprintable() else ascii(name)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"
