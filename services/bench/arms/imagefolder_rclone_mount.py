"""torchvision's ImageFolder over the bucket that rclone mounts, by PyTorch's DataLoader.

What a training script does that takes object storage for a file system: the loader is `imagefolder_local`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench import rclone_metrics
from larder.bench.feed import Feed
from larder.bench.places import mount_of, mounted_tree_of
from larder.bench.rclone_mount import check_mount, mount_faults
from larder.loaders.image_folder import ImageFolderLoader
from larder.next_step import MAKES
from larder.progress import Reporter
from services.bench.settings import BenchSettings
from services.bench.steps import helpful, require_bucket

SOCKET = ".rclone.sock"
"""Where in the mount folder rclone serves its metrics."""


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `<mount_dir>/<bucket>/[<prefix>/]<data set>/<split>/class_XX/*.jpg`.

    Raises ConfigurationError without a bucket, InputError when nothing is mounted or it isn't what its manifest says,
    ServiceError when rclone has died or gets no answers from the store.
    """
    require_bucket(settings)
    mount, socket = mount_of(settings), settings.mount_dir / SOCKET
    with helpful(MAKES["objects"]), mount_faults(mount):
        check_mount(mount)
        rclone_metrics.read(socket)  # before the work, not after it
        loader = ImageFolderLoader(
            mounted_tree_of(settings, reporter), settings.split, batch_size=settings.batch_size,
            workers=settings.workers, seed=settings.seed, artifact="objects", reporter=reporter,
        )  # fmt: skip
        yield Feed(loader, lambda: rclone_metrics.read(socket), lambda: rclone_metrics.read(socket).bytes)
