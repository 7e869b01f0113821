"""Assign samples of WebDataset shards: the split by the shard's path, the class by the label."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from larder.sources.archive_folders import ArchiveFolders, join_folder, name_archive_folder
from larder.tree.image_listing import with_parent_folders
from larder.tree.recipes import DEFAULT_SPLIT, AssignedSample, LeftOutError, RecipeFiles, RejectError
from larder.tree.shard_labels import classes_in, find_names, require_splits, split_of
from larder.tree.splits import OUT, SplitNames
from services.index.check_ledger import CheckLedger

SHARDS_RECIPE = "webdataset"
"""The recipe's name in manifests."""
_ARCHIVE_END = re.compile(r"\.(?:tar|zip)(?=/)", re.IGNORECASE)


class LabelledShards:
    """A recipe (larder.tree.recipes) for paths `<shard>/<member>`, by the labels beside the images."""

    def __init__(self, ledger: CheckLedger, files: RecipeFiles, folders: ArchiveFolders, classes: list[str]) -> None:
        """Read the classes.

        `files` are the files beside the shards. `classes` are the names of numeric labels, if larder's manifest has
        them. Raises InputError if labels can't be classes, or if only some of the shards have splits.
        """
        self._ledger, self._names, self._folders = ledger, files.splits, folders
        shards = set(ledger.archives())
        self.is_undivided = require_splits(files.splits, {name_archive_folder(shard, "set") for shard in shards})
        labels = {label for shard, label in ledger.labels_of_archives() if self._split(shard) != OUT}
        path, names = ("larder's manifest", classes) if classes else find_names(files, _enclosing_folders(shards))
        self.classes, self._labels = classes_in(labels, path, names)

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        split = self._split(shard_of(path))
        if split == OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        entry = self._ledger.get(path)
        if entry is None:
            reason = self._ledger.reason(path)
            if reason is not None:
                raise RejectError(reason)
            return None
        return AssignedSample(split or DEFAULT_SPLIT, self._labels[entry.source or ""], path.rpartition("/")[2])

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        return ()

    def longer_names(self, path: str) -> tuple[str, ...]:
        """Return longer names for a sample whose name is taken in its class and split.

        They add the folders that `extract` would use, or the shard's name.
        """
        shard = shard_of(path)
        member = path[len(shard) + 1 :]
        return (
            with_parent_folders(join_folder(name_archive_folder(shard, self._folders), member)),
            with_parent_folders(join_folder(name_archive_folder(shard, "archive"), member)),
        )

    def _split(self, shard: str) -> str | None:
        return _split_of(shard, self._names.none, tuple(self._names.given.items()))


def shard_of(path: str) -> str:
    """Return the shard that a sample's path begins with."""
    match = _ARCHIVE_END.search(path)
    return path[: match.end()] if match else path


@lru_cache(maxsize=100_000)
def _split_of(shard: str, none: bool, given: tuple[tuple[str, str], ...]) -> str | None:
    return split_of(SplitNames(dict(given), none), name_archive_folder(shard, "set"))


def _enclosing_folders(shards: set[str]) -> Iterator[str]:
    """Yield the folders that contain all shards, as prefixes, outermost first."""
    parts = list(zip(*(shard.split("/")[:-1] for shard in shards), strict=False))
    prefix = ""
    yield prefix
    for names in parts:
        if len(set(names)) > 1:
            return
        prefix += f"{names[0]}/"
        yield prefix
