"""Food-101: `images/<class>/<n>.jpg`, and the lists `meta/train.txt` and `meta/test.txt` of `<class>/<n>`.

The dataset: https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/
"""

from __future__ import annotations

from collections.abc import Iterable

from larder.errors import InputError
from larder.splits import EVALUATION, TRAINING
from larder.tree.image_listing import DuplicateFileError, ImageListing, ListingRow
from larder.tree.lists import list_error, read_lines
from larder.tree.recipes import AssignedSample, RecipeFiles, RejectError, require_distinct

_LISTS = {"meta/train.txt": TRAINING, "meta/test.txt": EVALUATION}


class Food101Recipe:
    """Recipe that takes the split from the lists and the class from the folder."""

    names_samples = True

    def __init__(self, listing: ImageListing, base: str) -> None:
        self.classes = sorted(listing.labels())
        self._labels = {name: label for label, name in enumerate(self.classes)}
        self._listing, self._images = listing, f"{base}images/"

    def assign(self, path: str) -> AssignedSample | None:
        """See `Recipe.assign`."""
        if not path.startswith(self._images):
            return None
        sample = self._listing.find(path, self._labels)
        if sample is None:
            raise RejectError(f"is named neither in {' nor in '.join(_LISTS)}")
        return sample

    def missing_files(self) -> Iterable[tuple[str, str]]:
        """See `Recipe.missing_files`."""
        return self._listing.missing_files()


def recognize(files: RecipeFiles) -> str | None:
    """Detect both lists with class folders in `images` beside them; see `recipes`."""
    return f"{' and '.join(_LISTS)} beside images/<class>/" if _base(files) is not None else None


def open(files: RecipeFiles) -> Food101Recipe:
    """Read the lists."""
    base = _base(files)
    if base is None:
        raise InputError(
            f"no Food-101: {', '.join(_LISTS)} and images/<class>/ are expected; the source has "
            f"{files.summary.describe()}",
            next_step="check LARDER_SOURCE, or set LARDER_RECIPE=auto",
        )
    listing = ImageListing(files.scratch)
    for name, split in _LISTS.items():
        for line in read_lines(files, base + name):
            label, slash, number = line.text.partition("/")
            if not (label and slash and number) or "/" in number:
                raise list_error(line.position, f"expected <class>/<n>, found {line.text[:80]!r}")
            try:
                listing.add(ListingRow(f"{base}images/{line.text}.jpg", label, split, line.position))
            except DuplicateFileError:
                raise list_error(line.position, f"names {line.text!r} a second time") from None
    listing.finish()
    require_distinct("the lists have classes", listing.labels(), "correct the lists, then extract again")
    return Food101Recipe(listing, base)


def _base(files: RecipeFiles) -> str | None:
    """Return the prefix of the dataset in the source, or None."""
    folders = tuple(files.summary.folders)
    bases = files.summary.bases(*_LISTS)
    return next((base for base in bases if any(folder.startswith(f"{base}images/") for folder in folders)), None)
