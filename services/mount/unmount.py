"""Unmount the bucket, whichever process mounted it, dead or alive."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from larder.background import is_running
from larder.progress import Reporter
from larder.stage import StageOutcome
from larder.volume import remove_tree
from services.mount import mounts
from services.mount.mount_folder import PROCESS_ARGUMENTS, MountFolder
from services.mount.serve import GRACE_SECONDS
from services.mount.settings import MountSettings

_PAUSE_SECONDS = 0.05
_END_SECONDS = 3 * GRACE_SECONDS + 5


def unmount(settings: MountSettings, reporter: Reporter) -> StageOutcome:
    """End the process that serves the mount, and unmount what remains. Raises StorageError if that fails."""
    mount_folder = MountFolder(settings.mount_dir)
    if not mount_folder.folder.is_dir():
        return StageOutcome(f"nothing is mounted in {mount_folder.folder}", "")
    server = mount_folder.read_server()
    unmounted = (
        [str(mount_folder.mount_point(server.bucket))] if server and _end_process(mount_folder, reporter) else []
    )
    for item in reversed(mounts.list_mounts(mount_folder.folder)):
        if item.is_ours or item.point == mount_folder.mount_point(settings.bucket):
            grace = 0 if mounts.is_dead(item.point) else GRACE_SECONDS  # a dead mount has no readers
            mounts.unmount_or_detach(
                item.point, grace, lambda: reporter.event("busy", "files are open: waiting"), mounts.unmount
            )
            unmounted.append(str(item.point))
            _wait_for(mount_folder, GRACE_SECONDS)  # the process that served it, maybe in a container, now ends
    with mount_folder.try_lock() as locked:
        if locked:
            _remove_files(mount_folder, settings.bucket or (server.bucket if server else ""))
    return StageOutcome(
        f"unmounted {', '.join(unmounted)}" if unmounted else f"nothing is left mounted in {mount_folder.folder}", ""
    )


def _end_process(mount_folder: MountFolder, reporter: Reporter) -> bool:
    """End the process that serves the mount. Return False if it can't be reached."""
    pid = mount_folder.find_process()
    if pid is None:
        return False
    reporter.event("ending", f"ending process {pid}, which serves it")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not _wait_for(mount_folder, _END_SECONDS, pid):
        reporter.event("killing", f"process {pid} hangs: killing it")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _wait_for(mount_folder, _END_SECONDS, pid)
    return True


def _wait_for(mount_folder: MountFolder, seconds: float, pid: int | None = None) -> bool:
    """Wait until the folder is unlocked and the process has ended. Return whether both happened in time."""
    end = time.monotonic() + seconds
    while True:
        with mount_folder.try_lock() as locked:
            ended = locked and not (pid and is_running(pid, PROCESS_ARGUMENTS))
        if ended or time.monotonic() > end:
            return ended
        time.sleep(_PAUSE_SECONDS)


def _remove_files(mount_folder: MountFolder, bucket: str) -> None:
    if bucket:
        mount_folder.remove_files(bucket)
    if mount_folder.cache.is_dir():
        remove_tree(mount_folder.cache)
