"""What one run of the stage works on; all phases share it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from larder.bucket import BucketPrefix
from larder.contract import META, Manifest
from larder.dataset import ArtifactLayout, layout_of
from larder.next_step import CREATED_BY, StageRun
from larder.progress import Reporter
from services.load.settings import LoadSettings
from services.load.state import SyncState

T = TypeVar("T")

CREATING_STAGES: dict[ArtifactLayout, str] = {
    "tree": CREATED_BY["tree"],
    "webdataset": str(StageRun("shard")),
    "litdata": str(StageRun("optimize")),
}
PROBE = f"{META}/probe"
"""Object that is written to check access to the store."""


@dataclass(frozen=True)
class LoadJob:
    """What is loaded from where to where, and what is known of both sides."""

    settings: LoadSettings
    reporter: Reporter
    data: Path
    """The artifact's folder on the volume."""
    source: Manifest
    """Its manifest."""
    remote: BucketPrefix
    """The artifact's folder in the store."""
    state: SyncState

    @cached_property
    def incoming(self) -> str:
        """Subfolder of the store's folder, with a final slash, for uploads that replace other objects."""
        return f"{META}/incoming-{self.source.digest()[:16]}/"

    @contextmanager
    def index_file(self) -> Iterator[Path]:
        """Yield a path for an index on the volume. The file is deleted at the end."""
        path = self.state.path.with_suffix(".index")
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def with_progress(items: Iterable[T], advance: Callable[[int], None]) -> Iterator[T]:
    """Yield the items, and advance the progress by one for each."""
    for item in items:
        advance(1)
        yield item


def find_creating_stage(folder: str) -> str:
    """Return the stage that creates the data in a folder of this name."""
    return CREATING_STAGES[layout_of(folder)]
