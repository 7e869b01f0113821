"""Check a bucket that rclone mounts, and explain its faults."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from larder.errors import InputError, ServiceError
from larder.loaders.failures import UnreadableFileError

REMOUNT = "remove a dead mount, then mount the bucket"
CHECK_STORE = "check whether the store answers, and whether objects were deleted from it"
_LOST = (errno.EIO, errno.ENOTCONN, errno.ECONNABORTED)


@contextmanager
def map_mount_errors(mount: Path) -> Iterator[None]:
    """Raise ServiceError for faults while reading the mount: rclone has died, or the store doesn't answer."""
    try:
        yield
    except OSError as error:
        if error.errno not in _LOST:
            raise
        check_mount(mount)
        raise ServiceError(f"{mount} can't be read: {error.strerror}", next_step=CHECK_STORE) from error
    except InputError as error:
        check_mount(mount)  # a dead mount can cause any error
        if isinstance(error.__cause__ or error.cause, UnreadableFileError):  # the file system failed, not the decoder
            raise ServiceError(error.what, next_step=CHECK_STORE) from error
        raise


def check_mount(mount: Path) -> None:
    """Raise InputError if nothing is mounted at `mount`, ServiceError if its rclone has died."""
    try:
        os.statvfs(mount)  # unlike stat, always forwarded to rclone by the kernel
    except FileNotFoundError:
        raise InputError(f"nothing is mounted at {mount}: there is no such folder", next_step=REMOUNT) from None
    except PermissionError:
        raise InputError(
            f"{mount} is mounted by another user and not accessible to user {os.getuid()}",
            next_step="mount it as this user, or so that all users may read it",
        ) from None
    except OSError as error:
        if error.errno not in _LOST:
            raise
        raise ServiceError(f"the mount at {mount} is dead: {error.strerror}", next_step=REMOUNT) from error
    if not os.path.ismount(mount):
        raise InputError(f"nothing is mounted at {mount}: it is a plain folder", next_step=REMOUNT)
