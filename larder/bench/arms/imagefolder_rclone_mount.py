"""torchvision's ImageFolder over the bucket that rclone mounts, by PyTorch's DataLoader.

A training script reads like this if it treats object storage as a file system. The loader is the same as
`imagefolder_local`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from larder.bench import rclone_metrics
from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.layout_locations import locate_mounted_tree, mount_path
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.rclone_mount import check_mount, map_mount_errors
from larder.bench.settings import LoaderSettings
from larder.loaders.image_folder import ImageFolderLoader
from larder.next_step import CREATED_BY
from larder.progress import Reporter

SOCKET = ".rclone.sock"
"""The socket in the mount folder where rclone serves its metrics."""


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `<mount_dir>/<bucket>/[<prefix>/]<dataset>/<split>/class_XX/*.jpg`.

    Raises:
        ConfigurationError: If no bucket is set.
        InputError: If nothing is mounted, or it doesn't match its manifest.
        ServiceError: If rclone has died or gets no answers from the store.
    """
    require_bucket(settings, "imagefolder_rclone_mount")
    mount, socket = mount_path(settings), settings.mount_dir / SOCKET
    with map_arm_errors(type(settings), CREATED_BY["objects"]), map_mount_errors(mount):
        check_mount(mount)
        rclone_metrics.read_traffic(socket)  # fail before the work, not after it
        loader = ImageFolderLoader(
            locate_mounted_tree(settings, reporter),
            settings.split,
            batch_size=settings.batch_size,
            workers=settings.workers,
            seed=settings.seed,
            artifact="objects",
            reporter=reporter,
        )
        yield MeasuredLoader(
            loader, lambda: rclone_metrics.read_traffic(socket), lambda: rclone_metrics.read_traffic(socket).bytes
        )
