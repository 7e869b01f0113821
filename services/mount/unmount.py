"""Takes the mount away, whoever made it and whether it is alive."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from larder.background import runs
from larder.progress import Reporter
from larder.stage import Outcome
from larder.volume import remove_tree
from services.mount import mounts
from services.mount.place import WORDS, Place
from services.mount.serve import GRACE_SECONDS
from services.mount.settings import MountSettings

_PAUSE_SECONDS = 0.05
_END_SECONDS = 3 * GRACE_SECONDS + 5


def unmount(settings: MountSettings, reporter: Reporter) -> Outcome:
    """End the process that serves the mount, and unmount what is then still there. Raises StorageError."""
    place = Place(settings.mount_dir)
    if not place.folder.is_dir():
        return Outcome(f"nothing is mounted in {place.folder}", "")
    server = place.server()
    done = [str(place.point(server.bucket))] if server and _end(place, reporter) else []
    for item in reversed(mounts.mounted_in(place.folder)):
        if item.ours or item.point == place.point(settings.bucket):
            grace = 0 if mounts.is_dead(item.point) else GRACE_SECONDS  # nobody can read from a dead one
            mounts.take_away(
                item.point, grace, lambda: reporter.event("busy", "files are open: waiting"), mounts.unmount
            )
            done.append(str(item.point))
            _wait_for(place, GRACE_SECONDS)  # whoever served it, in a container perhaps, now ends by itself
    with place.claim() as mine:
        if mine:
            _tidy(place, settings.bucket or (server.bucket if server else ""))
    return Outcome(f"unmounted {', '.join(done)}" if done else f"nothing is left mounted in {place.folder}", "")


def _end(place: Place, reporter: Reporter) -> bool:
    """End the process that serves the mount, where it is within reach."""
    pid = place.process()
    if pid is None:
        return False
    reporter.event("ending", f"ending process {pid}, which serves it")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if not _wait_for(place, _END_SECONDS, pid):
        reporter.event("killing", f"process {pid} hangs: killing it")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        _wait_for(place, _END_SECONDS, pid)
    return True


def _wait_for(place: Place, seconds: float, pid: int | None = None) -> bool:
    """Whether the folder is nobody's and the process has ended, at the latest after `seconds`."""
    end = time.monotonic() + seconds
    while True:
        with place.claim() as mine:
            gone = mine and not (pid and runs(pid, WORDS))
        if gone or time.monotonic() > end:
            return gone
        time.sleep(_PAUSE_SECONDS)


def _tidy(place: Place, bucket: str) -> None:
    if bucket:
        place.leave(bucket)
    if place.cache.is_dir():
        remove_tree(place.cache)
