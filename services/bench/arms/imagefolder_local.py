"""torchvision's ImageFolder over the tree on local disk, by PyTorch's DataLoader.

The baseline: what a training script does that follows torchvision's own examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.feed import Feed
from larder.bench.places import tree_of
from larder.loaders.image_folder import ImageFolderLoader
from larder.next_step import MAKES
from larder.progress import Reporter
from services.bench.settings import BenchSettings
from services.bench.steps import helpful


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `<data_dir>/<split>/class_XX/*.jpg`."""
    with helpful(MAKES["tree"]):
        loader = ImageFolderLoader(
            tree_of(settings, reporter), settings.split, batch_size=settings.batch_size, workers=settings.workers,
            seed=settings.seed, reporter=reporter,
        )  # fmt: skip
        yield Feed(loader, loader.network)
