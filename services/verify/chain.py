"""State that the links share: the settings, and the artifacts, each read once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, cast

from larder.artifacts import find_in_bucket, find_on_volume
from larder.contract import Artifact
from larder.dataset import DEFAULT, LAYOUTS, ArtifactLayout, dataset_of, index_folder_of
from larder.engines import open_engine
from larder.engines.local import LocalEngine
from larder.engines.spread import Spread
from larder.errors import InputError
from larder.next_step import StageRun
from larder.packing.pack_input import open_prefix
from larder.progress import Reporter
from larder.store import only_bucket_settings
from larder.volume import RAW
from services.verify.choice import Choice, choose_samples
from services.verify.findings import AbsentError, UnfollowedError
from services.verify.locations import Location, StoreLocation, VolumeLocation
from services.verify.settings import VerifySettings
from services.verify.verified_artifact import IndexedSample, VerifiedArtifact, read_artifact

_CONCURRENT_REQUESTS = 16


class ArtifactRef(NamedTuple):
    """An artifact, on its volume or in the store."""

    artifact: Artifact
    in_store: bool = False


RAW_FILES = ArtifactRef("raw")
TREE_FILES = ArtifactRef("tree")
OBJECTS = ArtifactRef("objects", in_store=True)
INDEX = ArtifactRef("index", in_store=True)


class Chain:
    """One run of the stage. `work` is a folder for indexes downloaded from the store.

    Raises ConfigurationError if a volume holds several datasets and none is named.
    """

    def __init__(self, settings: VerifySettings, reporter: Reporter, work: Path) -> None:
        self.settings, self.reporter, self.work = settings, reporter, work
        self._workers = 1 if settings.samples else settings.workers
        self.engine = open_engine(
            settings.engine, self._workers, settings.workers_after, settings.ray_address, reporter.event
        )
        """The engine that reads the store."""
        self._folders = {layout: self._on_volume(layout) for layout in LAYOUTS}
        self._artifacts: dict[ArtifactRef, VerifiedArtifact | InputError | AbsentError] = {}
        self.verified: set[ArtifactRef] = set()
        """Artifacts that were verified."""
        self.store_failed = ""
        """The link at which the store refused or failed, if any."""

    def require_artifact(self, ref: ArtifactRef) -> VerifiedArtifact:
        """Return manifest and index. Raises AbsentError if the artifact is absent, InputError if they don't agree."""
        if ref not in self._artifacts:
            location = self._locate(ref)
            try:
                self._artifacts[ref] = read_artifact(location, ref.artifact, self.work)
            except (InputError, AbsentError) as error:
                self._artifacts[ref] = error
        artifact = self._artifacts[ref]
        if isinstance(artifact, VerifiedArtifact):
            return artifact
        raise artifact

    def find_artifact(self, ref: ArtifactRef) -> VerifiedArtifact | None:
        """Return the artifact's manifest and index, or None if it is absent or broken."""
        try:
            return self.require_artifact(ref)
        except (InputError, AbsentError, UnfollowedError):
            return None

    def choose(self, artifact: VerifiedArtifact, samples: Iterable[IndexedSample]) -> Choice:
        """Choose the samples of an artifact to read."""
        return choose_samples(samples, artifact.manifest, self.settings.samples, self.settings.seed)

    def spread(self, location: Location, batch: int = 64) -> Spread:
        """Return how to spread reading over workers, with `batch` tasks per batch.

        The configured engine reads a store. Volumes are read on this machine, since others don't have them. If only
        some samples are read, one worker does it: starting processes takes longer.
        """
        if not isinstance(location, StoreLocation):
            return Spread(LocalEngine(self._workers, self.settings.workers_after), batch, 1)
        return Spread(self.engine, batch, _CONCURRENT_REQUESTS)

    def _locate(self, ref: ArtifactRef) -> Location:
        settings = self.settings
        if ref == RAW_FILES:
            return VolumeLocation(settings.volume / RAW)
        if not ref.in_store:
            return VolumeLocation(self._folders[_layout(ref.artifact)])
        if not settings.bucket:
            raise UnfollowedError(f"no store is set; set S3_BUCKET and its keys, or run {StageRun('s3', 'up')}")
        if self.store_failed:
            raise UnfollowedError(f"since {self.store_failed} failed")
        bucket = only_bucket_settings(settings)
        if ref == INDEX:
            return StoreLocation(bucket, index_folder_of(self._dataset))
        layout = _layout(ref.artifact)
        where = "/".join(part for part in ("s3:/", bucket.bucket, bucket.prefix) if part)
        folder = find_in_bucket(
            layout, self._dataset, where, lambda name: open_prefix(bucket, name).find_manifest(), self.reporter
        )
        return StoreLocation(bucket, folder)

    def _on_volume(self, layout: ArtifactLayout) -> Path:
        """Return the folder of a layout on its volume."""
        settings = self.settings
        root = {"tree": settings.volume, "webdataset": settings.wds, "litdata": settings.lit}[layout]
        return root / find_on_volume(root, layout, settings.dataset, self.reporter)

    @property
    def _dataset(self) -> str:
        """The dataset whose folders in the store are verified: LARDER_DATASET, or the one on a volume."""
        datasets = (dataset_of(folder.name) for folder in self._folders.values())
        return self.settings.dataset or next((name for name in datasets if name != DEFAULT), DEFAULT)


def _layout(artifact: Artifact) -> ArtifactLayout:
    return "tree" if artifact == "objects" else cast(ArtifactLayout, artifact)
