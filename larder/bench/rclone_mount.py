"""A bucket that rclone mounts: whether it is there, and what its faults mean."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from larder.errors import InputError, ServiceError
from larder.loaders.failures import UnreadableFileError

MOUNT = "mount the bucket, after a dead mount was cleared away"
STORE = "see whether the store answers, and whether objects were deleted from it"
_LOST = (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED)


@contextmanager
def mount_faults(mount: Path) -> Iterator[None]:
    """A block that reads the mount: raises ServiceError when rclone has died or gets no answers from the store."""
    try:
        yield
    except OSError as error:
        if error.errno not in _LOST:
            raise
        check_mount(mount)
        raise ServiceError(f"{mount} can't be read: {error.strerror}", next_step=STORE) from error
    except InputError as error:
        check_mount(mount)  # a dead mount is the cause of anything
        if isinstance(error.__cause__, UnreadableFileError):  # the file system failed, and not a decoder
            raise ServiceError(error.what, next_step=STORE) from error
        raise


def check_mount(mount: Path) -> None:
    """Raise InputError unless something is mounted at `mount`, ServiceError when its rclone has died."""
    try:
        os.statvfs(mount)  # which, unlike stat, the kernel always asks rclone for
    except FileNotFoundError:
        raise InputError(f"nothing is mounted at {mount}: there is no such folder", next_step=MOUNT) from None
    except PermissionError:
        raise InputError(
            f"{mount} is mounted by another user and not accessible to user {os.getuid()}",
            next_step="mount it as this user, or so that all users may read it",
        ) from None
    except OSError as error:
        if error.errno not in _LOST:
            raise
        raise ServiceError(f"the mount at {mount} is dead: {error.strerror}", next_step=MOUNT) from error
    if not os.path.ismount(mount):
        raise InputError(f"nothing is mounted at {mount}: it is a plain folder", next_step=MOUNT)
