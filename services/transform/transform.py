"""The transform stage: assign, check, hash and link the extracted files into the tree, and write its manifest."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from larder import __version__
from larder.artifacts import find_on_volume, require_dataset, require_dataset_name
from larder.batches import batches
from larder.contract import (
    Manifest,
    SplitSummary,
    find_manifest,
    find_missing_file,
    read_index,
    read_manifest,
    read_run,
)
from larder.engines.local import LocalEngine
from larder.errors import InputError
from larder.ledger import Ledger
from larder.next_step import CREATED_BY, StageRun
from larder.progress import Reporter, format_amount
from larder.stage import Clock, StageOutcome
from larder.tree import recipes
from larder.tree.assign import count_entries, make_division
from larder.tree.file_names import litter_reason
from larder.tree.left_out import LeftOut
from larder.tree.recipes import AUTO, Recipe, RecipeFiles
from larder.tree.recipes.auto import RecognizedLayout, recognize_layout
from larder.tree.splits import parse_split_names
from larder.tree.summary import shared_by_splits, with_table
from larder.volume import RAW, StagedArtifact
from services.transform.rejects import REJECTS, drop_stale_rejects, write_rejects
from services.transform.samples import changed_error, check_batch, list_samples
from services.transform.settings import TransformSettings

NEXT_STEP = str(StageRun("bench").with_settings(LARDER_ARM="imagefolder_local"))

_BATCH_FILES = 64


class TransformRunRecord(TypedDict):
    """What transform adds to run.json."""

    rejects: int
    """Number of rejects."""
    asked: str
    """`LARDER_RECIPE`: the recipe that was asked for."""


class TransformJob(NamedTuple):
    """One run of the stage."""

    settings: TransformSettings
    raw: Path
    """Folder of the raw data."""
    manifest: Manifest
    """Manifest of the raw data."""
    target: StagedArtifact
    """The tree."""
    reporter: Reporter


def transform(settings: TransformSettings, reporter: Reporter) -> StageOutcome:
    """Run the stage. Return at once if the tree was already made from the same files with the same settings."""
    clock = Clock()
    raw = settings.volume / RAW
    manifest = read_manifest(raw, made_by=CREATED_BY["raw"])
    require_dataset(settings.dataset, manifest, str(raw))
    name = settings.dataset or require_dataset_name(manifest, RAW)
    target = StagedArtifact(settings.volume, find_on_volume(settings.volume, "tree", name, reporter))
    target.recover()
    job = TransformJob(settings, raw, manifest, target, reporter)
    files = _make_recipe_files(job)
    choice = _find_recipe(job, files)
    tree_settings = _tree_settings(settings, choice.name)
    if not settings.force and (tree := _up_to_date(job, tree_settings)) is not None:
        drop_stale_rejects(target)
        return StageOutcome(with_table(f"up to date: {_describe_size(tree)}", tree), NEXT_STEP, {"up_to_date": True})
    with target.lock(), Ledger(target.ledger_path, json.dumps([manifest.digest(), tree_settings])) as ledger:
        if target.resume(ledger) and len(ledger):
            reporter.event(
                "resume", f"continuing an earlier run, which has done {format_amount(len(ledger), 'images')}"
            )
        if choice.why:
            reporter.event("recipe", f"recognized: {choice.why}: LARDER_RECIPE={choice.name}", recipe=choice.name)
        recipe = recipes.open_recipe(choice.name, files)
        _build(job, recipe, ledger)
        rejected = write_rejects(raw, target, ledger, settings.max_rejects, reporter)
        reporter.event("commit", "writing the index, flushing to disk")
        record = clock.record(**TransformRunRecord(rejects=rejected, asked=settings.recipe))
        tree, shared = _commit(job, ledger, recipe.classes, tree_settings, record)
    drop_stale_rejects(target)
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


def _find_recipe(job: TransformJob, files: RecipeFiles) -> RecognizedLayout:
    """Return the recipe that is set or fits the files. Raises InputError if none fits."""
    settings, folder = job.settings, job.target.folder
    if settings.recipe != AUTO:
        return RecognizedLayout(settings.recipe, "")
    if not settings.force and not settings.csv and (tree := find_manifest(folder)) is not None:
        known, record = str(tree.settings.get("recipe")), read_run(folder)
        same = tree.input.get("manifest") == job.manifest.digest() and tree.settings == _tree_settings(settings, known)
        if same and (record.get("asked"), record.get("larder")) == (AUTO, __version__):
            return RecognizedLayout(known, "as before")  # saves scanning all names again
    return recognize_layout(files)


def _up_to_date(job: TransformJob, tree_settings: dict[str, str | int]) -> Manifest | None:
    """Return the tree's manifest if it matches the raw data and the settings, and no file is missing; else None."""
    folder = job.target.folder
    tree = find_manifest(folder)
    if tree is None or tree.input.get("manifest") != job.manifest.digest() or tree.settings != tree_settings:
        return None
    if read_run(folder).get("rejects", 0) > job.settings.max_rejects:
        return None
    missing = find_missing_file(folder, tree)
    missing = missing or next((path for path in tree.empty_class_folders() if not (folder / path).is_dir()), None)
    if missing is not None:
        job.reporter.event("repair", f"{folder / missing} is missing or has changed: making the tree again")
        return None
    return tree


def _make_recipe_files(job: TransformJob) -> RecipeFiles:
    settings, raw, manifest = job.settings, job.raw, job.manifest

    def paths() -> Iterator[str]:
        return (entry.path for entry in read_index(raw, manifest))

    def require_intact(path: str) -> None:
        listed = next((entry for entry in read_index(raw, manifest) if entry.path == path), None)
        if listed is None or hashlib.sha256((raw / path).read_bytes()).hexdigest() != listed.sha256:
            raise changed_error(str(raw / path), "has changed")

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
                raise changed_error(str(raw / entry.path), "has changed")
            yield entry.path, content

    split_names = parse_split_names(settings.splits)
    return RecipeFiles(
        raw, paths, require_intact, job.target.work, settings.csv, split_names, settings.label_column, read_all=read_all
    )


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(max_bytes)
    except FileNotFoundError:
        raise changed_error(str(path), "is gone") from None


def _build(job: TransformJob, recipe: Recipe, ledger: Ledger) -> None:
    """Link samples into the tree, and record samples and rejects in the ledger."""
    settings, raw, manifest = job.settings, job.raw, job.manifest
    division = make_division(settings, recipe)
    done = len(ledger) + ledger.reject_count()
    check = functools.partial(check_batch, raw, job.target.staged, settings.verify)
    with LeftOut(job.target.meta_folder) as left_out:
        samples = list_samples(raw, read_index(raw, manifest), recipe, division, ledger, left_out)
        if done:
            samples = (
                sample for sample in samples if sample.path not in ledger and not ledger.is_rejected(sample.source.path)
            )
        with (
            job.reporter.task("check", manifest.files, "images", done=done) as task,
            LocalEngine(settings.workers, settings.workers_after)(check, batches(samples, _BATCH_FILES)) as results,
        ):
            for entries, rejects in results:
                ledger.add(entries)
                ledger.reject(rejects)
                task.advance(len(entries) + len(rejects))
    ledger.reject(recipe.missing_files())
    left_out.report(job.reporter)


def _commit(
    job: TransformJob,
    ledger: Ledger,
    classes: list[str],
    tree_settings: dict[str, str | int],
    record: dict[str, Any],
) -> tuple[Manifest, str]:
    """Commit the tree. Return its manifest, and a line on images that several splits share."""
    if len(ledger) == 0:
        raise InputError("no file of the source is a sample", next_step="check LARDER_SOURCE and LARDER_RECIPE")
    splits: dict[str, SplitSummary] = {}
    index = job.target.write_index(count_entries(ledger.entries(), splits, len(classes)))
    manifest = Manifest(
        artifact="tree",
        dataset=job.manifest.dataset,
        classes=classes,
        splits=splits,
        settings=tree_settings,
        input={"kind": "raw", "manifest": job.manifest.digest()},
        index=index,
        files=sum(split.samples for split in splits.values()),
        bytes=sum(split.bytes for split in splits.values()),
    )
    for path in manifest.empty_class_folders():
        (job.target.staged / path).mkdir(parents=True, exist_ok=True)
    shared = shared_by_splits(manifest, ledger)
    job.target.commit(manifest, record, ledger)
    return manifest, shared


def _describe_size(tree: Manifest) -> str:
    per_split = ", ".join(f"{name} {split.samples:,}" for name, split in sorted(tree.splits.items()))
    return f"{format_amount(tree.files, 'images')} in {format_amount(len(tree.classes), 'classes')} ({per_split})"
