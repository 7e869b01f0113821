"""The index stage: list a source in a store, check and hash its images, assign them, and write a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NotRequired, TypedDict

from larder import __version__
from larder.bucket import BucketPrefix
from larder.contract import Manifest, SplitSummary
from larder.dataset import DEFAULT, index_folder_of
from larder.errors import InputError
from larder.next_step import StageRun
from larder.progress import Reporter, format_amount
from larder.sources.archive_folders import ArchiveFolders
from larder.stage import Clock, StageOutcome
from larder.tree import recipes
from larder.tree.assign import count_entries, make_division
from larder.tree.left_out import LeftOut
from larder.tree.recipes import AUTO, Recipe, RecipeFiles, require_images
from larder.tree.recipes.auto import recognize_layout
from larder.tree.summary import shared_by_splits, with_table
from larder.volume import StagedArtifact
from services.index.check_ledger import CheckLedger, SampleLedger
from services.index.index_folder import REJECTS, IndexFolder
from services.index.labelled_shards import SHARDS_RECIPE, LabelledShards
from services.index.listing import ObjectListing
from services.index.sample_assigner import SampleAssigner, list_rejects, require_few_rejects
from services.index.sample_lists import SampleLists
from services.index.settings import IndexSettings
from services.index.source_checker import SourceChecker
from services.index.sources import find_shards_dataset, find_shards_manifest, list_sources


class IndexRunRecord(TypedDict):
    """What index adds to run.json."""

    rejects: int
    """Number of rejects."""
    asked: dict[str, Any]
    """Settings that change the index, as they were asked for."""
    source: list[str]
    """The sources, at most 100 of them."""
    manifest: NotRequired[str]
    """Digest of the manifest of the same run. It is added when the index is committed."""


def index(settings: IndexSettings, reporter: Reporter) -> StageOutcome:
    """Run the stage. Return at once if the store already holds the index of the same objects."""
    clock = Clock()
    dataset = settings.dataset or find_shards_dataset(settings) or DEFAULT
    name = index_folder_of(dataset)
    index_folder = IndexFolder(BucketPrefix(settings, name), settings.force)
    staged = StagedArtifact(settings.volume, name)
    old = index_folder.find()
    with staged.lock():
        listing = ObjectListing(staged.work / "listing.sqlite", settings.max_files)
        list_sources(settings, listing, reporter)
        run = _IndexRun(settings, reporter, listing, staged, index_folder, dataset)
        if old is not None and not settings.force and run.is_up_to_date(old):
            listing.remove()
            staged.discard()
            index_folder.delete_stale(old)
            return StageOutcome(
                with_table(f"up to date: {_describe_size(old)}", old),
                _next_step(settings, dataset),
                {"up_to_date": True},
            )
        manifest, rejected, shared = run.run(clock)
        listing.remove()
        staged.discard()
    rejects = f", {rejected:,} rejected (see {index_folder.uri}/{REJECTS})" if rejected else ""
    rate = manifest.files / max(clock.seconds, 1e-9)
    done = (
        f"{_describe_size(manifest)}{rejects} indexed in {index_folder.uri}, in {clock.seconds:.1f} s "
        f"({rate:,.0f} images/s)"
    )
    return StageOutcome(
        with_table(done, manifest, shared),
        _next_step(settings, dataset),
        {"images": manifest.files, "rejects": rejected, "seconds": round(clock.seconds, 3)},
    )


def _next_step(settings: IndexSettings, dataset: str) -> str:
    where = "/".join(part for part in ("s3:/", settings.bucket, settings.prefix) if part)
    packed = StageRun("shard").with_settings(
        LARDER_INPUT=f"{where}/{index_folder_of(dataset)}", LARDER_DEST=f"{where}/{dataset}-webdataset"
    )
    return str(packed)


class _IndexRun:
    """One run of the stage: the listing, the results, and the index's folder in the store."""

    def __init__(
        self,
        settings: IndexSettings,
        reporter: Reporter,
        listing: ObjectListing,
        staged: StagedArtifact,
        index_folder: IndexFolder,
        dataset: str,
    ) -> None:
        self._settings, self._reporter, self._listing, self._staged = settings, reporter, listing, staged
        self._index_folder, self._dataset, self._kind = index_folder, dataset, listing.kinds.kind
        self._lists = SampleLists(settings, listing, staged.work)
        self._manifest_input: dict[str, str | int] = {
            "kind": "objects" if self._kind == "files" else self._kind,
            "files": listing.files,
            "bytes": listing.bytes,
            "listing": listing.sha256,
        }
        check_settings: dict[str, str | int] = {"verify": settings.verify}
        if self._kind == "archives":
            check_settings["archive_folders"] = self._folders
        if self._kind == "parquet":
            columns = {"image_column": settings.image_column, "label_column": settings.label_column}
            check_settings |= {name: column for name, column in columns.items() if column}
        self._check_settings = check_settings
        self._requested_settings = {
            "recipe": settings.recipe,
            "csv": settings.csv,
            "label_column": settings.label_column,
            **check_settings,
            **settings.shaping_splits,
        }

    @property
    def _folders(self) -> ArchiveFolders:
        """LARDER_ARCHIVE_FOLDERS, but "none" for a single archive, whose files need no folder."""
        return "none" if self._listing.files == 1 else self._settings.archive_folders

    def is_up_to_date(self, old: Manifest) -> bool:
        """Return whether the current index covers the same objects with the same settings."""
        record = self._index_folder.read_record(old)
        same = (old.dataset, old.input, record.get("asked"), record.get("larder")) == (
            self._dataset,
            self._manifest_input,
            self._requested_settings,
            __version__,
        )
        rejects = record.get("rejects", 0)
        return (
            same
            and isinstance(rejects, int)
            and rejects <= self._settings.max_rejects
            and self._index_folder.is_complete(old)
        )

    def run(self, clock: Clock) -> tuple[Manifest, int, str]:
        """Check, assign and commit. Return the manifest, the number of rejects, and a line on shared images."""
        key = json.dumps([self._listing.sha256, self._check_settings])
        with CheckLedger(self._staged.ledger_path, key) as checked:
            if self._staged.resume(checked) and (done := len(checked)):
                self._reporter.event(
                    "resume", f"continuing an earlier run, which has done {format_amount(done, 'images')}"
                )
            self._staged.meta_folder.mkdir(parents=True, exist_ok=True)
            self._index_folder.require_writable()
            self._index_folder.drop_uploads(self._reporter)
            workers = SourceChecker(self._settings, self._reporter, self._listing, self._lists, checked)
            if self._kind == "parquet":
                name, recipe = workers.check_parquet()
                paths: Callable[[], Iterator[str]] = checked.paths
            elif self._kind == "archives":
                workers.check_archives(self._folders)
                name, recipe = self._choose_archives_recipe(checked)
                paths = checked.paths
            else:
                name, recipe = self._choose_recipe(
                    self._lists.make_recipe_files(self._listing.paths, self._lists.has_object)
                )
                workers.check_objects(recipe)
                paths = self._listing.paths
            return self._finish(checked, paths, name, recipe, clock)

    def _finish(
        self, checked: CheckLedger, paths: Callable[[], Iterator[str]], name: str, recipe: Recipe, clock: Clock
    ) -> tuple[Manifest, int, str]:
        with SampleLedger(self._staged.work / "places.sqlite", "") as assigned:
            assigned.clear()
            with LeftOut(self._staged.meta_folder) as left_out:
                assigner = SampleAssigner(checked, recipe, make_division(self._settings, recipe), assigned)
                assigner.assign_all(paths, left_out, self._reporter)
            left_out.report(self._reporter)
            assigned.reject(recipe.missing_files())
            rejected = list_rejects(assigned, self._staged.meta_folder, self._index_folder.uri, self._reporter)
            self._index_folder.upload_lists(self._staged.meta_folder)
            require_few_rejects(assigned, rejected, self._settings.max_rejects, self._index_folder.uri)
            self._reporter.event("commit", "writing the index")
            manifest = self._write(assigned, name, recipe)
            shared = shared_by_splits(manifest, assigned)
        asked, sources = self._requested_settings, self._settings.sources[:100]
        record = clock.record(**IndexRunRecord(rejects=rejected, asked=asked, source=sources))
        self._index_folder.commit(manifest, self._staged.meta_folder / "index.jsonl", record)
        return manifest, rejected, shared

    def _choose_archives_recipe(self, checked: CheckLedger) -> tuple[str, Recipe]:
        labelled = checked.labelled_count()
        if not labelled:
            return self._choose_recipe(self._lists.make_recipe_files(checked.paths, checked.is_checked))
        if labelled < len(checked) or self._settings.recipe != AUTO:
            raise InputError(
                f"{format_amount(labelled, 'images')} of {len(checked):,} have labels beside them, as in WebDataset"
                + ("" if labelled < len(checked) else f", and LARDER_RECIPE={self._settings.recipe} takes others"),
                next_step="index shards with labels and other archives separately, with LARDER_RECIPE=auto",
            )
        manifest = find_shards_manifest(self._settings)
        list_files = self._lists.make_recipe_files(self._listing.paths, self._lists.has_object)
        recipe = LabelledShards(checked, list_files, self._folders, manifest.classes if manifest is not None else [])
        self._reporter.event(
            "recipe", "recognized: WebDataset shards, with a label for each image", recipe=SHARDS_RECIPE
        )
        return SHARDS_RECIPE, recipe

    def _choose_recipe(self, files: RecipeFiles) -> tuple[str, Recipe]:
        """Return the recipe that is set or fits the files. Raises InputError if none fits."""
        require_images(files)
        name = self._settings.recipe
        if name == AUTO:
            name, why = recognize_layout(files)
            self._reporter.event("recipe", f"recognized: {why}: LARDER_RECIPE={name}", recipe=name)
        return name, recipes.open_recipe(name, files)

    def _write(self, assigned: SampleLedger, name: str, recipe: Recipe) -> Manifest:
        splits: dict[str, SplitSummary] = {}
        summary = self._staged.write_index(count_entries(assigned.entries(), splits, len(recipe.classes)))
        shaping: dict[str, str | int] = {"recipe": name, **self._check_settings, **self._settings.shaping_splits}
        return Manifest(
            artifact="index",
            dataset=self._dataset,
            classes=list(recipe.classes),
            splits=splits,
            input=self._manifest_input,
            settings=shaping,
            index=summary,
            files=sum(split.samples for split in splits.values()),
            bytes=sum(split.bytes for split in splits.values()),
        )


def _describe_size(manifest: Manifest) -> str:
    per_split = ", ".join(f"{name} {split.samples:,}" for name, split in sorted(manifest.splits.items()))
    return (
        f"{format_amount(manifest.files, 'images')} in {format_amount(len(manifest.classes), 'classes')} ({per_split})"
    )
