"""What the tree holds, for people: a table of classes and splits."""

from __future__ import annotations

from larder.contract import Manifest
from larder.splits import SPLITS
from larder.terminal import Lines, lines

_MOST_CLASSES, _MOST_SPLITS, _WIDEST = 20, 6, 32


def with_table(text: str, tree: Manifest) -> Lines:
    """A line of text, and the table below it."""
    return lines(text, *table(tree).split("\n"))


def table(tree: Manifest) -> str:
    """The number of images by class and split; of many classes the first, and what the others hold together.

    Below it, the classes that a split has no images of.
    """
    known = [split for split in SPLITS if split in tree.splits]
    splits = [*known, *sorted(tree.splits.keys() - set(SPLITS))]
    shown = splits[:_MOST_SPLITS]
    counts = {split: tree.splits[split].samples_per_class for split in shown}
    rows = [["class", *map(_short, shown)]]
    for label, name in enumerate(tree.classes[:_MOST_CLASSES]):
        rows.append([_short(name), *(f"{counts[split][label]:,}" for split in shown)])
    if (more := len(tree.classes) - _MOST_CLASSES) > 0:
        rows.append([f"{more:,} more", *(f"{sum(counts[split][_MOST_CLASSES:]):,}" for split in shown)])
    rows.append(["all", *(f"{tree.splits[split].samples:,}" for split in shown)])
    shown_lines = _aligned(rows)
    if len(splits) > len(shown):
        shown_lines.append(f"  and {len(splits) - len(shown):,} more splits: see the manifest")
    shown_lines += [line for split in shown if (line := _without_images(tree, split))]
    return "\n".join(shown_lines)


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
    return shown if len(shown) <= _WIDEST else f"{shown[: _WIDEST - 1]}…"
