"""The transform stage: assign, check, hash and link the extracted files into the tree, and write its manifest."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypedDict

from larder import __version__
from larder.artifacts import find_on_volume, require_dataset, require_dataset_name
from larder.batches import batches
from larder.contract import (
    IndexEntry,
    Manifest,
    SplitSummary,
    class_folder,
    find_manifest,
    find_missing_file,
    read_index,
    read_manifest,
    read_run,
)
from larder.engines.local import LocalEngine
from larder.errors import REMAKE_TREE, InputError, RejectedSamplesError, StorageError
from larder.ledger import Ledger
from larder.next_step import CREATED_BY, StageRun
from larder.progress import Reporter, format_amount
from larder.stage import Clock, StageOutcome
from larder.tree import recipes
from larder.tree.assign import assign, count_entries, make_division
from larder.tree.check import check_image
from larder.tree.file_names import image_format, is_image_name, litter_reason
from larder.tree.left_out import LeftOut
from larder.tree.recipes import AUTO, LeftOutError, Recipe, RecipeFiles, RejectError
from larder.tree.recipes.auto import RecognizedLayout, recognise_layout
from larder.tree.settings import Verify
from larder.tree.splits import Division, parse_split_names
from larder.tree.summary import shared_by_splits, with_table
from larder.volume import RAW, StagedArtifact, remove_tree, swap_in
from services.transform.settings import TransformSettings

REJECTS = "rejects"
NEXT_STEP = str(StageRun("bench").with_settings(LARDER_ARM="imagefolder_local"))

_BATCH_FILES = 64
_SHOWN_REJECTS = 20


class TransformRunRecord(TypedDict):
    """What transform adds to run.json."""

    rejects: int
    """Number of rejects."""
    asked: str
    """`LARDER_RECIPE`: the recipe that was asked for."""


class SampleJob(NamedTuple):
    """A file with its path and label in the tree."""

    source: IndexEntry
    path: str
    label: int


class Reject(NamedTuple):
    """A file that can't be a sample."""

    path: str
    reason: str


def transform(settings: TransformSettings, reporter: Reporter) -> StageOutcome:
    """Run the stage. Return at once if the tree was already made from the same files with the same settings."""
    clock = Clock()
    raw = settings.volume / RAW
    manifest = read_manifest(raw, made_by=CREATED_BY["raw"])
    require_dataset(settings.dataset, manifest, str(raw))
    name = settings.dataset or require_dataset_name(manifest, RAW)
    target = StagedArtifact(settings.volume, find_on_volume(settings.volume, "tree", name, reporter))
    target.recover()
    files = _make_recipe_files(settings, raw, manifest, target)
    choice = _find_recipe(settings, manifest, target, files)
    tree_settings = _tree_settings(settings, choice.name)
    if (
        not settings.force
        and (tree := _up_to_date(target, manifest, tree_settings, settings.max_rejects, reporter)) is not None
    ):
        _drop_stale_rejects(target)
        return StageOutcome(with_table(f"up to date: {_describe_size(tree)}", tree), NEXT_STEP, {"up_to_date": True})
    with target.lock(), Ledger(target.ledger_path, json.dumps([manifest.digest(), tree_settings])) as ledger:
        if target.resume(ledger) and len(ledger):
            reporter.event(
                "resume", f"continuing an earlier run, which has done {format_amount(len(ledger), 'images')}"
            )
        if choice.why:
            reporter.event("recipe", f"recognised: {choice.why}: LARDER_RECIPE={choice.name}", recipe=choice.name)
        recipe = recipes.open_recipe(choice.name, files)
        _build(settings, raw, manifest, target, ledger, recipe, reporter)
        rejected = _write_rejects(raw, target, ledger, settings.max_rejects, reporter)
        reporter.event("commit", "writing the index, flushing to disk")
        record = clock.record(**TransformRunRecord(rejects=rejected, asked=settings.recipe))
        tree, shared = _commit(target, ledger, manifest, recipe.classes, tree_settings, record)
    _drop_stale_rejects(target)
    rate = tree.files / max(clock.seconds, 1e-9)
    rejects = f", {rejected:,} rejected (see {settings.volume / REJECTS})" if rejected else ""
    return StageOutcome(
        with_table(f"{_describe_size(tree)}{rejects} in {clock.seconds:.1f} s ({rate:,.0f} images/s)", tree, shared),
        NEXT_STEP,
        {"images": tree.files, "rejects": rejected, "seconds": round(clock.seconds, 3)},
    )


def _tree_settings(settings: TransformSettings, recipe: str) -> dict[str, str | int]:
    """Return the settings that shape the tree, without defaults, so that manifests of older releases still match."""
    tree_settings: dict[str, str | int] = {"recipe": recipe, "verify": settings.verify}
    if recipe == "csv":
        tree_settings["csv"] = settings.csv
    if recipe in ("csv", "metadata") and settings.label_column:
        tree_settings["label_column"] = settings.label_column
    return tree_settings | settings.shaping_splits


def _find_recipe(
    settings: TransformSettings, raw: Manifest, target: StagedArtifact, files: RecipeFiles
) -> RecognizedLayout:
    """Return the recipe that is set or fits the files. Raises InputError if none fits."""
    if settings.recipe != AUTO:
        return RecognizedLayout(settings.recipe, "")
    if not settings.force and not settings.csv and (tree := find_manifest(target.folder)) is not None:
        known, record = str(tree.settings.get("recipe")), read_run(target.folder)
        same = tree.input.get("manifest") == raw.digest() and tree.settings == _tree_settings(settings, known)
        if same and (record.get("asked"), record.get("larder")) == (AUTO, __version__):
            return RecognizedLayout(known, "as before")  # saves scanning all names again
    return recognise_layout(files)


def _up_to_date(
    target: StagedArtifact, raw: Manifest, tree_settings: dict[str, str | int], max_rejects: int, reporter: Reporter
) -> Manifest | None:
    """Return the tree's manifest if it matches `raw`, the settings and the limit, and no file is missing, else None."""
    tree = find_manifest(target.folder)
    if tree is None or tree.input.get("manifest") != raw.digest() or tree.settings != tree_settings:
        return None
    if read_run(target.folder).get("rejects", 0) > max_rejects:
        return None
    missing = find_missing_file(target.folder, tree)
    missing = missing or next(
        (path for path in tree.empty_class_folders() if not (target.folder / path).is_dir()), None
    )
    if missing is not None:
        reporter.event("repair", f"{target.folder / missing} is missing or has changed: making the tree again")
        return None
    return tree


def _make_recipe_files(
    settings: TransformSettings, raw: Path, manifest: Manifest, target: StagedArtifact
) -> RecipeFiles:
    def paths() -> Iterator[str]:
        return (entry.path for entry in read_index(raw, manifest))

    def require_intact(path: str) -> None:
        listed = next((entry for entry in read_index(raw, manifest) if entry.path == path), None)
        if listed is None or hashlib.sha256((raw / path).read_bytes()).hexdigest() != listed.sha256:
            raise _changed_error(str(raw / path), "has changed")

    def read_all(ending: str, max_bytes: int) -> Iterator[tuple[str, bytes]]:
        for entry in read_index(raw, manifest):
            if not entry.path.endswith(ending) or litter_reason(entry.path) is not None:
                continue
            if entry.bytes > max_bytes:
                raise InputError(
                    f"{entry.path} has {entry.bytes:,} bytes, and at most {max_bytes:,} are expected",
                    next_step="correct it in the source, then extract again; or choose another recipe (LARDER_RECIPE)",
                )
            content = _read(raw / entry.path, max_bytes)
            if hashlib.sha256(content).hexdigest() != entry.sha256:
                raise _changed_error(str(raw / entry.path), "has changed")
            yield entry.path, content

    split_names = parse_split_names(settings.splits)
    return RecipeFiles(
        raw, paths, require_intact, target.work, settings.csv, split_names, settings.label_column, read_all=read_all
    )


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max_bytes)
    except FileNotFoundError:
        raise _changed_error(str(path), "is gone") from None


def _build(
    settings: TransformSettings,
    raw: Path,
    manifest: Manifest,
    target: StagedArtifact,
    ledger: Ledger,
    recipe: Recipe,
    reporter: Reporter,
) -> None:
    """Link samples into the tree, and record samples and rejects in the ledger."""
    division = make_division(settings, recipe)
    done = len(ledger) + ledger.reject_count()
    check = functools.partial(_check_batch, raw, target.staged, settings.verify)
    with LeftOut(target.meta_folder) as left_out:
        jobs = _list_jobs(raw, read_index(raw, manifest), recipe, division, ledger, left_out)
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
    ledger.reject(recipe.missing_files())
    left_out.report(reporter)


def _list_jobs(
    raw: Path,
    entries: Iterator[IndexEntry],
    recipe: Recipe,
    division: Division | None,
    ledger: Ledger,
    left_out: LeftOut,
) -> Iterator[SampleJob]:
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
        yield SampleJob(entry, path, sample.label)


def _is_image(raw: Path, path: str) -> bool:
    """Return whether a file is an image, by its name or else by its first bytes."""
    if is_image_name(path):
        return True
    try:
        return image_format(raw / path) is not None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _changed_error(str(raw / path), "is gone") from None


def _check_batch(
    raw: Path, tree: Path, verify: Verify, jobs: Sequence[SampleJob]
) -> tuple[list[IndexEntry], list[Reject]]:
    entries: list[IndexEntry] = []
    rejects: list[Reject] = []
    for job in jobs:
        try:
            entries.append(_check_and_link(raw, tree, verify, job))
        except RejectError as fault:
            rejects.append(Reject(job.source.path, str(fault)))
    return entries, rejects


def _check_and_link(raw: Path, tree: Path, verify: Verify, job: SampleJob) -> IndexEntry:
    """Read a file once, check its sha256 and the image, and link it into the tree."""
    source = os.path.join(raw, job.source.path)
    try:
        with open(source, "rb", buffering=0) as file:
            data = file.readall()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _changed_error(source, "is gone") from None
    if hashlib.sha256(data).hexdigest() != job.source.sha256:
        raise _changed_error(source, "has changed")
    size = check_image(data, verify)
    _link(source, os.path.join(tree, job.path))
    width, height = size or (None, None)
    return IndexEntry(job.path, len(data), job.source.sha256, job.label, width, height, job.source.path)


def _changed_error(path: str, how: str) -> InputError:
    return InputError(f"{path} {how} since it was extracted", next_step=f"{REMAKE_TREE}, which extracts it again")


def _link(source: str, link: str) -> None:
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


_NO_HARD_LINK_ERRORS = {errno.EOPNOTSUPP, errno.EPERM, errno.EMLINK, errno.EXDEV}


def _write_rejects(raw: Path, target: StagedArtifact, ledger: Ledger, max_rejects: int, reporter: Reporter) -> int:
    """Write rejected files and a list of reasons to `rejects/`, and return their number.

    Raises RejectedSamplesError if there are more than the limit.
    """
    folder, rejects_folder, count = target.work / REJECTS, target.root / REJECTS, ledger.reject_count()
    if folder.exists():
        remove_tree(folder)
    if count == 0:
        return 0
    folder.mkdir()
    with (folder / "rejects.jsonl").open("w", encoding="utf-8") as file:
        for number, (path, reason) in enumerate(ledger.rejects()):
            file.write(json.dumps({"path": path, "reason": reason}, ensure_ascii=False) + "\n")
            if _is_inside(raw, path):
                with suppress(RejectError):  # two paths for one file: keep the first
                    _link(str(raw / path), str(folder / "files" / path))
            if number < _SHOWN_REJECTS:
                reporter.event("reject", f"rejected {path!r}: {reason}", path=path, reason=reason)
    if count > _SHOWN_REJECTS:
        reporter.event("reject", f"and {count - _SHOWN_REJECTS:,} more: see {rejects_folder}/rejects.jsonl")
    swap_in(folder, rejects_folder)
    if count > max_rejects and len(ledger) == 0:
        raise RejectedSamplesError(
            f"not one file of the source is a sample, and {count:,} are rejected, for the reasons in "
            f"{rejects_folder}/rejects.jsonl on the data volume",
            next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE (auto finds the one that fits)",
        )
    if count > max_rejects:
        raise RejectedSamplesError(
            f"rejected samples: {count:,}, and LARDER_MAX_REJECTS allows {max_rejects:,}; "
            f"all are listed in {rejects_folder}/rejects.jsonl on the data volume, with the files beside it",
            next_step=f"fix the source, then run {StageRun('extract')} again; or leave them out with "
            f"LARDER_MAX_REJECTS={count}",
        )
    return count


def _drop_stale_rejects(target: StagedArtifact) -> None:
    """Remove the rejects of an earlier tree if the current one has none."""
    rejects_folder = target.root / REJECTS
    if rejects_folder.exists() and read_run(target.folder).get("rejects") == 0:
        with suppress(StorageError, OSError), target.lock():  # in use or read-only: try again in a later run
            remove_tree(rejects_folder)


def _is_inside(folder: Path, path: str) -> bool:
    """Return whether `path` is a file below `folder`. Tables may name any path, even outside."""
    relative = PurePosixPath(path)
    return not relative.is_absolute() and ".." not in relative.parts and os.path.isfile(folder / relative)


def _commit(
    target: StagedArtifact,
    ledger: Ledger,
    raw: Manifest,
    classes: list[str],
    tree_settings: dict[str, str | int],
    record: dict[str, Any],
) -> tuple[Manifest, str]:
    """Commit the tree. Return its manifest, and a line on images that several splits share."""
    if len(ledger) == 0:
        raise InputError("no file of the source is a sample", next_step="check LARDER_SOURCE and LARDER_RECIPE")
    splits: dict[str, SplitSummary] = {}
    index = target.write_index(count_entries(ledger.entries(), splits, len(classes)))
    manifest = Manifest(
        artifact="tree",
        dataset=raw.dataset,
        classes=classes,
        splits=splits,
        settings=tree_settings,
        input={"kind": "raw", "manifest": raw.digest()},
        index=index,
        files=sum(split.samples for split in splits.values()),
        bytes=sum(split.bytes for split in splits.values()),
    )
    for path in manifest.empty_class_folders():
        (target.staged / path).mkdir(parents=True, exist_ok=True)
    shared = shared_by_splits(manifest, ledger)
    target.commit(manifest, record, ledger)
    return manifest, shared


def _describe_size(tree: Manifest) -> str:
    per_split = ", ".join(f"{name} {split.samples:,}" for name, split in sorted(tree.splits.items()))
    return f"{format_amount(tree.files, 'images')} in {format_amount(len(tree.classes), 'classes')} ({per_split})"
