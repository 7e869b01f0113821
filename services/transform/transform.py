"""Turn the extracted files into the training-ready tree: assign, check, hash, link, and leave a manifest."""

from __future__ import annotations

import errno
import functools
import hashlib
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from larder.artifacts import name_in, on_volume, require_dataset
from larder.batches import batches
from larder.contract import (
    IndexEntry,
    Manifest,
    SplitSummary,
    find_manifest,
    first_missing,
    read_index,
    read_manifest,
    read_run,
)  # fmt: skip
from larder.engines.local import LocalEngine
from larder.errors import TREE_ANEW, InputError, RejectedSamplesError, StorageError
from larder.ledger import Ledger
from larder.next_step import MAKES, Run
from larder.progress import Reporter, amount
from larder.stage import Clock, Outcome
from larder.volume import RAW, Slot, remove_tree, swap_in
from services.transform import recipes
from services.transform.recipes import Files, Recipe, RejectError
from services.transform.settings import TransformSettings, Verify
from services.transform.verify import check_image, check_name

REJECTS = "rejects"
NEXT_STEP = str(Run("bench").having(LARDER_ARM="imagefolder_local"))

_BATCH_FILES = 64
_SHOWN_REJECTS = 20


class Job(NamedTuple):
    """A file and its place in the tree."""

    source: IndexEntry
    path: str
    label: int


class Outside:
    """The files that a recipe leaves out, since they are no part of the data set."""

    def __init__(self) -> None:
        self.files, self.first = 0, ""

    def add(self, path: str) -> None:
        """Count a file, and remember the first."""
        self.files, self.first = self.files + 1, self.first or path


class Reject(NamedTuple):
    """A file that isn't fit to be a sample."""

    path: str
    reason: str


def transform(settings: TransformSettings, reporter: Reporter) -> Outcome:
    """Run the stage. Returns at once when the tree is made from the same files in the same way already."""
    clock = Clock()
    raw = settings.volume / RAW
    manifest = read_manifest(raw, made_by=MAKES["raw"])
    require_dataset(settings.dataset, manifest, str(raw))
    name = settings.dataset or name_in(manifest, RAW)
    slot = Slot(settings.volume, on_volume(settings.volume, "tree", name, reporter))
    wanted: dict[str, str | int] = {"recipe": settings.recipe, "verify": settings.verify}
    if settings.recipe == "csv":
        wanted["csv"] = settings.csv
    if settings.recipe == "metadata" and settings.label_column:
        wanted["label_column"] = settings.label_column
    slot.recover()
    if not settings.force and (tree := _up_to_date(slot, manifest, wanted, settings.max_rejects, reporter)) is not None:
        _drop_stale_rejects(slot)
        return Outcome(f"up to date: {_size(tree)}", NEXT_STEP, {"up_to_date": True})
    with slot.lock(), Ledger(slot.ledger_path, json.dumps([manifest.digest(), wanted])) as ledger:
        if slot.resume(ledger) and len(ledger):
            reporter.event("resume", f"continuing an earlier run, which has done {amount(len(ledger), 'images')}")
        recipe = _open_recipe(settings, raw, manifest, slot)
        _build(settings, raw, manifest, slot, ledger, recipe, reporter)
        rejected = _set_rejects_aside(raw, slot, ledger, settings.max_rejects, reporter)
        reporter.event("commit", "writing the index, flushing to disk")
        tree = _commit(slot, ledger, manifest, recipe.classes, wanted, clock, rejected)
    _drop_stale_rejects(slot)
    rate = tree.files / max(clock.seconds, 1e-9)
    aside = f", {rejected:,} rejected (see {settings.volume / REJECTS})" if rejected else ""
    return Outcome(
        f"{_size(tree)}{aside} in {clock.seconds:.1f} s ({rate:,.0f} images/s)", NEXT_STEP,
        {"images": tree.files, "rejects": rejected, "seconds": round(clock.seconds, 3)},
    )  # fmt: skip


def _up_to_date(
    slot: Slot, raw: Manifest, wanted: dict[str, str | int], max_rejects: int, reporter: Reporter
) -> Manifest | None:
    """The tree's manifest when it was made from `raw` as wanted, within the limit, and all its files are in place."""
    tree = find_manifest(slot.folder)
    if tree is None or tree.input.get("manifest") != raw.digest() or tree.settings != wanted:
        return None
    if read_run(slot.folder).get("rejects", 0) > max_rejects:
        return None
    if (gone := first_missing(slot.folder, tree)) is not None:
        reporter.event("repair", f"{slot.folder / gone} is missing or has changed: making the tree again")
        return None
    return tree


def _open_recipe(settings: TransformSettings, raw: Path, manifest: Manifest, slot: Slot) -> Recipe:
    def paths() -> Iterator[str]:
        return (entry.path for entry in read_index(raw, manifest))

    def require_intact(path: str) -> None:
        listed = next((entry for entry in read_index(raw, manifest) if entry.path == path), None)
        if listed is None or hashlib.sha256((raw / path).read_bytes()).hexdigest() != listed.sha256:
            raise _changed(str(raw / path), "has changed")

    return recipes.load(
        settings.recipe, Files(raw, paths, require_intact, slot.work, settings.csv, settings.label_column)
    )


def _build(
    settings: TransformSettings, raw: Path, manifest: Manifest, slot: Slot, ledger: Ledger, recipe: Recipe,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Put every sample into the tree and the ledger, and every reject into the ledger."""
    width = max(2, len(str(len(recipe.classes) - 1)))  # sorted names must be sorted numbers
    outside = Outside()
    done = len(ledger) + ledger.reject_count()
    jobs = _jobs(read_index(raw, manifest), recipe, ledger, width, outside)
    if done:
        jobs = (job for job in jobs if job.path not in ledger and not ledger.is_rejected(job.source.path))
    check = functools.partial(_check_batch, raw, slot.staged, settings.verify)
    with (
        reporter.task("check", manifest.files, "images", done=done) as task,
        LocalEngine(settings.workers, settings.workers_after)(check, batches(jobs, _BATCH_FILES)) as results,
    ):
        for entries, rejects in results:
            ledger.add(entries)
            ledger.reject(rejects)
            task.advance(len(entries) + len(rejects))
    ledger.reject(recipe.absent())
    if outside.files:
        reporter.event(
            "outside", f"files that the recipe leaves out: {outside.files:,}, such as {outside.first!r}",
            files=outside.files,
        )  # fmt: skip


def _jobs(entries: Iterator[IndexEntry], recipe: Recipe, ledger: Ledger, width: int, outside: Outside) -> Iterator[Job]:
    """The files to check, each with its place; those without one are rejected on the way."""
    for entry in entries:
        try:
            sample = recipe.assign(entry.path)
            if sample is None:
                outside.add(entry.path)
                continue
            check_name(sample.name)
            path = f"{sample.split}/class_{sample.label:0{width}d}/{sample.name}"
            if (first := ledger.claim(path, entry.path)) != entry.path:
                raise RejectError(f"would take the same place as {first!r}: {path}")
        except RejectError as fault:
            ledger.reject([(entry.path, str(fault))])
            continue
        yield Job(entry, path, sample.label)


def _check_batch(raw: Path, tree: Path, verify: Verify, jobs: Sequence[Job]) -> tuple[list[IndexEntry], list[Reject]]:
    entries: list[IndexEntry] = []
    rejects: list[Reject] = []
    for job in jobs:
        try:
            entries.append(_place(raw, tree, verify, job))
        except RejectError as fault:
            rejects.append(Reject(job.source.path, str(fault)))
    return entries, rejects


def _place(raw: Path, tree: Path, verify: Verify, job: Job) -> IndexEntry:
    """Read a file once: check that it is what extract left, look at the image, and link it into the tree."""
    source = os.path.join(raw, job.source.path)
    try:
        with open(source, "rb", buffering=0) as file:
            data = file.readall()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _changed(source, "is gone") from None
    if hashlib.sha256(data).hexdigest() != job.source.sha256:
        raise _changed(source, "has changed")
    size = check_image(data, verify)
    _link(source, os.path.join(tree, job.path))
    width, height = size or (None, None)
    return IndexEntry(job.path, len(data), job.source.sha256, job.label, width, height, job.source.path)


def _changed(path: str, how: str) -> InputError:
    return InputError(f"{path} {how} since it was extracted", next_step=f"{TREE_ANEW}, which extracts it again")


def _link(source: str, place: str) -> None:
    """Give the file its name in the tree, without a copy."""
    try:
        try:
            os.link(source, place)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            os.link(source, place)
    except FileExistsError:  # an earlier run was stopped before it could note it, or the file system folds case
        if not os.path.samefile(source, place):
            raise RejectError(f"takes the same place as another file on this file system: {place}") from None
    except OSError as fault:
        if fault.errno in _NO_LINKS:
            raise StorageError(
                f"{source} can't be hard-linked ({os.strerror(fault.errno)}): its file system has no hard links, "
                "or the file belongs to another user",
                next_step="put the volume on ext4, xfs or btrfs, and run all stages as one user",
            ) from None
        raise


_NO_LINKS = {errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK, errno.EXDEV}


def _set_rejects_aside(raw: Path, slot: Slot, ledger: Ledger, max_rejects: int, reporter: Reporter) -> int:
    """Leave the rejected files and a list with the reasons in `rejects/`. Raises RejectedSamplesError beyond the limit.

    Returns their number.
    """
    folder, place, count = slot.work / REJECTS, slot.root / REJECTS, ledger.reject_count()
    if folder.exists():
        remove_tree(folder)
    if count == 0:
        return 0
    folder.mkdir()
    with (folder / "rejects.jsonl").open("w", encoding="utf-8") as file:
        for number, (path, reason) in enumerate(ledger.rejects()):
            file.write(json.dumps({"path": path, "reason": reason}, ensure_ascii=False) + "\n")
            if _is_inside(raw, path):
                with suppress(RejectError):  # two names for one place: the first one stands there
                    _link(str(raw / path), str(folder / "files" / path))
            if number < _SHOWN_REJECTS:
                reporter.event("reject", f"rejected {path!r}: {reason}", path=path, reason=reason)
    if count > _SHOWN_REJECTS:
        reporter.event("reject", f"and {count - _SHOWN_REJECTS:,} more: see {place}/rejects.jsonl")
    swap_in(folder, place)
    if count > max_rejects:
        raise RejectedSamplesError(
            f"rejected samples: {count:,}, and LARDER_MAX_REJECTS allows {max_rejects:,}; "
            f"all are listed in {place}/rejects.jsonl on the data volume, with the files beside it",
            next_step=f"fix the source, then run {Run('extract')} again; or leave them out with "
            f"LARDER_MAX_REJECTS={count}",
        )
    return count


def _drop_stale_rejects(slot: Slot) -> None:
    """Remove the rejects of an earlier tree when the present one has none."""
    place = slot.root / REJECTS
    if place.exists() and read_run(slot.folder).get("rejects") == 0:
        with suppress(StorageError, OSError), slot.lock():  # in use or read-only: some other time
            remove_tree(place)


def _is_inside(folder: Path, path: str) -> bool:
    """Whether there is a file at `path` below `folder`; a table may name anything, also places outside."""
    wanted = PurePosixPath(path)
    return not wanted.is_absolute() and ".." not in wanted.parts and os.path.isfile(folder / wanted)


def _commit(
    slot: Slot, ledger: Ledger, raw: Manifest, classes: list[str], wanted: dict[str, str | int], clock: Clock,
    rejected: int,
) -> Manifest:  # fmt: skip
    """Write index and manifest, and swap the tree in."""
    if len(ledger) == 0:
        raise InputError("no file of the source is a sample", next_step="check LARDER_SOURCE and LARDER_RECIPE")
    splits: dict[str, SplitSummary] = {}
    index = slot.write_index(_count(ledger.entries(), splits, len(classes)))
    manifest = Manifest(
        artifact="tree", dataset=raw.dataset, classes=classes, splits=splits, settings=wanted,
        input={"kind": "raw", "manifest": raw.digest()}, index=index,
        files=sum(split.samples for split in splits.values()), bytes=sum(split.bytes for split in splits.values()),
    )  # fmt: skip
    slot.commit(manifest, clock.record(rejects=rejected), ledger)
    return manifest


def _count(entries: Iterator[IndexEntry], splits: dict[str, SplitSummary], classes: int) -> Iterator[IndexEntry]:
    """Pass the entries on and sum them up in `splits`."""
    for name, group in itertools.groupby(entries, key=lambda entry: entry.path.partition("/")[0]):
        samples, total, per_class = 0, 0, [0] * classes
        for entry in group:
            samples, total = samples + 1, total + entry.bytes
            per_class[entry.label or 0] += 1
            yield entry
        splits[name] = SplitSummary(samples=samples, bytes=total, samples_per_class=per_class)


def _size(tree: Manifest) -> str:
    per_split = ", ".join(f"{name} {split.samples:,}" for name, split in sorted(tree.splits.items()))
    return f"{amount(tree.files, 'images')} in {amount(len(tree.classes), 'classes')} ({per_split})"
