"""Oxford-IIIT Pet: `images/<class>_<n>.jpg`, and the lists `annotations/trainval.txt` and `annotations/test.txt`.

A line of a list has the image's name without extension, the number of its class from 1, and two other numbers. The
dataset contains images that are in neither list; they are left out.
The dataset: https://www.robots.ox.ac.uk/~vgg/data/pets/
"""

from __future__ import annotations

from collections.abc import Iterable

from larder.errors import InputError
from larder.splits import EVALUATION, TRAINING
from larder.tree.image_listing import DuplicateFileError, ImageListing, ListingRow
from larder.tree.lists import ListLine, list_error, read_lines
from larder.tree.recipes import AssignedSample, LeftOutError, RecipeFiles, require_distinct

_LISTS = {"annotations/trainval.txt": TRAINING, "annotations/test.txt": EVALUATION}


class OxfordPetRecipe:
    """Recipe that takes split and class from the lists. `classes` are in the order of their numbers."""

    names_samples = True

    def __init__(self, listing: ImageListing, base: str, classes: list[str]) -> None:
        self.classes, self._listing, self._images = classes, listing, f"{base}images/"
        self._labels = {name: label for label, name in enumerate(classes)}

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        if not path.startswith(self._images):
            return None
        sample = self._listing.find(path, self._labels)
        if sample is None:
            raise LeftOutError("in none of the dataset's lists")
        return sample

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        return self._listing.missing_files()


def recognize(files: RecipeFiles) -> str | None:
    """Detect both lists with images in `images` beside them; see `recipes`."""
    return f"{' and '.join(_LISTS)} beside images/" if _base(files) is not None else None


def open(files: RecipeFiles) -> OxfordPetRecipe:
    """Read the lists."""
    base = _base(files)
    if base is None:
        raise InputError(
            f"no Oxford-IIIT Pet: {', '.join(_LISTS)} and images/ are expected; the source has "
            f"{files.summary.describe()}",
            next_step="check LARDER_SOURCE, or set LARDER_RECIPE=auto",
        )
    listing, numbers = ImageListing(files.scratch), dict[str, int]()
    for path, split in _LISTS.items():
        for line in read_lines(files, base + path):
            if line.text.startswith("#"):
                continue
            name, label, number = _parse(line)
            if numbers.setdefault(label, number) != number:
                raise list_error(
                    line.position, f"gives {label!r} the class {number}, and an earlier line {numbers[label]}"
                )
            try:
                listing.add(ListingRow(f"{base}images/{name}.jpg", label, split, line.position))
            except DuplicateFileError:
                raise list_error(line.position, f"names {name!r} a second time") from None
    listing.finish()
    if len(set(numbers.values())) < len(numbers):
        raise list_error(", ".join(_LISTS), "two classes have the same number")
    require_distinct("the lists have classes", numbers, "correct the lists, then extract again")
    return OxfordPetRecipe(listing, base, sorted(numbers, key=numbers.__getitem__))


def _parse(line: ListLine) -> tuple[str, str, int]:
    """Return image name, class and number of the class."""
    words = line.text.split()
    label = words[0].rpartition("_")[0]
    if len(words) < 2 or not label or "/" in words[0] or not words[1].isdecimal() or len(words[1]) > 9:
        raise list_error(line.position, f"expected <class>_<n> <number of the class>, found {line.text[:80]!r}")
    return words[0], label, int(words[1])


def _base(files: RecipeFiles) -> str | None:
    """Return the prefix of the dataset in the source, or None."""
    bases = files.summary.bases(*_LISTS)
    return next((base for base in bases if f"{base}images" in files.summary.folders), None)
