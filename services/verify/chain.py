"""What the links share: the settings, and what is known of each artifact. An artifact is looked at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from larder.contract import Artifact
from larder.errors import InputError
from larder.progress import Reporter
from larder.store import BucketSettings
from larder.volume import CHUNKS, RAW, SHARDS, TREE
from services.verify.choice import Choice, choose
from services.verify.findings import AbsentError, UnfollowedError
from services.verify.paper import Paper, Sample, read_paper
from services.verify.places import Place, StorePlace, VolumePlace
from services.verify.settings import VerifySettings
from services.verify.spread import Spread

_REQUESTS_AT_ONCE = 16


class Kept(NamedTuple):
    """An artifact and where it lies."""

    artifact: Artifact
    folder: str
    in_store: bool = False


RAW_FILES = Kept("raw", RAW)
TREE_FILES = Kept("tree", TREE)
OBJECTS = Kept("objects", TREE, in_store=True)


def packed(artifact: Artifact, *, in_store: bool) -> Kept:
    """Shards or chunks, on their volume or in the store."""
    return Kept(artifact, SHARDS if artifact == "webdataset" else CHUNKS, in_store)


class Chain:
    """One run. `work` is a folder for indexes that are fetched from the store."""

    def __init__(self, settings: VerifySettings, reporter: Reporter, work: Path) -> None:
        self.settings, self.reporter, self.work = settings, reporter, work
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
        """How reading is spread, so many tasks in a batch. A sample is read sooner than processes are started."""
        workers = 1 if self.settings.samples else self.settings.workers
        return Spread(workers, batch, _REQUESTS_AT_ONCE if isinstance(place, StorePlace) else 1)

    def _place(self, kept: Kept) -> Place:
        settings = self.settings
        if not kept.in_store:
            root = {"webdataset": settings.wds, "litdata": settings.lit}.get(kept.artifact, settings.volume)
            return VolumePlace(root / kept.folder)
        if not settings.bucket:
            raise UnfollowedError("no store is set; S3_BUCKET and its keys in .env, or `make s3-up`")
        if self.store_failed:
            raise UnfollowedError(f"since {self.store_failed} failed")
        shared = {field: getattr(settings, field) for field in BucketSettings.model_fields}
        return StorePlace(BucketSettings.model_validate(shared, by_name=True), kept.folder)
