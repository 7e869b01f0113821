"""Which sample a file is, by a recipe and the rules that hold for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from larder.contract import IndexEntry, SplitSummary
from larder.errors import ConfigurationError
from larder.tree.check import check_name
from larder.tree.names import NO_IMAGE, is_image_name, litter
from larder.tree.recipes import LeftOutError, Recipe, RejectError, Sample, is_undivided, names_samples
from larder.tree.settings import SampleSettings
from larder.tree.splits import Division, parse_shares

OUTSIDE = "outside of the layout that the recipe reads"


def assign(recipe: Recipe, path: str, is_image: Callable[[str], bool]) -> Sample:
    """The sample that a file is; `is_image` says whether there is an image at a path, whatever its name.

    Raises LeftOutError for a file that is no part of the data set, or RejectError.
    """
    if (why := litter(path)) is not None:
        raise LeftOutError(why)
    try:
        sample = recipe.assign(path)
    except RejectError:
        if is_image(path):
            raise
        raise LeftOutError(NO_IMAGE) from None
    if sample is None:
        if not is_image_name(path) and not names_samples(recipe) and is_image(path):
            raise RejectError("is an image, but its name has no image's ending")  # a recipe can't tell where it belongs
        raise LeftOutError(OUTSIDE if is_image_name(path) else NO_IMAGE)
    if not names_samples(recipe) and not is_image(path):
        raise LeftOutError(NO_IMAGE)
    check_name(sample.name)
    return sample


def counted(entries: Iterator[IndexEntry], splits: dict[str, SplitSummary], classes: int) -> Iterator[IndexEntry]:
    """Pass the entries on, sorted by path, and sum them up in `splits`."""
    for name, group in itertools.groupby(entries, key=lambda entry: entry.path.partition("/")[0]):
        samples, total, per_class = 0, 0, [0] * classes
        for entry in group:
            samples, total = samples + 1, total + entry.bytes
            per_class[entry.label or 0] += 1
            yield entry
        splits[name] = SplitSummary(samples=samples, bytes=total, samples_per_class=per_class)


def division_of(settings: SampleSettings, recipe: Recipe) -> Division | None:
    """How the samples are divided. Raises ConfigurationError when LARDER_SPLIT is set for a data set with splits."""
    if not settings.split:
        return None
    if not is_undivided(recipe):
        raise ConfigurationError(
            "LARDER_SPLIT divides a data set without splits, and this one has splits of its own",
            next_step="leave LARDER_SPLIT empty",
        )
    return Division(parse_shares(settings.split), settings.split_seed)
