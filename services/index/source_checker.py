"""Check a whole source with workers, and record the results."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from larder.batches import batches
from larder.engines import Engine, open_engine
from larder.engines.spread import Spread
from larder.errors import ConfigurationError
from larder.progress import Reporter
from larder.sources.archive_folders import ArchiveFolders
from larder.sources.kinds import is_archive, is_hidden, is_parquet
from larder.sources.limits import SourceLimits
from larder.sources.members import BadSourceError, unsafe_source_error
from larder.sources.random_access import BEGINNING, ScanPlace
from larder.store import BucketSettings, only_bucket_settings
from larder.tree.lists import list_error
from larder.tree.recipes import AUTO, Recipe
from larder.tree.recipes.parquet import ParquetRecipe
from larder.tree.shard_labels import CLASS
from larder.tree.splits import parse_split_names
from services.index.check_ledger import CheckLedger, CheckResult
from services.index.checkers import ArchiveChecker, ArchiveJob, ArchivePart, ObjectChecker
from services.index.listing import ObjectListing, StoredObject
from services.index.sample_assigner import may_be_sample
from services.index.sample_lists import SampleLists
from services.index.settings import IndexSettings

T = TypeVar("T")
R = TypeVar("R")
_PARQUET = "parquet"
_PATHS_PER_RECORD = 1000
_MAX_BYTES = 1 << 62
_END = ScanPlace(_MAX_BYTES)
"""Where the next part would begin after the last one."""


class WorkUnit(NamedTuple):
    """What one task of a worker checks, and how tasks are spread."""

    name: str
    per_batch: int
    """Tasks per batch of a worker."""
    threads: int
    """Tasks that a worker does at a time."""


_OBJECTS, _ARCHIVES, _FILES = WorkUnit("objects", 64, 16), WorkUnit("archives", 1, 1), WorkUnit("files", 1, 1)


class SourceChecker:
    """Runs the checks of a source on the engine."""

    def __init__(
        self,
        settings: IndexSettings,
        reporter: Reporter,
        listing: ObjectListing,
        lists: SampleLists,
        ledger: CheckLedger,
    ) -> None:
        self._settings, self._reporter, self._listing = settings, reporter, listing
        self._lists, self._ledger = lists, ledger

    def check_objects(self, recipe: Recipe) -> None:
        """Read, check and hash every object that may be a sample."""
        candidates = (item for item in self._listing if may_be_sample(recipe, item.path))
        jobs = (
            (item for item in candidates if not self._ledger.is_checked(item.path)) if len(self._ledger) else candidates
        )
        check = ObjectChecker(self._settings_of_store, self._settings.verify)
        for results in self._results(self._engine(), check, jobs, self._listing.files, _OBJECTS):
            self._record(results)

    def check_archives(self, folders: ArchiveFolders) -> None:
        """Read every archive, and check and hash its images."""
        other_paths = (path for path in self._listing.paths() if not is_archive(path) or is_hidden(path))
        for results in batches(other_paths, _PATHS_PER_RECORD):
            self._ledger.record(CheckResult([], [], results))
        archives = (item for item in self._listing if is_archive(item.path) and not is_hidden(item.path))
        pending = (item for item in archives if not self._ledger.has_archive(item.path))
        limits = SourceLimits(self._settings.max_files, _MAX_BYTES)
        check = ArchiveChecker(self._settings_of_store, self._settings.verify, folders, limits, self._is_one_archive)
        jobs: Iterable[ArchiveJob] = self._jobs(check, pending)
        engine, total = self._engine(), self._listing.kinds.archives
        with engine.keep_connected():
            while jobs:
                next_jobs = list[ArchiveJob]()
                for parts in self._results(engine, check, jobs, total, _ARCHIVES):
                    next_jobs += [job for part in parts if (job := self._record_part(check, part)) is not None]
                jobs = next_jobs

    def check_parquet(self) -> tuple[str, Recipe]:
        """Read every Parquet file, check and hash its images, and return the recipe for them."""
        from larder.sources.cards import MAX_CARD_BYTES, Card, read_card
        from larder.sources.parquet_dataset import open_parquet  # takes 0.5 s
        from services.index.parquet import ParquetChecker, ParquetJob, make_part

        if self._settings.recipe not in (AUTO, _PARQUET):
            raise ConfigurationError(
                f"the source holds Parquet files, and LARDER_RECIPE={self._settings.recipe} reads others",
                next_step=f"set LARDER_RECIPE={_PARQUET}, or auto",
            )
        names = parse_split_names(self._settings.splits)
        store, card, tables = self._settings_of_store, Card(), dict[str, StoredObject]()
        for item in self._listing:
            if is_parquet(item.path) and not is_hidden(item.path):
                tables[item.path] = item
            elif item.path == "README.md" and item.bytes <= MAX_CARD_BYTES:
                card = read_card(self._lists.read(item.path))
        parts = [make_part(store, item) for item in tables.values()]
        source = open_parquet(self._settings.sources[0], parts, card, self._settings, self._reporter)
        recipe = ParquetRecipe(source.classes, source.splits, names)
        jobs = (
            ParquetJob(file, tables[file.part.name])
            for file in source.files
            if not self._ledger.has_archive(file.part.name)
        )
        check = ParquetChecker(store, self._settings.verify, source.columns, source.labels, len(source.classes))
        for results in self._results(self._engine(), check, jobs, len(source.files), _FILES):
            self._record(results)
        return _PARQUET, recipe

    def _engine(self) -> Engine:
        settings = self._settings
        return open_engine(
            settings.engine, settings.workers, settings.workers_after, settings.ray_address, self._reporter.event
        )

    def _results(
        self, engine: Engine, check: Callable[[T], R], jobs: Iterable[T], total: int, unit: WorkUnit
    ) -> Iterator[list[R]]:
        """Run the checks, report progress, and yield the results of one batch at a time."""
        remaining = iter(jobs)
        first = next(remaining, None)
        if first is None:
            return
        done = len(self._ledger) if unit == _OBJECTS else self._ledger.archive_count()
        with self._reporter.task("check", total, unit.name, done=done) as task:
            for results in Spread(engine, unit.per_batch, unit.threads).in_batches(
                check, itertools.chain([first], remaining)
            ):
                yield results
                task.advance(sum(not (isinstance(result, ArchivePart) and result.rest) for result in results))

    def _record_part(self, check: ArchiveChecker, part: ArchivePart) -> ArchiveJob | None:
        """Record a part of an archive, or the whole archive after its last part. Return the job for the next part."""
        stored, result, labels, rest = part
        before = self._ledger.begin_of(stored.path) != BEGINNING
        if rest is None and not before:
            self._record([check.complete(result, labels, bool(labels))])
            return None
        if (duplicate := self._ledger.record_part(result, labels, rest or _END)) is not None:
            if duplicate.endswith(CLASS):
                raise list_error(f"{stored.uri}: {duplicate}", "has the same key as another")
            raise self._duplicate_path_error(duplicate)
        if rest is not None:
            return ArchiveJob(stored, rest)
        self._finish_archive(check, stored.path)
        return None

    def _jobs(self, check: ArchiveChecker, archives: Iterable[StoredObject]) -> Iterator[ArchiveJob]:
        """Yield a job for each archive, after the parts that an earlier run has recorded."""
        for item in archives:
            begin = self._ledger.begin_of(item.path)
            if begin == _END:
                self._finish_archive(check, item.path)
            else:
                yield ArchiveJob(item, begin)

    def _finish_archive(self, check: ArchiveChecker, archive: str) -> None:
        """Record an archive as a whole after its last part."""
        has_labels = self._ledger.has_labels(archive)
        results = (check.complete(result, labels, has_labels) for result, labels in self._ledger.parts(archive))
        if (duplicate := self._ledger.record_all(results)) is not None:
            raise self._duplicate_path_error(duplicate.path)
        self._ledger.drop_parts(archive)

    def _duplicate_path_error(self, path: str) -> BadSourceError:
        return unsafe_source_error(
            self._settings.sources[0],
            path,
            "is in it twice",
            "index the archives with LARDER_ARCHIVE_FOLDERS=archive, which keeps the files of each apart; "
            "or repack an archive that holds two of one name",
        )

    def _record(self, results: list[CheckResult]) -> None:
        if results[0].archive:
            for result in results:
                if (duplicate := self._ledger.record(result)) is not None:
                    raise self._duplicate_path_error(duplicate.path)
            return
        self._ledger.record(
            CheckResult(
                [entry for result in results for entry in result.images],
                [reject for result in results for reject in result.rejects],
                [path for result in results for path in result.other_paths],
            )
        )

    @property
    def _is_one_archive(self) -> bool:
        """Whether LARDER_SOURCE names a single archive, not a folder or a pattern."""
        return self._listing.files == 1 and next(iter(self._listing)).uri == self._settings.sources[0]

    @property
    def _settings_of_store(self) -> BucketSettings:
        """Only the settings that workers need."""
        return only_bucket_settings(self._settings)
