"""Food-11: `<split>/<class>_<n>.jpg`; the class is the number before the underscore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from larder.errors import InputError
from larder.splits import SPLITS
from larder.tree.recipes import AssignedSample, RecipeFiles, RejectError, require_images, unknown_folders_error
from larder.tree.source_summary import first_names
from larder.tree.splits import OUT

CLASSES = [
    "Bread",
    "Dairy product",
    "Dessert",
    "Egg",
    "Fried food",
    "Meat",
    "Noodles/Pasta",
    "Rice",
    "Seafood",
    "Soup",
    "Vegetable/Fruit",
]

_NAME = re.compile(r"([0-9]+)_.+", re.DOTALL)


class Food11Recipe:
    """Recipe that takes the class from the file name."""

    classes = CLASSES

    def __init__(self, root: str, splits: Mapping[str, str]) -> None:
        """`splits` maps folders below `root` to splits."""
        self._root, self._splits = root, splits

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        folder, _, name = path.removeprefix(self._root).partition("/")
        split = self._splits.get(folder) if name and path.startswith(self._root) else None
        if split in (None, OUT):
            return None
        if "/" in name:
            raise RejectError("lies deeper than <split>/<file>")
        match = _NAME.fullmatch(name)
        if match is None:
            raise RejectError("has no class in its name: expected <class>_<n>.jpg")
        if int(match[1]) >= len(CLASSES):
            raise RejectError(f"has the class {match[1]} in its name, beyond {len(CLASSES) - 1}")
        return AssignedSample(split, int(match[1]), name)

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        return ()


def recognize(files: RecipeFiles) -> str | None:
    """Detect images directly in folders of splits, most of them named with a class number; see `recipes`."""
    root, summary = files.summary.root(files.splits), files.summary
    splits = {folder: files.splits.find(folder.removeprefix(root)) for folder in summary.folders}
    direct = [folder for folder, split in splits.items() if split not in (None, OUT)]
    several = len({splits[folder] for folder in direct}) > 1
    if not direct or not (several or len(direct) == len(splits)):
        return None  # `train` may be the name of a class
    if 2 * sum(summary.labelled.get(folder, 0) for folder in direct) <= summary.images:
        return None
    return f"images named <class>_<n> in the folders {first_names(sorted(direct))}"


def open(files: RecipeFiles) -> Food11Recipe:
    """Open the recipe.

    Raises:
        InputError: If a split is missing, or other folders contain labelled images.
    """
    require_images(files)
    summary, root = files.summary, files.summary.root(files.splits)
    below = {folder.removeprefix(root): folder for folder in summary.folders}
    folders = {folder.partition("/")[0] for folder in below} - {""}
    splits = {folder: files.splits.find(folder) for folder in folders}
    if missing := [split for split in SPLITS if split not in splits.values()]:
        raise InputError(
            f"no files for the split{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"the source has the folders {first_names(sorted(folders), 20) or '(none)'}",
            next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE (imagefolder, csv)",
        )
    if not any(splits.get(folder) for folder in below):
        raise InputError(
            f"the images lie in class folders, such as {first_names([min(filter(None, below))])}, and the "
            "recipe food11 takes the class from the file's name",
            next_step="set LARDER_RECIPE=imagefolder, which takes it from the folder",
        )
    labelled = {path.partition("/")[0] for path, folder in below.items() if path and folder in summary.labelled}
    if unknown := labelled - {folder for folder, split in splits.items() if split}:
        raise unknown_folders_error(unknown, f"{'/'.join(SPLITS)} are the splits of Food-11")
    return Food11Recipe(root, {folder: split for folder, split in splits.items() if split})
