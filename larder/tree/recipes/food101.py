"""Food-101: `images/<class>/<n>.jpg`, and the lists `meta/train.txt` and `meta/test.txt` of `<class>/<n>`.

The data set: https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/
"""

from __future__ import annotations

from collections.abc import Iterable

from larder.errors import InputError
from larder.splits import EVALUATION, TRAINING
from larder.tree.listing import Listing, Row, TwiceError
from larder.tree.lists import fault, lines
from larder.tree.recipes import Files, RejectError, Sample, require_distinct

_LISTS = {"meta/train.txt": TRAINING, "meta/test.txt": EVALUATION}


class Food101:
    """Reads the split from the lists, and the class from the folder."""

    names_samples = True

    def __init__(self, listing: Listing, base: str) -> None:
        self.classes = sorted(listing.labels())
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._listing, self._images = listing, f"{base}images/"

    def assign(self, path: str) -> Sample | None:
        """See `Recipe.assign`."""
        if not path.startswith(self._images):
            return None
        sample = self._listing.find(path, self._labels)
        if sample is None:
            raise RejectError(f"is named neither in {' nor in '.join(_LISTS)}")
        return sample

    def absent(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.absent`."""
        return self._listing.absent()


def recognise(files: Files) -> str | None:
    """See `recipes`: both lists are there, and folders in `images` beside them."""
    return f"{' and '.join(_LISTS)} beside images/<class>/" if _base(files) is not None else None


def open(files: Files) -> Food101:
    """Read the lists."""
    base = _base(files)
    if base is None:
        raise InputError(
            f"no Food-101: {', '.join(_LISTS)} and images/<class>/ are expected; the source has "
            f"{files.survey.in_words()}",
            next_step="check LARDER_SOURCE, or set LARDER_RECIPE=auto",
        )
    listing = Listing(files.scratch)
    for name, split in _LISTS.items():
        for line in lines(files, base + name):
            label, slash, number = line.text.partition("/")
            if not (label and slash and number) or "/" in number:
                raise fault(line.place, f"expected <class>/<n>, found {line.text[:80]!r}")
            try:
                listing.add(Row(f"{base}images/{line.text}.jpg", label, split, line.place))
            except TwiceError:
                raise fault(line.place, f"names {line.text!r} a second time") from None
    listing.finish()
    require_distinct("the lists have classes", listing.labels(), "correct the lists, then extract again")
    return Food101(listing, base)


def _base(files: Files) -> str | None:
    """Where the data set lies."""
    inside = tuple(files.survey.folders)
    found = files.survey.bases(*_LISTS)
    return next((base for base in found if any(folder.startswith(f"{base}images/") for folder in inside)), None)
