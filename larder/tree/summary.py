"""Summarize the tree for users: a table of classes and splits."""

from __future__ import annotations

from collections.abc import Sequence

from larder.contract import Manifest
from larder.ledger import Ledger
from larder.splits import SPLITS
from larder.terminal import Lines, join_lines
from larder.tree.file_names import parse_number

_MAX_CLASSES, _MAX_SPLITS, _MAX_NAME_CHARACTERS = 20, 6, 32


def with_table(text: str, tree: Manifest, shared: str = "") -> Lines:
    """Return a summary with a table of image counts below it.

    Args:
        text: The summary line.
        tree: Manifest of the tree.
        shared: Result of `shared_by_splits`; empty for none.
    """
    return join_lines(text, *split_table(tree).split("\n"), *([shared] if shared else []))


def shared_by_splits(tree: Manifest, entries: Ledger) -> str:
    """Return a line on images that several splits share; "" if there are none."""
    count, paths = entries.in_several_folders() if len(tree.splits) > 1 else (0, [])
    if not count:
        return ""
    images = "1 image lies" if count == 1 else f"{count:,} images lie"
    return f"  {images} in more than one split (with the same sha256), such as {' and '.join(map(ascii, paths[:2]))}"


def split_table(tree: Manifest) -> str:
    """Return a table of image counts by class and split; it combines all but the first classes into one row.

    Below the table, list the classes without images in a split, and warn if numeric class names differ from labels.
    """
    known = [split for split in SPLITS if split in tree.splits]
    splits = [*known, *sorted(tree.splits.keys() - set(SPLITS))]
    shown = splits[:_MAX_SPLITS]
    counts = {split: tree.splits[split].samples_per_class for split in shown}
    rows = [["class", *map(_short, shown)]]
    for label, name in enumerate(tree.classes[:_MAX_CLASSES]):
        rows.append([_short(name), *(f"{counts[split][label]:,}" for split in shown)])
    if (more := len(tree.classes) - _MAX_CLASSES) > 0:
        rows.append([f"{more:,} more", *(f"{sum(counts[split][_MAX_CLASSES:]):,}" for split in shown)])
    rows.append(["all", *(f"{tree.splits[split].samples:,}" for split in shown)])
    shown_lines = _aligned(rows)
    if len(splits) > len(shown):
        shown_lines.append(f"  and {len(splits) - len(shown):,} more splits: see the manifest")
    shown_lines += [line for split in shown if (line := _without_images(tree, split))]
    if renumbered := _renumbered(tree.classes):
        shown_lines.append(renumbered)
    return "\n".join(shown_lines)


def _renumbered(classes: Sequence[str]) -> str:
    numbers = [parse_number(name) for name in classes]
    if not all(number is not None for number in numbers):
        return ""
    first = next((label for label, number in enumerate(numbers) if number != label), None)
    return (
        ""
        if first is None
        else f"  labels are positions in the list of classes: class {_short(classes[first])} has the label {first}"
    )


def _without_images(tree: Manifest, split: str) -> str:
    per_class = tree.splits[split].samples_per_class
    empty = [_short(name) for name, count in zip(tree.classes, per_class, strict=True) if not count]
    if not empty:
        return ""
    more = f" and {len(empty) - 3:,} more" if len(empty) > 3 else ""
    return f"  no images in {_short(split)} of: {', '.join(empty[:3])}{more}"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _short(name: str) -> str:
    shown = name if name.isprintable() and name == name.strip() else ascii(name)
    return shown if len(shown) <= _MAX_NAME_CHARACTERS else f"{shown[: _MAX_NAME_CHARACTERS - 1]}…"
