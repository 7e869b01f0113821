"""Decide which images are samples, and assign each a path in the tree."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from larder.batches import batches
from larder.contract import IndexEntry, class_folder
from larder.errors import InputError, RejectedSamplesError
from larder.next_step import CREATED_BY
from larder.progress import Reporter
from larder.tree.assign import assign
from larder.tree.file_names import is_image_name
from larder.tree.left_out import LeftOut
from larder.tree.recipes import LeftOutError, Recipe, RejectError
from larder.tree.splits import Division
from services.index.check_ledger import CheckLedger, SampleLedger
from services.index.checkers import is_never_image
from services.index.index_folder import REJECTS
from services.index.labelled_shards import LabelledShards

_SAMPLES_PER_RECORD = 1000
_SHOWN_REJECTS = 20


class SampleAssigner:
    """Assigns paths in the tree to samples, and records them in `ledger`."""

    def __init__(self, checked: CheckLedger, recipe: Recipe, division: Division | None, ledger: SampleLedger) -> None:
        self._checked, self._recipe, self._division, self._ledger = checked, recipe, division, ledger
        self._folders = [class_folder(label, len(recipe.classes)) for label in range(len(recipe.classes))]

    def assign_all(self, paths: Callable[[], Iterator[str]], left_out: LeftOut, reporter: Reporter) -> None:
        """Assign each image a path in the tree. Record images without one as rejected or left out."""
        if isinstance(self._recipe, LabelledShards):
            for longer in (False, True):
                for shared in batches(self._find_shared_paths(paths(), longer), _SAMPLES_PER_RECORD):
                    self._ledger.add_shared(shared)
                self._ledger.clear_claims()
        with reporter.task("assign", None, "images") as task:
            for samples in batches(self._samples(paths(), left_out), _SAMPLES_PER_RECORD):
                self._ledger.add(samples)
                task.advance(len(samples))

    def _find_shared_paths(self, paths: Iterator[str], longer: bool) -> Iterator[str]:
        """Yield the paths that several samples would take, by their own names or, if `longer`, by longer ones."""
        for path in paths:
            entry = self._checked.get(path)
            if entry is None:
                continue
            try:
                _, tree_path = self._assign(path, entry)
            except (LeftOutError, RejectError):
                continue
            if longer:
                if not self._ledger.is_shared(tree_path):
                    continue
                tree_path = self._choose_unshared_path(path, tree_path)
            if self._ledger.claim(tree_path, path) != path:
                yield tree_path

    def _samples(self, paths: Iterator[str], left_out: LeftOut) -> Iterator[IndexEntry]:
        """Yield the samples with their paths in the tree. Record the others as rejected or left out."""
        for path in paths:
            entry = self._checked.get(path)
            try:
                label, tree_path = self._assign(path, entry)
                tree_path = self._choose_unshared_path(path, tree_path)
                if (first := self._ledger.claim(tree_path, path)) != path:
                    raise RejectError(f"would get the same path in the tree as {first!r}: {tree_path}")
                if entry is None:
                    raise RejectError(self._checked.reason(path) or "was not checked")
            except LeftOutError as why:
                left_out.add(path, str(why))
            except RejectError as fault:
                self._ledger.reject([(path, str(fault))])
            else:
                yield entry._replace(path=tree_path, label=label, source=path)

    def _choose_unshared_path(self, path: str, tree_path: str) -> str:
        """Return the sample's path, or its first longer path that no other sample would take."""
        if isinstance(self._recipe, LabelledShards) and self._ledger.is_shared(tree_path):
            folder = tree_path.rpartition("/")[0]
            candidates = [f"{folder}/{name}" for name in self._recipe.longer_names(path)]
            return next((path for path in candidates if not self._ledger.is_shared(path)), candidates[-1])
        return tree_path

    def _assign(self, path: str, entry: IndexEntry | None) -> tuple[int, str]:
        """Return label and path in the tree. Raises LeftOutError or RejectError."""
        sample = assign(self._recipe, path, self._is_image)
        if self._division and entry is None:
            raise RejectError(self._checked.reason(path) or "was not checked")
        split = self._division.split(entry.sha256) if self._division and entry else sample.split
        return sample.label, f"{split}/{self._folders[sample.label]}/{sample.name}"

    def _is_image(self, path: str) -> bool:
        return is_image_name(path) or self._checked.is_rejected(path) or path in self._checked


def may_be_sample(recipe: Recipe, path: str) -> bool:
    """Return whether an object may be a sample, so that it must be read."""
    try:
        assign(recipe, path, lambda path: is_image_name(path) or not is_never_image(path))
    except LeftOutError:
        return False
    except RejectError:
        return not is_image_name(path) and not is_never_image(path)
    return True


def list_rejects(ledger: SampleLedger, meta: Path, where: str, reporter: Reporter) -> int:
    """Write the list of rejects, if there are any, and return their number."""
    count, file = ledger.reject_count(), meta.parent / REJECTS
    file.unlink(missing_ok=True)
    if not count:
        return 0
    with file.open("w", encoding="utf-8") as lines:
        for number, (path, reason) in enumerate(ledger.rejects()):
            lines.write(json.dumps({"path": path, "reason": reason}, ensure_ascii=False) + "\n")
            if number < _SHOWN_REJECTS:
                reporter.event("reject", f"rejected {path!r}: {reason}", path=path, reason=reason)
    if count > _SHOWN_REJECTS:
        reporter.event("reject", f"and {count - _SHOWN_REJECTS:,} more: see {where}/{REJECTS}")
    return count


def require_few_rejects(ledger: SampleLedger, count: int, max_rejects: int, where: str) -> None:
    """Raise RejectedSamplesError if there are too many rejects, InputError if there are no samples."""
    if count > max_rejects:
        none = "not one image is a sample; " if len(ledger) == 0 else ""
        raise RejectedSamplesError(
            f"{none}rejected samples: {count:,}, and LARDER_MAX_REJECTS allows {max_rejects:,}; "
            f"all are listed in {where}/{REJECTS}",
            next_step=f"fix the source, then run {CREATED_BY['index']} again; or leave them out with "
            f"LARDER_MAX_REJECTS={count}",
        )
    if len(ledger) == 0:
        raise InputError("no object of the source is a sample", next_step="check LARDER_SOURCE and LARDER_RECIPE")
