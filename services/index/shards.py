"""How samples of WebDataset shards get split, class and name: the split by the shard's path, the class by its label."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from larder.errors import InputError
from larder.sources.archive_folders import folder_of
from larder.tree.listing import with_folders
from larder.tree.names import sorted_labels
from larder.tree.recipes import DEFAULT_SPLIT, LeftOutError, RejectError, Sample, require_distinct
from larder.tree.splits import OUT, SplitNames
from larder.tree.survey import some
from services.index.found import Found

_MOST_CLASSES, _LONGEST_NUMBER = 1_000_000, 18
_SHOWN = 200
_ARCHIVE_END = re.compile(r"\.(?:tar|zip)(?=/)", re.IGNORECASE)


def _is_number(label: str) -> bool:
    return label.isascii() and label.isdecimal() and len(label) <= _LONGEST_NUMBER


class Shards:
    """A recipe (larder.tree.recipes) for paths `<shard>/<member>`, by the labels that were found beside the images.

    Numbers are labels as they are; other labels are the classes' names, numbered in sorted order.
    """

    def __init__(self, found: Found, labels: Collection[str], names: SplitNames, classes: list[str]) -> None:
        """`labels` are those that were found; `classes` names for numbers among them, empty where nothing names them.

        Raises InputError for labels that can't be classes, or for shards of which some have splits.
        """
        self._found, self._names = found, names
        numbers = [label for label in labels if _is_number(label)]
        if numbers and len(numbers) < len(labels):
            raise InputError(
                f"some labels of the shards are numbers ({min(numbers)}), and others are names "
                f"({min(set(labels) - set(numbers))[:_SHOWN]!a})",
                next_step="write all labels alike in the shards, then index again",
            )
        self._numbers = bool(numbers)
        self.classes = self._numbered(labels, classes) if self._numbers else self._named(labels)
        self._labels = {name: label for label, name in enumerate(self.classes)}
        shards = {shard_of(path) for path in found.paths() if _ARCHIVE_END.search(path)}
        self.is_undivided = self._require_splits_of_all(shards)

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        split = self._split(shard_of(path))
        if split == OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        entry = self._found.get(path)
        if entry is None:
            reason = self._found.reason(path)
            if reason is not None:
                raise RejectError(reason)
            return None
        label = entry.source or ""
        name = path.rpartition("/")[2]
        return Sample(split or DEFAULT_SPLIT, int(label) if self._numbers else self._labels[label], name)

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        return ()

    @staticmethod
    def longer_name(path: str) -> str:
        """The name of a sample whose own name others of its class and split have: with the shard's and the folders."""
        return with_folders(_ARCHIVE_END.sub("", path, count=1))

    def _numbered(self, labels: Collection[str], classes: list[str]) -> list[str]:
        most = max(map(int, labels), default=0)
        if classes and most < len(classes):
            return classes
        if most >= _MOST_CLASSES:
            raise InputError(
                f"a shard has the label {most:,}, and at most {_MOST_CLASSES:,} classes are read",
                next_step="check LARDER_SOURCE: labels are numbers from 0, or the classes' names",
            )
        return [str(number) for number in range(most + 1)]

    def _named(self, labels: Collection[str]) -> list[str]:
        found = sorted_labels(labels)
        if any(not label or not label.isprintable() for label in found):
            bad = next(label for label in found if not label or not label.isprintable())
            raise InputError(
                f"the shards have a label that names no class: {bad[:_SHOWN]!a}",
                next_step="labels must be numbers from 0 or the classes' names, in .cls files of UTF-8",
            )
        require_distinct("the shards have labels", found, "write them alike in the shards, then index again")
        return found

    def _require_splits_of_all(self, shards: set[str]) -> bool:
        """Whether no shard has a split. Raises InputError where some have."""
        without = sorted(shard for shard in shards if self._split(shard) is None)
        if without and len(without) < len(shards):
            raise InputError(
                f"the names of some shards say which split they are, and those of others don't: {some(without)}",
                next_step="set LARDER_SPLITS for the folders or names of these (part2=validation), or move them",
            )
        return bool(without)

    def _split(self, shard: str) -> str | None:
        return _split_of(shard, self._names.none, tuple(self._names.given.items()))


def shard_of(path: str) -> str:
    """The shard that a sample's path begins with."""
    match = _ARCHIVE_END.search(path)
    return path[: match.end()] if match else path


@lru_cache(maxsize=100_000)
def _split_of(shard: str, none: bool, given: tuple[tuple[str, str], ...]) -> str | None:
    """The split that a folder of a shard's path, or its name without a number, means; the outermost counts."""
    names = SplitNames(dict(given), none)
    return next((split for part in folder_of(shard, "set").split("/") if (split := names.find(part))), None)
