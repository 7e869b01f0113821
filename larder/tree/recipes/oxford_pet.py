"""Oxford-IIIT Pet: `images/<class>_<n>.jpg`, and the lists `annotations/trainval.txt` and `annotations/test.txt`.

A line of a list is the name of an image without its extension, then the number of its class, from 1, and two others.
The data set's own images outnumber its lists: those in neither are left out.
The data set: https://www.robots.ox.ac.uk/~vgg/data/pets/
"""

from __future__ import annotations

from collections.abc import Iterable

from larder.errors import InputError
from larder.splits import EVALUATION, TRAINING
from larder.tree.listing import Listing, Row, TwiceError
from larder.tree.lists import Line, fault, lines
from larder.tree.recipes import Files, LeftOutError, Sample, require_distinct

_LISTS = {"annotations/trainval.txt": TRAINING, "annotations/test.txt": EVALUATION}


class OxfordPet:
    """Reads split and class from the lists; `classes` are those of the images' names, in the order of their numbers."""

    names_samples = True

    def __init__(self, listing: Listing, base: str, classes: list[str]) -> None:
        self.classes, self._listing, self._images = classes, listing, f"{base}images/"
        self._labels = {name: label for label, name in enumerate(classes)}

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        if not path.startswith(self._images):
            return None
        sample = self._listing.find(path, self._labels)
        if sample is None:
            raise LeftOutError("in none of the data set's lists")
        return sample

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        return self._listing.absent()


def recognise(files: Files) -> str | None:
    """See `recipes`: both lists are there, and images in `images` beside them."""
    return f"{' and '.join(_LISTS)} beside images/" if _base(files) is not None else None


def open(files: Files) -> OxfordPet:
    """Read the lists."""
    base = _base(files)
    if base is None:
        raise InputError(
            f"no Oxford-IIIT Pet: {', '.join(_LISTS)} and images/ are expected; the source has "
            f"{files.survey.in_words()}",
            next_step="check LARDER_SOURCE, or set LARDER_RECIPE=auto",
        )
    listing, numbers = Listing(files.scratch), dict[str, int]()
    for path, split in _LISTS.items():
        for line in lines(files, base + path):
            if line.text.startswith("#"):
                continue
            name, label, number = _parse(line)
            if numbers.setdefault(label, number) != number:
                raise fault(line.place, f"gives {label!r} the class {number}, and a line before {numbers[label]}")
            try:
                listing.add(Row(f"{base}images/{name}.jpg", label, split, line.place))
            except TwiceError:
                raise fault(line.place, f"names {name!r} a second time") from None
    listing.finish()
    if len(set(numbers.values())) < len(numbers):
        raise fault(", ".join(_LISTS), "two classes have one number")
    require_distinct("the lists have classes", numbers, "correct the lists, then extract again")
    return OxfordPet(listing, base, sorted(numbers, key=numbers.__getitem__))


def _parse(line: Line) -> tuple[str, str, int]:
    """Image, class and the class's number."""
    words = line.text.split()
    label = words[0].rpartition("_")[0]
    if len(words) < 2 or not label or "/" in words[0] or not words[1].isdecimal() or len(words[1]) > 9:
        raise fault(line.place, f"expected <class>_<n> <number of the class>, found {line.text[:80]!r}")
    return words[0], label, int(words[1])


def _base(files: Files) -> str | None:
    """Where the data set lies."""
    found = files.survey.bases(*_LISTS)
    return next((base for base in found if f"{base}images" in files.survey.folders), None)
