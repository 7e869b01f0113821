"""Food-11: `<split>/<class>_<n>.jpg`, the class being the number before the underscore."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from larder.errors import InputError
from larder.splits import SPLITS
from larder.tree.recipes import Files, RejectError, Sample, require_images, unplaced
from larder.tree.splits import OUT
from larder.tree.survey import some

CLASSES = [
    "Bread", "Dairy product", "Dessert", "Egg", "Fried food", "Meat", "Noodles/Pasta", "Rice", "Seafood", "Soup",
    "Vegetable/Fruit",
]  # fmt: skip

_NAME = re.compile(r"([0-9]+)_.+", re.DOTALL)


class Food11:
    """Reads the class from the file's name."""

    classes = CLASSES

    def __init__(self, root: str, splits: Mapping[str, str]) -> None:
        """`splits` are by folder, below the folders in `root`."""
        self._root, self._splits = root, splits

    def assign(self, path: str) -> Sample | None:
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
        return Sample(split, int(match[1]), name)

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        return ()


def recognise(files: Files) -> str | None:
    """See `recipes`: images lie directly in folders of splits, and most names in the source begin with a class."""
    root, survey = files.survey.root(files.splits), files.survey
    found = {folder: files.splits.find(folder.removeprefix(root)) for folder in survey.folders}
    direct = [folder for folder, split in found.items() if split not in (None, OUT)]
    several = len({found[folder] for folder in direct}) > 1
    if not direct or not (several or len(direct) == len(found)):
        return None  # a class may be called `train`
    if 2 * sum(survey.labelled.get(folder, 0) for folder in direct) <= survey.images:
        return None
    return f"images named <class>_<n> in the folders {some(sorted(direct))}"


def open(files: Files) -> Food11:
    """Check that every split is there, and that nothing else is."""
    require_images(files)
    survey, root = files.survey, files.survey.root(files.splits)
    below = {folder.removeprefix(root): folder for folder in survey.folders}
    folders = {folder.partition("/")[0] for folder in below} - {""}
    found = {folder: files.splits.find(folder) for folder in folders}
    if missing := [split for split in SPLITS if split not in found.values()]:
        raise InputError(
            f"no files for the split{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"the source has the folders {some(sorted(folders), 20) or '(none)'}",
            next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE (imagefolder, csv)",
        )
    if not any(found.get(folder) for folder in below):
        raise InputError(
            f"the images lie in class folders, such as {some([min(filter(None, below))])}, and the recipe food11 takes "
            "the class from the file's name",
            next_step="set LARDER_RECIPE=imagefolder, which takes it from the folder",
        )
    labelled = {path.partition("/")[0] for path, folder in below.items() if path and folder in survey.labelled}
    if others := labelled - {folder for folder, split in found.items() if split}:
        raise unplaced(others, f"{'/'.join(SPLITS)} are the splits of Food-11")
    return Food11(root, {folder: split for folder, split in found.items() if split})
