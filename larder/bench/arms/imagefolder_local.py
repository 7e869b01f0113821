"""torchvision's ImageFolder over the tree on local disk, by PyTorch's DataLoader.

The baseline: training scripts that follow torchvision's own examples read like this.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench.arm_errors import map_arm_errors
from larder.bench.layout_locations import locate_tree
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.settings import LoaderSettings
from larder.loaders.image_folder import ImageFolderLoader
from larder.next_step import CREATED_BY
from larder.progress import Reporter


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `<data_dir>/<split>/class_XX/*.jpg`."""
    with map_arm_errors(type(settings), CREATED_BY["tree"]):
        loader = ImageFolderLoader(
            locate_tree(settings, reporter),
            settings.split,
            batch_size=settings.batch_size,
            workers=settings.workers,
            seed=settings.seed,
            reporter=reporter,
        )
        yield MeasuredLoader(loader, loader.network)
