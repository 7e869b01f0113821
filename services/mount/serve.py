"""Mounts the bucket and serves it until a signal comes, or rclone ends."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from larder.errors import ConfigurationError, LarderError, ServiceError, StorageError
from larder.next_step import Run
from larder.progress import LINE_INTERVAL_SECONDS, Reporter
from larder.s3_faults import FAULTS, explain
from larder.stage import Outcome
from larder.store import client
from larder.terminal import say
from services.mount import mounts
from services.mount.confine import Mounter, confine
from services.mount.place import Place, Server
from services.mount.process import Rclone
from services.mount.settings import MountSettings

GRACE_SECONDS = 5.0
"""How long open files hold up the end."""
READY_SECONDS = 60.0
UNMOUNT = Run("mount", "unmount")
_PAUSE_SECONDS = 0.05
_END_SECONDS = 3.0
"""How long rclone may take to end, before each of SIGTERM and SIGKILL."""
_FUSE, _FUSE_CONF = Path("/dev/fuse"), Path("/etc/fuse.conf")


def serve(settings: MountSettings, reporter: Reporter) -> Outcome:
    """Mount the bucket and serve it. The path is printed when it answers.

    Raises ConfigurationError when nothing can be mounted here or the store refuses, StorageError when the mount point
    is in use, ServiceError when the store doesn't answer or rclone ends by itself.
    """
    if os.geteuid() != 0:
        mounts.helper()
    if not _FUSE.exists():
        raise ConfigurationError(
            "/dev/fuse is missing, so nothing can be mounted",
            next_step="load the module (`sudo modprobe fuse`); a container needs `--device /dev/fuse`",
        )
    place = Place(settings.mount_dir)
    place.make()
    while True:
        with place.claim() as mine:
            if mine:
                return _serve_alone(settings, place, reporter)
        if _joined(settings, place):
            say(str(place.point(settings.bucket)))
            return Outcome(
                f"up to date: s3://{settings.bucket} is mounted at {place.point(settings.bucket)} already", ""
            )


def _serve_alone(settings: MountSettings, place: Place, reporter: Reporter) -> Outcome:
    """Mount and serve in a folder that is this process's alone. Root gives up its rights first."""
    mounter = confine(place, settings) if os.geteuid() == 0 else None
    try:
        _clear(settings, place, _unmount_by(mounter), reporter)
        look(settings, reporter)
        _make_point(place.point(settings.bucket))
        return _serve(settings, place, mounter, reporter)
    finally:
        if mounter is not None:
            mounter.end()


def _unmount_by(mounter: Mounter | None) -> mounts.Unmount:
    return mounts.unmount if mounter is None else mounter.unmount


def look(settings: MountSettings, reporter: Reporter) -> None:
    """See that the bucket is there and may be listed: rclone itself would mount, and fail at the first read."""
    where = f"s3://{settings.bucket}"
    reporter.event("look", f"looking at {where} on {settings.s3_endpoint_url or 'AWS'}")
    try:
        answer = client(settings, attempts=2).list_objects_v2(Bucket=settings.bucket, MaxKeys=1)
    except FAULTS as fault:
        raise explain(fault, f"listing {where}", settings.s3_endpoint_url) from fault
    if not answer.get("KeyCount", len(answer.get("Contents", ()))):
        reporter.event("empty", f"{where} is empty so far")


def _joined(settings: MountSettings, place: Place) -> bool:
    """Wait until the mount that another process serves here answers. False when that process has ended instead."""
    point, end = place.point(settings.bucket), time.monotonic() + READY_SECONDS
    fault = "it is about to be mounted, or unmounted"
    while time.monotonic() < end:
        if server := place.server():
            _check_same(server, settings, place)
        if any(item.ours and item.point == point for item in mounts.mounted_in(place.folder)):
            fault = mounts.fault_of(point)
            if not fault:
                return True
        with place.claim() as free:
            if free:
                return False
        time.sleep(_PAUSE_SECONDS)
    raise StorageError(
        f"another process serves {point}, and it doesn't answer: {fault}",
        next_step=f"run {UNMOUNT}, then this again",
    )


def _check_same(server: Server, settings: MountSettings, place: Place) -> None:
    """Raise ConfigurationError unless what is served here is what is wanted."""
    if server.bucket != settings.bucket:
        raise ConfigurationError(
            f"s3://{server.bucket} is mounted in {place.folder}, and a folder takes one bucket at a time",
            next_step=f"run {UNMOUNT} first, or set LARDER_MOUNT_DIR to another folder",
        )
    wanted = settings.shape()
    if others := [f"{name}={value}" for name, value in server.shape.items() if wanted.get(name) != value]:
        raise ConfigurationError(
            f"s3://{server.bucket} is mounted in {place.folder} already, with other settings: {', '.join(others)}",
            next_step=f"run {UNMOUNT} first, or leave these settings as they are",
        )


def _clear(settings: MountSettings, place: Place, unmount: mounts.Unmount, reporter: Reporter) -> None:
    """Take away what a killed run has left: nobody holds the folder, so nobody serves our mounts in it."""
    point = place.point(settings.bucket)
    for item in reversed(mounts.mounted_in(place.folder)):
        if item.ours or (item.point == point and item.kind.startswith("fuse") and mounts.is_dead(point)):
            reporter.event("cleared", f"taking away the dead mount that an earlier run left at {item.point}")
            mounts.take_away(item.point, 0, lambda: None, unmount)
        elif item.point == point:
            raise StorageError(
                f"something else is mounted at {point} ({item.kind} of {item.source})",
                next_step="unmount that first, or set LARDER_MOUNT_DIR to another folder",
            )
    place.leave(settings.bucket)


def _make_point(point: Path) -> None:
    try:
        point.mkdir(exist_ok=True)
        used = any(os.scandir(point))
    except (FileExistsError, NotADirectoryError):
        used = True
    if used:
        raise StorageError(
            f"{point} is not an empty folder: the mount would hide what is in it",
            next_step="move that away, or set LARDER_MOUNT_DIR to another folder",
        )


def _for_everybody(reporter: Reporter) -> bool:
    """Whether an ordinary user's mount may be read by others: FUSE leaves that to whom root allows it."""
    if _FUSE_CONF.exists() and re.search(r"^\s*user_allow_other\s*$", _FUSE_CONF.read_text(), re.MULTILINE):
        return True
    reporter.event(
        "private", f"only you (user {os.geteuid()}) will see the mount; for others, containers included, write a line "
        f"`user_allow_other` into {_FUSE_CONF}",
    )  # fmt: skip
    return False


def _serve(settings: MountSettings, place: Place, mounter: Mounter | None, reporter: Reporter) -> Outcome:
    where = f"s3://{settings.bucket}"
    point = place.point(settings.bucket)
    everybody = mounter is not None or _for_everybody(reporter)
    place.enter(settings.bucket, settings.shape())
    stop = threading.Event()
    with _signals(stop) as signalled:
        rclone = Rclone(settings, place, everybody, mounter, reporter, stop.set)
        try:
            ready = _wait_until_it_answers(place, point, rclone, stop, reporter)
            if ready:
                said = f"{where} is mounted at {point}, read-only"
                reporter.event("mounted", said, path=str(point), pid=os.getpid())
                say(str(point))
                stop.wait()
            code = rclone.code()
        finally:
            _end(place, settings.bucket, rclone, _unmount_by(mounter), reporter)
    if code is not None:
        return _ended(where, ready, code, rclone)
    if not ready:
        raise KeyboardInterrupt
    return Outcome(f"{where} is unmounted ({signalled[0]})", "")


@contextmanager
def _signals(stop: threading.Event) -> Iterator[list[str]]:
    """Have SIGTERM and SIGINT set `stop`, so that neither breaks into the unmounting. Gives the signals that came."""
    came: list[str] = []

    def note(number: int, _: object) -> None:
        came.append(signal.Signals(number).name)
        stop.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until_it_answers(
    place: Place, point: Path, rclone: Rclone, stop: threading.Event, reporter: Reporter
) -> bool:
    """Wait until the kernel lists the mount point from the store. False when `stop` was set before."""
    start = said = time.monotonic()
    listing, fault = None, "nothing is mounted yet"
    while not stop.wait(_PAUSE_SECONDS):
        now = time.monotonic()
        if now - start > READY_SECONDS:
            raise ServiceError(
                f"{point} doesn't answer: {fault}; {rclone.last_words()}".rstrip("; "),
                next_step=f"run {Run('s3', 'check')}, which looks at the store; then this again",
            )
        if now - said > LINE_INTERVAL_SECONDS:
            said = now
            reporter.event("waiting", f"waiting for the mount, {now - start:.0f} s so far: {fault}")
        if not place.socket.exists() or not any(item.point == point for item in mounts.mounted_in(place.folder)):
            continue
        listing = listing or mounts.start_listing(point)
        if listing.poll() is None:
            fault = "no answer to a first listing yet"
        elif listing.returncode == 0:
            place.socket.chmod(0o666)  # to connect, others need the right to write
            return True
        else:
            fault = listing.communicate()[1].strip()
            listing = None
    return False


def _end(place: Place, bucket: str, rclone: Rclone, unmount: mounts.Unmount, reporter: Reporter) -> None:
    """Unmount, let rclone end, and remove what lies about."""
    point = place.point(bucket)

    def say_busy() -> None:
        reporter.event("busy", f"files in {point} are open: waiting up to {GRACE_SECONDS:.0f} s for them")

    idle = False
    try:
        grace = GRACE_SECONDS if rclone.code() is None else 0  # nobody reads from a dead one
        for item in mounts.mounted_in(place.folder):
            if item.point == point:
                idle = mounts.take_away(point, grace, say_busy, unmount)
                if not idle and grace:
                    reporter.event("lazy", "they stay open: the mount goes all the same, and reads from them will fail")
    finally:
        rclone.end(_END_SECONDS, at_once=not idle)
        place.leave(bucket)


def _ended(where: str, ready: bool, code: int, rclone: Rclone) -> Outcome:
    """What it means that rclone ended by itself."""
    if ready and code == 0:
        return Outcome(f"{where} was unmounted by somebody else", "")
    raise _failure(where, ready, rclone.last_words())


def _failure(where: str, ready: bool, words: str) -> LarderError:
    if not ready and "fusermount" in words:
        return ConfigurationError(
            f"{where} can't be mounted here: {words}",
            next_step="a container needs /dev/fuse, its rights, and no AppArmor profile against mounting, as in "
            "compose/mount.yaml; a user needs the right to /dev/fuse",
        )
    return ServiceError(f"{where} is no longer mounted: rclone has ended ({words})", next_step="mount it again")
