"""torchvision's ImageFolder over the bucket that rclone mounts, by PyTorch's DataLoader.

What a training script does that takes object storage for a file system: the code is `imagefolder_local`'s.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from larder.errors import InputError, ServiceError
from larder.progress import Reporter
from larder.volume import TREE
from services.bench import rclone_metrics
from services.bench.feed import Feed
from services.bench.imagefolder import open_imagefolder
from services.bench.inputs import bucket_of
from services.bench.settings import BenchSettings

SOCKET = ".rclone.sock"
"""Where in the mount folder rclone serves its metrics."""
_LOST = (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED)
_MOUNT = "run `make mount`, which also clears a dead mount away"
_STORE = "`make s3-check` looks at the store; `make etl-load` puts back what was deleted from it"


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `<mount_dir>/<bucket>/[<prefix>/]Food-11/<split>/class_XX/*.jpg`.

    Raises ConfigurationError without a bucket, InputError when nothing is mounted or it isn't what its manifest says,
    ServiceError when rclone has died or gets no answers from the store.
    """
    mount = settings.mount_dir / bucket_of(settings)
    check_mount(mount)
    socket = settings.mount_dir / SOCKET
    rclone_metrics.read(socket)  # before the work, not after it
    with (
        mount_faults(mount),
        open_imagefolder(
            mount / settings.prefix / TREE, "objects", "make etl-load", settings, reporter,
            lambda: rclone_metrics.read(socket), lambda: rclone_metrics.read(socket).bytes,
        ) as feed,
    ):  # fmt: skip
        yield feed


@contextmanager
def mount_faults(mount: Path) -> Iterator[None]:
    """A block that reads the mount: raises ServiceError when rclone has died or gets no answers from the store."""
    try:
        yield
    except OSError as error:
        if error.errno not in _LOST:
            raise
        check_mount(mount)
        raise ServiceError(f"{mount} can't be read: {error.strerror}", next_step=_STORE) from error
    except InputError as error:
        check_mount(mount)  # a dead mount is the cause of anything
        if _is_of_files(error.__cause__):
            raise ServiceError(error.what, next_step=_STORE) from error
        raise


def check_mount(mount: Path) -> None:
    """Raise InputError unless something is mounted at `mount`, ServiceError when its rclone has died."""
    try:
        os.statvfs(mount)  # which, unlike stat, the kernel always asks rclone for
    except FileNotFoundError:
        raise InputError(f"nothing is mounted at {mount}: there is no such folder", next_step=_MOUNT) from None
    except PermissionError:
        raise InputError(
            f"{mount} is another user's mount, which it is closed to user {os.getuid()}",
            next_step="mount it as this user, or run `make mount` with an engine, which opens it to all",
        ) from None
    except OSError as error:
        if error.errno not in _LOST:
            raise
        raise ServiceError(f"the mount at {mount} is dead: {error.strerror}", next_step=_MOUNT) from error
    if not os.path.ismount(mount):
        raise InputError(f"nothing is mounted at {mount}: it is a plain folder", next_step=_MOUNT)


def _is_of_files(error: BaseException | None) -> bool:
    """Whether the file system failed, and not a decoder."""
    from services.bench.recipe import UnreadableFileError

    return isinstance(error, UnreadableFileError)
