"""Turn the extracted files into the training-ready tree: assign, check, hash, link, and leave a manifest."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from larder import __version__
from larder.artifacts import name_in, on_volume, require_dataset
from larder.batches import batches
from larder.contract import (
    IndexEntry,
    Manifest,
    SplitSummary,
    class_folder,
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
from larder.tree import recipes
from larder.tree.assign import assign, counted, division_of
from larder.tree.check import check_image
from larder.tree.left_out import LeftOut
from larder.tree.names import image_format, is_image_name, litter
from larder.tree.recipes import AUTO, Files, LeftOutError, Recipe, RejectError  # fmt: skip
from larder.tree.recipes.auto import Recognised, recognise_layout
from larder.tree.settings import Verify
from larder.tree.splits import Division, parse_split_names
from larder.tree.summary import with_table
from larder.volume import RAW, Slot, remove_tree, swap_in
from services.transform.settings import TransformSettings

REJECTS = "rejects"
NEXT_STEP = str(Run("bench").having(LARDER_ARM="imagefolder_local"))

_BATCH_FILES = 64
_SHOWN_REJECTS = 20


class Job(NamedTuple):
    """A file and its place in the tree."""

    source: IndexEntry
    path: str
    label: int


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
    slot.recover()
    files = _files(settings, raw, manifest, slot)
    found = _find_recipe(settings, manifest, slot, files)
    wanted = _wanted(settings, found.name)
    if not settings.force and (tree := _up_to_date(slot, manifest, wanted, settings.max_rejects, reporter)) is not None:
        _drop_stale_rejects(slot)
        return Outcome(with_table(f"up to date: {_size(tree)}", tree), NEXT_STEP, {"up_to_date": True})
    with slot.lock(), Ledger(slot.ledger_path, json.dumps([manifest.digest(), wanted])) as ledger:
        if slot.resume(ledger) and len(ledger):
            reporter.event("resume", f"continuing an earlier run, which has done {amount(len(ledger), 'images')}")
        if found.why:
            reporter.event("recipe", f"recognised: {found.why}: LARDER_RECIPE={found.name}", recipe=found.name)
        recipe = recipes.load(found.name, files)
        _build(settings, raw, manifest, slot, ledger, recipe, reporter)
        rejected = _set_rejects_aside(raw, slot, ledger, settings.max_rejects, reporter)
        reporter.event("commit", "writing the index, flushing to disk")
        record = clock.record(rejects=rejected, asked=settings.recipe)
        tree = _commit(slot, ledger, manifest, recipe.classes, wanted, record)
    _drop_stale_rejects(slot)
    rate = tree.files / max(clock.seconds, 1e-9)
    aside = f", {rejected:,} rejected (see {settings.volume / REJECTS})" if rejected else ""
    return Outcome(
        with_table(f"{_size(tree)}{aside} in {clock.seconds:.1f} s ({rate:,.0f} images/s)", tree), NEXT_STEP,
        {"images": tree.files, "rejects": rejected, "seconds": round(clock.seconds, 3)},
    )  # fmt: skip


def _wanted(settings: TransformSettings, recipe: str) -> dict[str, str | int]:
    """The settings that shape the tree. Those that are left at their defaults are absent, as they were before them."""
    wanted: dict[str, str | int] = {"recipe": recipe, "verify": settings.verify}
    if recipe == "csv":
        wanted["csv"] = settings.csv
    if recipe == "metadata" and settings.label_column:
        wanted["label_column"] = settings.label_column
    return wanted | settings.shaping_splits


def _find_recipe(settings: TransformSettings, raw: Manifest, slot: Slot, files: Files) -> Recognised:
    """The recipe that is set, or that fits the files. Raises InputError when none does."""
    if settings.recipe != AUTO:
        return Recognised(settings.recipe, "")
    if not settings.force and not settings.csv and (tree := find_manifest(slot.folder)) is not None:
        known, record = str(tree.settings.get("recipe")), read_run(slot.folder)
        same = tree.input.get("manifest") == raw.digest() and tree.settings == _wanted(settings, known)
        if same and (record.get("asked"), record.get("larder")) == (AUTO, __version__):
            return Recognised(known, "as before")  # which spares looking at all names once more
    return recognise_layout(files)


def _up_to_date(
    slot: Slot, raw: Manifest, wanted: dict[str, str | int], max_rejects: int, reporter: Reporter
) -> Manifest | None:
    """The tree's manifest when it was made from `raw` as wanted, within the limit, and all its files are in place."""
    tree = find_manifest(slot.folder)
    if tree is None or tree.input.get("manifest") != raw.digest() or tree.settings != wanted:
        return None
    if read_run(slot.folder).get("rejects", 0) > max_rejects:
        return None
    gone = first_missing(slot.folder, tree)
    gone = gone or next((path for path in tree.empty_class_folders() if not (slot.folder / path).is_dir()), None)
    if gone is not None:
        reporter.event("repair", f"{slot.folder / gone} is missing or has changed: making the tree again")
        return None
    return tree


def _files(settings: TransformSettings, raw: Path, manifest: Manifest, slot: Slot) -> Files:
    def paths() -> Iterator[str]:
        return (entry.path for entry in read_index(raw, manifest))

    def require_intact(path: str) -> None:
        listed = next((entry for entry in read_index(raw, manifest) if entry.path == path), None)
        if listed is None or hashlib.sha256((raw / path).read_bytes()).hexdigest() != listed.sha256:
            raise _changed(str(raw / path), "has changed")

    def read_all(ending: str, most: int) -> Iterator[tuple[str, bytes]]:
        for entry in read_index(raw, manifest):
            if not entry.path.endswith(ending) or litter(entry.path) is not None:
                continue
            if entry.bytes > most:
                raise InputError(
                    f"{entry.path} has {entry.bytes:,} bytes, and at most {most:,} are expected",
                    next_step="correct it in the source, then extract again; or choose another recipe (LARDER_RECIPE)",
                )
            content = _read(raw / entry.path, most)
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise _changed(str(raw / entry.path), "has changed")
            yield entry.path, content

    split_names = parse_split_names(settings.splits)
    return Files(
        raw, paths, require_intact, slot.work, settings.csv, split_names, settings.label_column, read_all=read_all
    )


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except FileNotFoundError:
        raise _changed(str(path), "is gone") from None


def _build(
    settings: TransformSettings, raw: Path, manifest: Manifest, slot: Slot, ledger: Ledger, recipe: Recipe,
    reporter: Reporter,
) -> None:  # fmt: skip
    """Put every sample into the tree and the ledger, and every reject into the ledger."""
    division = division_of(settings, recipe)
    done = len(ledger) + ledger.reject_count()
    check = functools.partial(_check_batch, raw, slot.staged, settings.verify)
    with LeftOut(slot.meta) as left_out:
        jobs = _jobs(raw, read_index(raw, manifest), recipe, division, ledger, left_out)
        if done:
            jobs = (job for job in jobs if job.path not in ledger and not ledger.is_rejected(job.source.path))
        with (
            reporter.task("check", manifest.files, "images", done=done) as task,
            LocalEngine(settings.workers, settings.workers_after)(check, batches(jobs, _BATCH_FILES)) as results,
        ):
            for entries, rejects in results:
                ledger.add(entries)
                ledger.reject(rejects)
                task.advance(len(entries) + len(rejects))
    ledger.reject(recipe.absent())
    left_out.report(reporter)


def _jobs(
    raw: Path, entries: Iterator[IndexEntry], recipe: Recipe, division: Division | None, ledger: Ledger,
    left_out: LeftOut,
) -> Iterator[Job]:  # fmt: skip
    """The files to check, each with its place; those without one are rejected, or noted as left out, on the way."""
    folders = [class_folder(label, len(recipe.classes)) for label in range(len(recipe.classes))]
    is_image = functools.partial(_is_image, raw)
    for entry in entries:
        try:
            sample = assign(recipe, entry.path, is_image)
            split = division.split(entry.sha256) if division else sample.split
            path = f"{split}/{folders[sample.label]}/{sample.name}"
            if (first := ledger.claim(path, entry.path)) != entry.path:
                raise RejectError(f"would take the same place as {first!r}: {path}")
        except LeftOutError as why:
            left_out.add(entry.path, str(why))
            continue
        except RejectError as fault:
            ledger.reject([(entry.path, str(fault))])
            continue
        yield Job(entry, path, sample.label)


def _is_image(raw: Path, path: str) -> bool:
    """Whether a file is an image by its name or, where that says nothing, by how it begins."""
    if is_image_name(path):
        return True
    try:
        return image_format(raw / path) is not None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _changed(str(raw / path), "is gone") from None


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
    if count > max_rejects and len(ledger) == 0:
        raise RejectedSamplesError(
            f"not one file of the source is a sample, and {count:,} are rejected, for the reasons in "
            f"{place}/rejects.jsonl on the data volume",
            next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE (auto finds the one that fits)",
        )
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
    slot: Slot, ledger: Ledger, raw: Manifest, classes: list[str], wanted: dict[str, str | int], record: dict[str, Any]
) -> Manifest:
    """Write index and manifest, and swap the tree in."""
    if len(ledger) == 0:
        raise InputError("no file of the source is a sample", next_step="check LARDER_SOURCE and LARDER_RECIPE")
    splits: dict[str, SplitSummary] = {}
    index = slot.write_index(counted(ledger.entries(), splits, len(classes)))
    manifest = Manifest(
        artifact="tree", dataset=raw.dataset, classes=classes, splits=splits, settings=wanted,
        input={"kind": "raw", "manifest": raw.digest()}, index=index,
        files=sum(split.samples for split in splits.values()), bytes=sum(split.bytes for split in splits.values()),
    )  # fmt: skip
    for path in manifest.empty_class_folders():
        (slot.staged / path).mkdir(parents=True, exist_ok=True)
    slot.commit(manifest, record, ledger)
    return manifest


def _size(tree: Manifest) -> str:
    per_split = ", ".join(f"{name} {split.samples:,}" for name, split in sorted(tree.splits.items()))
    return f"{amount(tree.files, 'images')} in {amount(len(tree.classes), 'classes')} ({per_split})"
