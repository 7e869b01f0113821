"""Index a source where it lies in a store: list, check and hash, assign, and leave a manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from larder import __version__
from larder.batches import batches
from larder.bucket import Folder
from larder.contract import IndexEntry, Manifest, SplitSummary, class_folder
from larder.dataset import DEFAULT, index_folder_of, is_dataset
from larder.engines import open_engine
from larder.engines.spread import Spread
from larder.errors import ConfigurationError, InputError, RejectedSamplesError
from larder.next_step import MAKES, Run
from larder.progress import Reporter, amount
from larder.sources.archive_folders import ArchiveFolders
from larder.sources.kinds import is_archive, is_hidden, is_parquet
from larder.sources.limits import Limits
from larder.sources.members import refuse
from larder.sources.prefix import Object, Page, Prefix, find_object, is_prefix
from larder.stage import Clock, Outcome
from larder.store import BucketSettings, split_uri
from larder.tree import recipes
from larder.tree.assign import assign, counted, division_of
from larder.tree.left_out import LeftOut
from larder.tree.names import is_image_name
from larder.tree.recipes import AUTO, Files, LeftOutError, Recipe, RejectError, require_images
from larder.tree.recipes.auto import recognise_layout
from larder.tree.recipes.parquet import Parquet
from larder.tree.splits import Division, parse_split_names
from larder.tree.summary import with_table
from larder.volume import Slot
from services.index.found import Found, Looked, Places
from services.index.listing import Listing, Stored, list_at_once, require_objects
from services.index.look import LookAtArchive, LookAtObject, says_no_image
from services.index.place import REJECTS, Place
from services.index.settings import IndexSettings
from services.index.shards import Shards

T = TypeVar("T")
_PARQUET = "parquet"
_AT_ONCE, _ARCHIVES_AT_ONCE = 64, 1
"""Objects, and archives, that a worker takes at a time."""
_REQUESTS_AT_ONCE, _NOTED_AT_ONCE = 16, 1000
_MOST_LIST_BYTES = 1 << 30
_MOST_BYTES = 1 << 62
_SHOWN_REJECTS = 20
SHARDS = "webdataset"
"""What manifests call the recipe for WebDataset shards."""


def index(settings: IndexSettings, reporter: Reporter) -> Outcome:
    """Run the stage. Returns at once when the store holds the index of the same objects already."""
    clock = Clock()
    dataset = settings.dataset or _named_by_shards(settings) or DEFAULT
    name = index_folder_of(dataset)
    place, slot = Place(Folder(settings, name), settings.force), Slot(settings.volume, name)
    old = place.find()
    with slot.lock():
        listing = Listing(slot.work / "listing.sqlite", settings.max_files)
        _list(settings, listing, reporter)
        run = _Run(settings, reporter, listing, slot, place, dataset)
        if old is not None and not settings.force and run.is_up_to_date(old):
            listing.remove()
            slot.discard()
            return Outcome(
                with_table(f"up to date: {_size(old)}", old), _next_step(settings, dataset), {"up_to_date": True}
            )
        manifest, rejected = run.run(clock)
        listing.remove()
        slot.discard()
    aside = f", {rejected:,} rejected (see {place.uri}/{REJECTS})" if rejected else ""
    rate = manifest.files / max(clock.seconds, 1e-9)
    done = f"{_size(manifest)}{aside} indexed in {place.uri}, in {clock.seconds:.1f} s ({rate:,.0f} images/s)"
    return Outcome(
        with_table(done, manifest),
        _next_step(settings, dataset),
        {"images": manifest.files, "rejects": rejected, "seconds": round(clock.seconds, 3)},
    )  # fmt: skip


def _next_step(settings: IndexSettings, dataset: str) -> str:
    where = "/".join(part for part in ("s3:/", settings.bucket, settings.prefix) if part)
    packed = Run("shard").having(
        LARDER_INPUT=f"{where}/{index_folder_of(dataset)}", LARDER_DEST=f"{where}/{dataset}-webdataset"
    )
    return str(packed)


def _list(settings: IndexSettings, listing: Listing, reporter: Reporter) -> None:
    several = len(settings.sources) > 1
    with reporter.task("list", None, "objects") as task:
        for source in settings.sources:
            bucket, _ = split_uri(source)
            for page in _pages(source, settings):
                listing.add(source, bucket, page.objects, page.keys)
                task.advance(len(page.objects))
    listing.finish()
    require_objects(listing, settings.source)
    if several and listing.kinds.images:
        raise InputError(
            "several sources must be archives, and one of them holds images",
            next_step="index each by itself, with a LARDER_DATASET of its own",
        )
    size = f"{amount(listing.files, 'objects')}, {amount(listing.bytes, 'B')}"
    reporter.event("listed", f"the source holds {size}", objects=listing.files, bytes=listing.bytes)


def _pages(source: str, settings: IndexSettings) -> Iterator[Page]:
    if is_prefix(source, settings):
        yield from list_at_once(Prefix(source, settings, settings.max_files))
    else:
        yield Page([find_object(source, settings)], 1, "")


def _named_by_shards(settings: IndexSettings) -> str:
    manifest = _manifest_of_shards(settings)
    return manifest.dataset if manifest is not None and is_dataset(manifest.dataset) else ""


def _manifest_of_shards(settings: IndexSettings) -> Manifest | None:
    """What larder has noted of shards that it made, if the source is such."""
    bucket, key = split_uri(settings.source)
    if len(settings.sources) > 1 or "*" in key or not key.strip("/"):
        return None
    folder = Folder(settings.model_copy(update={"bucket": bucket, "prefix": ""}), key.strip("/"))
    try:
        manifest = folder.find_manifest()
    except InputError:  # of somebody else
        return None
    return manifest if manifest is not None and manifest.artifact == SHARDS else None


class _Run:
    """One run: what is listed, what was found in it, and where the index goes."""

    def __init__(
        self, settings: IndexSettings, reporter: Reporter, listing: Listing, slot: Slot, place: Place, dataset: str
    ) -> None:  # fmt: skip
        self._settings, self._reporter, self._listing, self._slot = settings, reporter, listing, slot
        self._place, self._dataset, self._kind = place, dataset, listing.kinds.kind
        self._made_from: dict[str, str | int] = {
            "kind": "objects" if self._kind == "files" else self._kind,
            "files": listing.files, "bytes": listing.bytes, "listing": listing.sha256,
        }  # fmt: skip
        look: dict[str, str | int] = {"verify": settings.verify}
        if self._kind == "archives":
            look["archive_folders"] = self._folders
        if self._kind == "parquet":
            columns = {"image_column": settings.image_column, "label_column": settings.label_column}
            look |= {name: column for name, column in columns.items() if column}
        self._looking = look
        self._asked = {
            "recipe": settings.recipe, "csv": settings.csv, "label_column": settings.label_column, **look,
            **settings.shaping_splits,
        }  # fmt: skip

    @property
    def _folders(self) -> ArchiveFolders:
        """The files of a single archive go into no folder."""
        return "none" if self._listing.files == 1 else self._settings.archive_folders

    def is_up_to_date(self, old: Manifest) -> bool:
        """Whether an index that is there is of the same objects, made in the same way."""
        record = self._place.read_run()
        same = (old.dataset, old.input, record.get("asked"), record.get("larder")) == (
            self._dataset, self._made_from, self._asked, __version__
        )  # fmt: skip
        rejects = record.get("rejects", 0)
        return same and isinstance(rejects, int) and rejects <= self._settings.max_rejects and self._place.is_whole(old)

    def run(self, clock: Clock) -> tuple[Manifest, int]:
        """Everything in its order. Returns the manifest, and how many images were rejected."""
        key = json.dumps([self._listing.sha256, self._looking])
        with Found(self._slot.ledger_path, key) as found:
            if self._slot.resume(found) and (done := len(found)):
                self._reporter.event("resume", f"continuing an earlier run, which has done {amount(done, 'images')}")
            self._slot.meta.mkdir(parents=True, exist_ok=True)
            self._place.require_writable()
            if self._kind == "parquet":
                name, recipe = self._look_at_parquet(found)
                paths: Callable[[], Iterator[str]] = found.paths
            elif self._kind == "archives":
                self._look_at_archives(found)
                name, recipe = self._recipe_of_archives(found)
                paths = found.paths
            else:
                name, recipe = self._recipe(self._files(self._listing.paths, self._fetch, self._holds))
                self._look_at_objects(found, recipe)
                paths = self._listing.paths
            return self._finish(found, paths, name, recipe, clock)

    def _finish(
        self, found: Found, paths: Callable[[], Iterator[str]], name: str, recipe: Recipe, clock: Clock
    ) -> tuple[Manifest, int]:
        with Places(self._slot.work / "places.sqlite", "") as places:
            places.clear()
            with LeftOut(self._slot.meta) as left_out:
                self._assign(found, paths, recipe, places, left_out)
            left_out.report(self._reporter)
            places.reject(recipe.absent())
            rejected = self._list_rejects(places)
            self._place.put_lists(self._slot.meta)
            self._require_few_rejects(places, rejected)
            self._reporter.event("commit", "writing the index")
            manifest = self._write(places, name, recipe)
        record = clock.record(rejects=rejected, asked=self._asked, source=self._settings.sources[:100])
        self._place.commit(manifest, self._slot.meta / "index.jsonl", record)
        return manifest, rejected

    # What workers do.

    def _look_at_objects(self, found: Found, recipe: Recipe) -> None:
        """Read, check and hash every object that may be a sample."""
        wanted = (item for item in self._listing if _may_be_sample(recipe, item.path))
        jobs = (item for item in wanted if not found.has(item.path)) if len(found) else wanted
        look = LookAtObject(self._settings_of_store, self._settings.verify)
        self._look(look, jobs, found, self._listing.files, _AT_ONCE, _REQUESTS_AT_ONCE, "objects")

    def _look_at_archives(self, found: Found) -> None:
        """Read every archive, and check and hash the images in it."""
        beside = (path for path in self._listing.paths() if not is_archive(path) or is_hidden(path))
        for some in batches(beside, _NOTED_AT_ONCE):
            found.note(Looked([], [], some))
        archives = (item for item in self._listing if is_archive(item.path) and not is_hidden(item.path))
        jobs = (item for item in archives if not found.has_archive(item.path))
        limits = Limits(self._settings.max_files, _MOST_BYTES)
        look = LookAtArchive(self._settings_of_store, self._settings.verify, self._folders, limits)
        self._look(look, jobs, found, self._listing.kinds.archives, _ARCHIVES_AT_ONCE, 1, "archives")

    def _look_at_parquet(self, found: Found) -> tuple[str, Recipe]:
        """Read every Parquet file, and check and hash the images in it. Returns the recipe for them."""
        from larder.sources.cards import MOST_CARD_BYTES, Card, read_card
        from larder.sources.parquet import open_parquet  # half a second, for those who need it
        from services.index.parquet import LookAtParquet, Rows, part_of

        if self._settings.recipe not in (AUTO, _PARQUET):
            raise ConfigurationError(
                f"the source holds Parquet files, and LARDER_RECIPE={self._settings.recipe} reads others",
                next_step=f"set LARDER_RECIPE={_PARQUET}, or auto",
            )
        store, card, tables = self._settings_of_store, Card(), dict[str, Stored]()
        for item in self._listing:
            if is_parquet(item.path) and not is_hidden(item.path):
                tables[item.path] = item
            elif item.path == "README.md" and item.bytes <= MOST_CARD_BYTES:
                self._fetch(item.path)
                card = read_card((self._slot.work / "lists" / item.path).read_bytes())
        parts = [part_of(store, item) for item in tables.values()]
        source = open_parquet(self._settings.sources[0], parts, card, self._settings, self._reporter)
        jobs = (Rows(file, tables[file.part.name]) for file in source.files if not found.has_archive(file.part.name))
        look = LookAtParquet(store, self._settings.verify, source.columns, source.labels, len(source.classes))
        self._look(look, jobs, found, len(source.files), _ARCHIVES_AT_ONCE, 1, "files")
        return _PARQUET, Parquet(source.classes, parse_split_names(self._settings.splits))

    def _look(
        self, look: Callable[[T], Looked], jobs: Iterable[T], found: Found, total: int, batch: int,
        threads: int, unit: str,
    ) -> None:  # fmt: skip
        settings = self._settings
        engine = open_engine(
            settings.engine, settings.workers, settings.workers_after, settings.ray_address, self._reporter.event
        )
        remaining = iter(jobs)
        first = next(remaining, None)
        if first is None:
            return
        done = len(found) if unit == "objects" else found.archive_count()
        with self._reporter.task("check", total, unit, done=done) as task:
            for some in Spread(engine, batch, threads).in_batches(look, _chained(first, remaining)):
                self._note(found, some)
                task.advance(len(some))

    def _note(self, found: Found, some: list[Looked]) -> None:
        if some[0].archive:
            for looked in some:
                if (twice := found.note(looked)) is not None:
                    raise refuse(
                        self._settings.sources[0], twice.path, "is in two archives",
                        "set LARDER_ARCHIVE_FOLDERS=archive, which keeps the files of each apart",
                    )  # fmt: skip
            return
        found.note(
            Looked(
                [entry for looked in some for entry in looked.images],
                [reject for looked in some for reject in looked.rejects],
                [path for looked in some for path in looked.others],
            )
        )

    @property
    def _settings_of_store(self) -> BucketSettings:
        """What workers need to know, and no more."""
        settings = self._settings
        shared = {field: getattr(settings, field) for field in BucketSettings.model_fields}
        return BucketSettings.model_validate(shared, by_name=True)

    # Recipes.

    def _recipe_of_archives(self, found: Found) -> tuple[str, Recipe]:
        labels = found.labels()
        labelled = sum(labels.values())
        if not labelled:
            return self._recipe(self._files(found.paths, self._fetch, found.has))
        if labelled < len(found) or self._settings.recipe != AUTO:
            raise InputError(
                f"{amount(labelled, 'images')} of {len(found):,} have labels beside them, as WebDataset has them"
                + ("" if labelled < len(found) else f", and LARDER_RECIPE={self._settings.recipe} takes others"),
                next_step="index shards with labels and other archives apart, with LARDER_RECIPE=auto",
            )
        known = _manifest_of_shards(self._settings)
        names = parse_split_names(self._settings.splits)
        recipe = Shards(found, labels, names, known.classes if known is not None else [])
        self._reporter.event("recipe", "recognised: WebDataset shards, with a label for each image", recipe=SHARDS)
        return SHARDS, recipe

    def _recipe(self, files: Files) -> tuple[str, Recipe]:
        """The recipe that is set, or that fits the files. Raises InputError when none does."""
        require_images(files)
        name = self._settings.recipe
        if name == AUTO:
            name, why = recognise_layout(files)
            self._reporter.event("recipe", f"recognised: {why}: LARDER_RECIPE={name}", recipe=name)
        return name, recipes.load(name, files)

    def _files(
        self, paths: Callable[[], Iterator[str]], fetch: Callable[[str], None], holds: Callable[[str], bool] | None
    ) -> Files:
        settings = self._settings
        return Files(
            self._slot.work / "lists", paths, lambda _: None, self._slot.work, settings.csv,
            parse_split_names(settings.splits), settings.label_column, fetch, holds,
        )  # fmt: skip

    def _holds(self, path: str) -> bool:
        return self._listing.find(path) is not None

    def _fetch(self, path: str) -> None:
        """Bring a list to this machine, once."""
        place, item = self._slot.work / "lists" / path, self._listing.find(path)
        if item is None and self._kind == "archives":
            raise _unreadable_list(path)
        if place.exists() or item is None:
            return
        if item.bytes > _MOST_LIST_BYTES:
            raise InputError(
                f"{item.uri} has {amount(item.bytes, 'B')}: lists of samples have at most "
                f"{amount(_MOST_LIST_BYTES, 'B')}",
                next_step="choose another recipe with LARDER_RECIPE, or leave the table out of the source",
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        beside = place.with_name(f"{place.name}.part")
        with beside.open("wb") as file:
            for chunk in Prefix(f"s3://{item.bucket}/", self._settings, 0).read(Object(*item[:4])):
                file.write(chunk)
        beside.rename(place)

    # From images to samples.

    def _assign(
        self, found: Found, paths: Callable[[], Iterator[str]], recipe: Recipe, places: Places, left_out: LeftOut
    ) -> None:
        """Give each image its path in the tree; those without one are rejected, or noted as left out."""
        placing = _Placing(found, recipe, division_of(self._settings, recipe), places)
        if isinstance(recipe, Shards):
            for shared in batches(placing.shared(paths()), _NOTED_AT_ONCE):
                places.share(shared)
            places.disclaim()
        with self._reporter.task("assign", None, "images") as task:
            for samples in batches(placing.samples(paths(), left_out), _NOTED_AT_ONCE):
                places.add(samples)
                task.advance(len(samples))

    def _list_rejects(self, places: Places) -> int:
        """Write the list of rejects, if there are any. Returns their number."""
        count, file = places.reject_count(), self._slot.meta.parent / REJECTS
        file.unlink(missing_ok=True)
        if not count:
            return 0
        with file.open("w", encoding="utf-8") as lines:
            for number, (path, reason) in enumerate(places.rejects()):
                lines.write(json.dumps({"path": path, "reason": reason}, ensure_ascii=False) + "\n")
                if number < _SHOWN_REJECTS:
                    self._reporter.event("reject", f"rejected {path!r}: {reason}", path=path, reason=reason)
        if count > _SHOWN_REJECTS:
            self._reporter.event("reject", f"and {count - _SHOWN_REJECTS:,} more: see {self._place.uri}/{REJECTS}")
        return count

    def _require_few_rejects(self, places: Places, count: int) -> None:
        if count > self._settings.max_rejects:
            none = "not one image is a sample; " if len(places) == 0 else ""
            raise RejectedSamplesError(
                f"{none}rejected samples: {count:,}, and LARDER_MAX_REJECTS allows {self._settings.max_rejects:,}; "
                f"all are listed in {self._place.uri}/{REJECTS}",
                next_step=f"fix the source, then run {MAKES['index']} again; or leave them out with "
                f"LARDER_MAX_REJECTS={count}",
            )
        if len(places) == 0:
            raise InputError("no object of the source is a sample", next_step="check LARDER_SOURCE and LARDER_RECIPE")

    def _write(self, places: Places, name: str, recipe: Recipe) -> Manifest:
        splits: dict[str, SplitSummary] = {}
        summary = self._slot.write_index(counted(places.entries(), splits, len(recipe.classes)))
        shaping: dict[str, str | int] = {"recipe": name, **self._looking, **self._settings.shaping_splits}
        return Manifest(
            artifact="index", dataset=self._dataset, classes=list(recipe.classes), splits=splits,
            input=self._made_from, settings=shaping, index=summary,
            files=sum(split.samples for split in splits.values()), bytes=sum(split.bytes for split in splits.values()),
        )  # fmt: skip


class _Placing:
    """Finds the places of samples in the tree."""

    def __init__(self, found: Found, recipe: Recipe, division: Division | None, places: Places) -> None:
        self._found, self._recipe, self._division, self._places = found, recipe, division, places
        self._folders = [class_folder(label, len(recipe.classes)) for label in range(len(recipe.classes))]

    def shared(self, paths: Iterator[str]) -> Iterator[str]:
        """The places that several samples would take."""
        for path in paths:
            entry = self._found.get(path)
            if entry is None:
                continue
            try:
                _, place = self._place(path, entry)
            except (LeftOutError, RejectError):
                continue
            if self._places.claim(place, path) != path:
                yield place

    def samples(self, paths: Iterator[str], left_out: LeftOut) -> Iterator[IndexEntry]:
        """The samples, by their places. What is rejected or left out is noted."""
        for path in paths:
            entry = self._found.get(path)
            try:
                label, place = self._place(path, entry)
                if isinstance(self._recipe, Shards) and self._places.is_shared(place):
                    place = f"{place.rpartition('/')[0]}/{self._recipe.longer_name(path)}"
                if (first := self._places.claim(place, path)) != path:
                    raise RejectError(f"would take the same place as {first!r}: {place}")
                if entry is None:
                    raise RejectError(self._found.reason(path) or "was not looked at")
            except LeftOutError as why:
                left_out.add(path, str(why))
            except RejectError as fault:
                self._places.reject([(path, str(fault))])
            else:
                yield entry._replace(path=place, label=label, source=path)

    def _place(self, path: str, entry: IndexEntry | None) -> tuple[int, str]:
        """Label and path in the tree. Raises LeftOutError or RejectError."""
        sample = assign(self._recipe, path, self._is_image)
        if self._division and entry is None:
            raise RejectError(self._found.reason(path) or "was not looked at")
        split = self._division.split(entry.sha256) if self._division and entry else sample.split
        return sample.label, f"{split}/{self._folders[sample.label]}/{sample.name}"

    def _is_image(self, path: str) -> bool:
        return is_image_name(path) or self._found.is_rejected(path) or path in self._found


def _may_be_sample(recipe: Recipe, path: str) -> bool:
    """Whether an object must be read to know what it is."""
    try:
        assign(recipe, path, lambda path: is_image_name(path) or not says_no_image(path))
    except LeftOutError:
        return False
    except RejectError:
        return not is_image_name(path) and not says_no_image(path)
    return True


def _unreadable_list(path: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path!r} may be a list of samples, and it lies in an archive, where lists aren't read",
        next_step=f"set LARDER_RECIPE=imagefolder if the folders are the classes; or run {MAKES['tree']} with this "
        "LARDER_SOURCE",
    )


def _chained(first: T, others: Iterator[T]) -> Iterator[T]:
    yield first
    yield from others


def _size(manifest: Manifest) -> str:
    per_split = ", ".join(f"{name} {split.samples:,}" for name, split in sorted(manifest.splits.items()))
    return f"{amount(manifest.files, 'images')} in {amount(len(manifest.classes), 'classes')} ({per_split})"
