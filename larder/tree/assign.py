"""Assign files to samples: a recipe, and the rules that apply to every recipe."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from larder.contract import META, IndexEntry, SplitSummary
from larder.errors import ConfigurationError, InputError
from larder.tree.check import check_name
from larder.tree.file_names import NO_IMAGE, is_image_name, litter_reason, own_folder_error
from larder.tree.recipes import AssignedSample, LeftOutError, Recipe, RejectError, is_undivided, names_samples
from larder.tree.settings import SampleSettings
from larder.tree.source_summary import ARCHIVE_ENDINGS
from larder.tree.splits import Division, parse_shares

OUTSIDE = "outside of the layout that the recipe reads"
ARCHIVE = "archives beside images, which aren't unpacked"


def assign(recipe: Recipe, path: str, is_image: Callable[[str], bool]) -> AssignedSample:
    """Return the sample for the file at `path`.

    Args:
        recipe: The recipe to apply.
        path: Path below the source's top.
        is_image: Whether the file at a path contains an image, whatever its name.

    Raises:
        LeftOutError: If the file isn't part of the dataset.
        RejectError: If the file belongs to the dataset but can't be a sample.
        InputError: If an image lies in a folder named `_larder`, which is reserved.
    """
    if (why := litter_reason(path)) is not None:
        if META in path.lower().split("/") and is_image_name(path):
            raise own_folder_error(path, InputError)
        raise LeftOutError(why)
    try:
        sample = recipe.assign(path)
    except RejectError:
        if is_image(path):
            raise
        raise LeftOutError(_why_no_image(path)) from None
    if sample is None:
        if not is_image_name(path) and not names_samples(recipe) and is_image(path):
            raise RejectError("is an image, but its name has no image's ending")  # the recipe can't place it
        raise LeftOutError(OUTSIDE if is_image_name(path) else _why_no_image(path))
    if not names_samples(recipe) and not is_image(path):
        raise LeftOutError(_why_no_image(path))
    check_name(sample.name)
    return sample


def _why_no_image(path: str) -> str:
    return ARCHIVE if path.lower().endswith(ARCHIVE_ENDINGS) else NO_IMAGE


def count_entries(entries: Iterator[IndexEntry], splits: dict[str, SplitSummary], classes: int) -> Iterator[IndexEntry]:
    """Yield entries unchanged, and collect the totals of each split.

    Args:
        entries: Entries of a tree, sorted by path.
        splits: Receives the totals by split.
        classes: Number of classes.
    """
    for name, group in itertools.groupby(entries, key=lambda entry: entry.path.partition("/")[0]):
        samples, total, per_class = 0, 0, [0] * classes
        for entry in group:
            samples, total = samples + 1, total + entry.bytes
            per_class[entry.label or 0] += 1
            yield entry
        splits[name] = SplitSummary(samples=samples, bytes=total, samples_per_class=per_class)


def make_division(settings: SampleSettings, recipe: Recipe) -> Division | None:
    """Return the division by LARDER_SPLIT; None if the setting is empty.

    Raises:
        ConfigurationError: If the dataset already has splits.
    """
    if not settings.split:
        return None
    if not is_undivided(recipe):
        raise ConfigurationError(
            "LARDER_SPLIT divides a dataset without splits, and this one has splits of its own",
            next_step="leave LARDER_SPLIT empty",
        )
    return Division(parse_shares(settings.split), settings.split_seed)
