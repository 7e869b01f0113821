"""What the links share: the settings, and what is known of each artifact. An artifact is looked at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

from larder.artifacts import in_bucket, on_volume
from larder.contract import Artifact
from larder.dataset import DEFAULT, LAYOUTS, Layout, dataset_of, index_folder_of
from larder.engines import open_engine
from larder.engines.local import LocalEngine
from larder.engines.spread import Spread
from larder.errors import InputError
from larder.next_step import Run
from larder.packing.source import open_folder
from larder.progress import Reporter
from larder.store import BucketSettings
from larder.volume import RAW
from services.verify.choice import Choice, choose
from services.verify.findings import AbsentError, UnfollowedError
from services.verify.paper import Paper, Sample, read_paper
from services.verify.places import Place, StorePlace, VolumePlace
from services.verify.settings import VerifySettings

_REQUESTS_AT_ONCE = 16


class Kept(NamedTuple):
    """An artifact, and whether the store's copy is meant."""

    artifact: Artifact
    in_store: bool = False


RAW_FILES = Kept("raw")
TREE_FILES = Kept("tree")
OBJECTS = Kept("objects", in_store=True)
INDEX = Kept("index", in_store=True)


class Chain:
    """One run. `work` is a folder for indexes that are fetched from the store.

    Raises ConfigurationError when a volume holds several data sets, and none is named.
    """

    def __init__(self, settings: VerifySettings, reporter: Reporter, work: Path) -> None:
        self.settings, self.reporter, self.work = settings, reporter, work
        self._workers = 1 if settings.samples else settings.workers
        self.engine = open_engine(
            settings.engine, self._workers, settings.workers_after, settings.ray_address, reporter.event
        )
        """What reads a store."""
        self._folders = {layout: self._on_volume(layout) for layout in LAYOUTS}
        self._found: dict[Kept, Paper | InputError | AbsentError] = {}
        self.sound: set[Kept] = set()
        """What was followed to its end, and holds."""
        self.store_failed = ""
        """The link at which the store refused or failed, if any."""

    def paper(self, kept: Kept) -> Paper:
        """Raises AbsentError when it isn't there, InputError when it doesn't agree with itself."""
        if kept not in self._found:
            place = self._place(kept)
            try:
                self._found[kept] = read_paper(place, kept.artifact, self.work)
            except (InputError, AbsentError) as error:
                self._found[kept] = error
        found = self._found[kept]
        if isinstance(found, Paper):
            return found
        raise found

    def known(self, kept: Kept) -> Paper | None:
        """The same, or None when it isn't there or no one can rely on it."""
        try:
            return self.paper(kept)
        except (InputError, AbsentError, UnfollowedError):
            return None

    def choose(self, paper: Paper, samples: Iterable[Sample]) -> Choice:
        """What is read of an artifact's samples."""
        return choose(samples, paper.manifest, self.settings.samples, self.settings.seed)

    def spread(self, place: Place, batch: int = 64) -> Spread:
        """How reading is spread, so many tasks in a batch. A sample is read sooner than processes are started.

        A store is read by the engine of the settings. What lies on a volume is read here: other machines lack it.
        """
        if not isinstance(place, StorePlace):
            return Spread(LocalEngine(self._workers, self.settings.workers_after), batch, 1)
        return Spread(self.engine, batch, _REQUESTS_AT_ONCE)

    def _place(self, kept: Kept) -> Place:
        settings = self.settings
        if kept == RAW_FILES:
            return VolumePlace(settings.volume / RAW)
        if not kept.in_store:
            return VolumePlace(self._folders[_layout(kept.artifact)])
        if not settings.bucket:
            raise UnfollowedError(f"no store is set; set S3_BUCKET and its keys, or run {Run('s3', 'up')}")
        if self.store_failed:
            raise UnfollowedError(f"since {self.store_failed} failed")
        shared = {field: getattr(settings, field) for field in BucketSettings.model_fields}
        bucket = BucketSettings.model_validate(shared, by_name=True)
        if kept == INDEX:
            return StorePlace(bucket, index_folder_of(self._dataset))
        layout = _layout(kept.artifact)
        where = "/".join(part for part in ("s3:/", bucket.bucket, bucket.prefix) if part)
        folder = in_bucket(
            layout, self._dataset, where, lambda name: open_folder(bucket, name).find_manifest(), self.reporter
        )
        return StorePlace(bucket, folder)

    def _on_volume(self, layout: Layout) -> Path:
        """The folder of a layout on its volume."""
        settings = self.settings
        root = {"tree": settings.volume, "webdataset": settings.wds, "litdata": settings.lit}[layout]
        return root / on_volume(root, layout, settings.dataset, self.reporter)

    @property
    def _dataset(self) -> str:
        """Whose folders in the store belong to the chain: LARDER_DATASET's, or those of what lies on a volume."""
        found = (dataset_of(folder.name) for folder in self._folders.values())
        return self.settings.dataset or next((name for name in found if name != DEFAULT), DEFAULT)


def _layout(artifact: Artifact) -> Layout:
    return "tree" if artifact == "objects" else cast(Layout, artifact)
