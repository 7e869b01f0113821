"""torchvision's ImageFolder over the tree on local disk, by PyTorch's DataLoader.

The baseline: what a training script does that follows torchvision's own examples.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.progress import Reporter
from services.bench.feed import Feed
from services.bench.imagefolder import open_imagefolder
from services.bench.settings import BenchSettings


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `<data_dir>/<split>/class_XX/*.jpg`."""
    with open_imagefolder(settings.data_dir, "tree", "make etl-local", settings, reporter) as feed:
        yield feed
