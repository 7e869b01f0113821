"""Unpacked WebDataset shards of other projects: `<key>.jpg` beside `<key>.cls`, which contains the class.

A key is a path up to the first dot of the file's name. Other files of a sample (`<key>.json`) are left out. The first
folder with the name of a split decides the split; extract, for example, names a folder after `train-000000.tar`
(larder.tree.shard_labels).

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

from collections.abc import Iterable

from larder.errors import InputError
from larder.tree.file_names import is_image_name
from larder.tree.image_listing import LEFT_OUT, DuplicateFileError, ImageListing, ListingRow
from larder.tree.lists import list_error
from larder.tree.recipes import DEFAULT_SPLIT, AssignedSample, LeftOutError, RecipeFiles, unlisted_error
from larder.tree.shard_labels import (
    CLASS,
    MAX_CLASSES,
    MAX_LABEL_BYTES,
    classes_in,
    find_names,
    key_of,
    label_in,
    require_splits,
    split_of,
)
from larder.tree.splits import OUT, SplitNames


class WebDatasetRecipe:
    """Recipe that takes the class from the `.cls` beside an image, and the split from the folders."""

    names_samples = True

    def __init__(
        self, listing: ImageListing, classes: list[str], labels: dict[str, int], is_undivided: bool, names: SplitNames
    ) -> None:
        self.classes, self.is_undivided = classes, is_undivided
        self._listing, self._labels, self._names = listing, labels, names

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        if not is_image_name(path):
            return None
        key = key_of(path)
        sample = self._listing.find(f"{key}{CLASS}", self._labels, reader=path)
        if sample is None:
            raise unlisted_error(path, f"has no {CLASS} with its key {key[-200:]!a}", self._names)
        if sample.split == LEFT_OUT:
            raise LeftOutError("left out by LARDER_SPLITS")
        ending = path[len(key) :]
        return sample._replace(name=sample.name.removesuffix(CLASS) + ending)

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        for path, _ in self._listing.missing_files():
            yield path, "has no image with its key in the source"


def recognize(files: RecipeFiles) -> str | None:
    """Detect whether at least half of the images have a `.cls` beside them; see `recipes`."""
    summary = files.summary
    return f"{CLASS} beside images, as in WebDataset's shards" if 0 < summary.images <= 2 * summary.labels else None


def open(files: RecipeFiles) -> WebDatasetRecipe:
    """Read all `.cls` files."""
    listing, labels, folders = ImageListing(files.scratch), set[str](), set[str]()
    for path, content in files.read_all(CLASS, MAX_LABEL_BYTES):
        text, folder = label_in(path, content), path.rpartition("/")[0]
        split = split_of(files.splits, folder)
        folders.add(folder)
        if split == OUT:
            split = LEFT_OUT
        else:
            labels.add(text)
        if len(labels) > MAX_CLASSES:
            raise list_error(path, f"has more than {MAX_CLASSES:,} classes")
        try:
            listing.add(ListingRow(key_of(path) + CLASS, text, DEFAULT_SPLIT if split is None else split, path))
        except DuplicateFileError:
            raise list_error(path, "has the same key as another") from None
    if not folders:
        raise InputError(
            f"no {CLASS} beside images; the source has {files.summary.describe()}",
            next_step="check LARDER_SOURCE, or set LARDER_RECIPE=auto",
        )
    is_undivided = require_splits(files.splits, folders)
    listing.finish()
    classes, label_numbers = classes_in(labels, *find_names(files, ("", files.summary.root(files.splits))))
    return WebDatasetRecipe(listing, classes, label_numbers, is_undivided, files.splits)
