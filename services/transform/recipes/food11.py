"""Food-11: `<split>/<class>_<n>.jpg`, the class being the number before the underscore."""

from __future__ import annotations

import re
from collections.abc import Iterable

from larder.errors import InputError
from services.transform.recipes import Files, RejectError, Sample

SPLITS = ("training", "validation", "evaluation")
CLASSES = [
    "Bread", "Dairy product", "Dessert", "Egg", "Fried food", "Meat", "Noodles/Pasta", "Rice", "Seafood", "Soup",
    "Vegetable/Fruit",
]  # fmt: skip

_NAME = re.compile(r"([0-9]+)_.+", re.DOTALL)


class Food11:
    """Reads the class from the file's name."""

    classes = CLASSES

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        split, _, name = path.partition("/")
        if split not in SPLITS or not name:
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


def open(files: Files) -> Food11:
    """Check that every split is there."""
    folders = {path.partition("/")[0] for path in files.paths() if "/" in path}
    if missing := [split for split in SPLITS if split not in folders]:
        raise InputError(
            f"no files for the split{'s' if len(missing) > 1 else ''} {', '.join(missing)}; "
            f"the source has the folders {', '.join(sorted(folders)[:20]) or '(none)'}",
            next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE (imagefolder, csv)",
        )
    return Food11()
