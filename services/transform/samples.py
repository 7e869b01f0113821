"""Find the samples among the extracted files, check them, and link them into the tree."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from larder.contract import IndexEntry, class_folder
from larder.errors import REMAKE_TREE, InputError, StorageError
from larder.ledger import Ledger
from larder.tree.assign import assign
from larder.tree.check import check_image
from larder.tree.file_names import image_format, is_image_name
from larder.tree.left_out import LeftOut
from larder.tree.recipes import LeftOutError, Recipe, RejectError
from larder.tree.settings import Verify
from larder.tree.splits import Division

_NO_HARD_LINK_ERRORS = {errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK, errno.EXDEV}


class TreeSample(NamedTuple):
    """A file with its path and label in the tree."""

    source: IndexEntry
    path: str
    label: int


class Reject(NamedTuple):
    """A file that can't be a sample."""

    path: str
    reason: str


def list_samples(
    raw: Path,
    entries: Iterator[IndexEntry],
    recipe: Recipe,
    division: Division | None,
    ledger: Ledger,
    left_out: LeftOut,
) -> Iterator[TreeSample]:
    """Yield the files to check, with their paths in the tree. Record files without one as rejected or left out."""
    folders = [class_folder(label, len(recipe.classes)) for label in range(len(recipe.classes))]
    is_image = functools.partial(_is_image, raw)
    for entry in entries:
        try:
            sample = assign(recipe, entry.path, is_image)
            split = division.split(entry.sha256) if division else sample.split
            path = f"{split}/{folders[sample.label]}/{sample.name}"
            if (first := ledger.claim(path, entry.path)) != entry.path:
                raise RejectError(f"would get the same path in the tree as {first!r}: {path}")
        except LeftOutError as why:
            left_out.add(entry.path, str(why))
            continue
        except RejectError as fault:
            ledger.reject([(entry.path, str(fault))])
            continue
        yield TreeSample(entry, path, sample.label)


def _is_image(raw: Path, path: str) -> bool:
    """Return whether a file is an image, by its name or else by its first bytes."""
    if is_image_name(path):
        return True
    try:
        return image_format(raw / path) is not None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise changed_error(str(raw / path), "is gone") from None


def check_batch(
    raw: Path, tree: Path, verify: Verify, samples: Sequence[TreeSample]
) -> tuple[list[IndexEntry], list[Reject]]:
    """Check samples and link them into the tree. Return the entries of the good ones, and the rejects."""
    entries: list[IndexEntry] = []
    rejects: list[Reject] = []
    for sample in samples:
        try:
            entries.append(_check_and_link(raw, tree, verify, sample))
        except RejectError as fault:
            rejects.append(Reject(sample.source.path, str(fault)))
    return entries, rejects


def _check_and_link(raw: Path, tree: Path, verify: Verify, sample: TreeSample) -> IndexEntry:
    """Read a file once, check its sha256 and the image, and link it into the tree."""
    source = f"{raw}/{sample.source.path}"
    try:
        with open(source, "rb", buffering=0) as file:
            data = file.readall()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise changed_error(source, "is gone") from None
    if hashlib.sha256(data).hexdigest() != sample.source.sha256:
        raise changed_error(source, "has changed")
    size = check_image(data, verify)
    link_file(source, f"{tree}/{sample.path}")
    width, height = size or (None, None)
    return IndexEntry(sample.path, len(data), sample.source.sha256, sample.label, width, height, sample.source.path)


def link_file(source: str, link: str) -> None:
    """Hard-link a file to its path in the tree."""
    try:
        try:
            os.link(source, link)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.link(source, link)
    except FileExistsError:  # a killed run didn't record it, or file names ignore case
        if not os.path.samefile(source, link):
            raise RejectError(f"gets the same path as another file on this file system: {link}") from None
    except OSError as fault:
        if fault.errno in _NO_HARD_LINK_ERRORS:
            raise StorageError(
                f"{source} can't be hard-linked ({os.strerror(fault.errno)}): its file system has no hard links, "
                "or the file belongs to another user",
                next_step="put the volume on ext4, xfs or btrfs, and run all stages as one user",
            ) from None
        raise


def changed_error(path: str, how: str) -> InputError:
    """Return the error for a file that differs from the index of the raw data."""
    return InputError(f"{path} {how} since it was extracted", next_step=f"{REMAKE_TREE}, which extracts it again")
