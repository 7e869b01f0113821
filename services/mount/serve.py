"""Mount the bucket and serve it until a signal arrives or rclone ends."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from larder.errors import ConfigurationError, LarderError, ServiceError, StorageError
from larder.next_step import StageRun
from larder.progress import LINE_INTERVAL_SECONDS, Reporter
from larder.s3_faults import S3_ERRORS, explain_s3_error
from larder.stage import StageOutcome
from larder.store import make_client
from larder.terminal import print_escaped
from services.mount import mounts
from services.mount.confine import Mounter, confine
from services.mount.mount_folder import MountFolder, MountServer
from services.mount.rclone_process import RcloneMount
from services.mount.settings import MountSettings
from services.mount.stop_flag import StopFlag

GRACE_SECONDS = 5.0
"""Maximum wait for open files at the end."""
READY_SECONDS = 60.0
UNMOUNT = StageRun("mount", "unmount")
_PAUSE_SECONDS = 0.05
_END_SECONDS = 3.0
"""Time for rclone to end, before SIGTERM and again before SIGKILL."""
_FUSE, _FUSE_CONF = Path("/dev/fuse"), Path("/etc/fuse.conf")


def serve(settings: MountSettings, reporter: Reporter) -> StageOutcome:
    """Mount the bucket and serve it. Print its path when it answers.

    Raises:
        ConfigurationError: If mounting is impossible here, or the store refuses.
        StorageError: If the mount point is in use.
        ServiceError: If the store doesn't answer, or rclone ends by itself.
    """
    if os.geteuid() != 0:
        mounts.find_fusermount()
    if not _FUSE.exists():
        raise ConfigurationError(
            "/dev/fuse is missing, so nothing can be mounted",
            next_step="load the module (`sudo modprobe fuse`); a container needs `--device /dev/fuse`",
        )
    mount_folder = MountFolder(settings.mount_dir)
    mount_folder.create()
    while True:
        with mount_folder.try_lock() as locked:
            if locked:
                return _serve_locked(settings, mount_folder, reporter)
        if _wait_for_other_mount(settings, mount_folder):
            print_escaped(str(mount_folder.mount_point(settings.bucket)))
            return StageOutcome(
                f"up to date: s3://{settings.bucket} is mounted at {mount_folder.mount_point(settings.bucket)} already",
                "",
            )


def _serve_locked(settings: MountSettings, mount_folder: MountFolder, reporter: Reporter) -> StageOutcome:
    """Mount and serve in a folder that this process has locked. Root gives up its rights first."""
    mounter = confine(mount_folder, settings) if os.geteuid() == 0 else None
    try:
        _unmount_leftovers(settings, mount_folder, _unmount_by(mounter), reporter)
        require_listable_bucket(settings, reporter)
        _create_mount_point(mount_folder.mount_point(settings.bucket))
        return _serve(settings, mount_folder, mounter, reporter)
    finally:
        if mounter is not None:
            mounter.end()


def _unmount_by(mounter: Mounter | None) -> mounts.UnmountFunction:
    return mounts.unmount if mounter is None else mounter.unmount


def require_listable_bucket(settings: MountSettings, reporter: Reporter) -> None:
    """Check that the bucket exists and may be listed: rclone would mount it anyway, and fail at the first read."""
    where = f"s3://{settings.bucket}"
    reporter.event("look", f"checking {where} at {settings.s3_endpoint_url or 'AWS'}")
    try:
        response = make_client(settings, attempts=2).list_objects_v2(Bucket=settings.bucket, MaxKeys=1)
    except S3_ERRORS as fault:
        raise explain_s3_error(fault, f"listing {where}", settings.s3_endpoint_url) from fault
    if not response.get("KeyCount", len(response.get("Contents", ()))):
        reporter.event("empty", f"{where} is empty so far")


def _wait_for_other_mount(settings: MountSettings, mount_folder: MountFolder) -> bool:
    """Wait until another process's mount in this folder answers. Return False if that process ends first."""
    point, end = mount_folder.mount_point(settings.bucket), time.monotonic() + READY_SECONDS
    fault = "it is about to be mounted, or unmounted"
    while time.monotonic() < end:
        if server := mount_folder.read_server():
            _require_same_mount(server, settings, mount_folder)
        if any(item.is_ours and item.point == point for item in mounts.list_mounts(mount_folder.folder)):
            fault = mounts.find_mount_error(point)
            if not fault and not mount_folder.has_server_ended():  # else its rclone is about to end, too
                return True
        with mount_folder.try_lock() as free:
            if free:
                return False
        time.sleep(_PAUSE_SECONDS)
    raise StorageError(
        f"another process serves {point}, and it doesn't answer: {fault}",
        next_step=f"run {UNMOUNT}, then this again",
    )


def _require_same_mount(server: MountServer, settings: MountSettings, mount_folder: MountFolder) -> None:
    """Raise ConfigurationError unless the other process serves the same bucket with the same settings."""
    if server.bucket != settings.bucket:
        raise ConfigurationError(
            f"s3://{server.bucket} is mounted in {mount_folder.folder}, and a folder holds one bucket at a time",
            next_step=f"run {UNMOUNT} first, or set LARDER_MOUNT_DIR to another folder",
        )
    expected = settings.shape()
    if different := [f"{name}={value}" for name, value in server.shape.items() if expected.get(name) != value]:
        raise ConfigurationError(
            f"s3://{server.bucket} is mounted in {mount_folder.folder} with other settings: {', '.join(different)}",
            next_step=f"run {UNMOUNT} first, or leave these settings as they are",
        )


def _unmount_leftovers(
    settings: MountSettings, mount_folder: MountFolder, unmount: mounts.UnmountFunction, reporter: Reporter
) -> None:
    """Unmount what a killed run left. No process holds the lock, so none serves larder's mounts here."""
    point = mount_folder.mount_point(settings.bucket)
    for item in reversed(mounts.list_mounts(mount_folder.folder)):
        if item.is_ours or (item.point == point and item.kind.startswith("fuse") and mounts.is_dead(point)):
            reporter.event("cleared", f"removing the dead mount of an earlier run at {item.point}")
            mounts.unmount_or_detach(item.point, 0, lambda: None, unmount)
        elif item.point == point:
            raise StorageError(
                f"something else is mounted at {point} ({item.kind} of {item.source})",
                next_step="unmount that first, or set LARDER_MOUNT_DIR to another folder",
            )
    mount_folder.remove_files(settings.bucket)


def _create_mount_point(point: Path) -> None:
    try:
        point.mkdir(exist_ok=True)
        used = any(os.scandir(point))
    except (FileExistsError, NotADirectoryError):
        used = True
    if used:
        raise StorageError(
            f"{point} is not an empty folder: the mount would hide what is in it",
            next_step="empty it, or set LARDER_MOUNT_DIR to another folder",
        )


def _allows_other_users(reporter: Reporter) -> bool:
    """Return whether other users may read an ordinary user's mount, which root must allow in fuse.conf."""
    if _FUSE_CONF.exists() and re.search(r"^\s*user_allow_other\s*$", _FUSE_CONF.read_text(), re.MULTILINE):
        return True
    reporter.event(
        "private",
        f"only you (user {os.geteuid()}) will see the mount; for others, containers included, write a line "
        f"`user_allow_other` into {_FUSE_CONF}",
    )
    return False


def _serve(
    settings: MountSettings, mount_folder: MountFolder, mounter: Mounter | None, reporter: Reporter
) -> StageOutcome:
    where = f"s3://{settings.bucket}"
    point = mount_folder.mount_point(settings.bucket)
    allow_other = mounter is not None or _allows_other_users(reporter)
    mount_folder.record_server(settings.bucket, settings.shape())
    stop = StopFlag()
    with _signals(stop) as signals_received:
        rclone = RcloneMount(settings, mount_folder, allow_other, mounter, reporter, stop.set)
        try:
            ready = _wait_until_it_answers(mount_folder, point, rclone, stop, reporter)
            if ready:
                message = f"{where} is mounted at {point}, read-only"
                reporter.event("mounted", message, path=str(point), pid=os.getpid())
                print_escaped(str(point))
                stop.wait()
            code = rclone.code()
        finally:
            _stop(mount_folder, settings.bucket, rclone, _unmount_by(mounter), reporter)
    if code is not None:
        return _handle_rclone_end(where, ready, code, rclone)
    if not ready:
        raise KeyboardInterrupt
    return StageOutcome(f"{where} is unmounted ({signals_received[0]})", "")


@contextmanager
def _signals(stop: StopFlag) -> Iterator[list[str]]:
    """Let SIGTERM and SIGINT set `stop`, so that they don't interrupt unmounting. Yield the signals that arrived."""
    received: list[str] = []

    def record(number: int, _: object) -> None:
        received.append(signal.Signals(number).name)
        stop.set()

    previous = {number: signal.signal(number, record) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _wait_until_it_answers(
    mount_folder: MountFolder, point: Path, rclone: RcloneMount, stop: StopFlag, reporter: Reporter
) -> bool:
    """Wait until the mount point can be listed. Return False if `stop` is set first."""
    start = last_report = time.monotonic()
    listing, fault = None, "nothing is mounted yet"
    while not stop.wait(_PAUSE_SECONDS):
        now = time.monotonic()
        if now - start > READY_SECONDS:
            raise ServiceError(
                f"{point} doesn't answer: {fault}; {rclone.describe_end()}".rstrip("; "),
                next_step=f"run {StageRun('s3', 'check')}, which diagnoses the store; then this again",
            )
        if now - last_report > LINE_INTERVAL_SECONDS:
            last_report = now
            reporter.event("waiting", f"waiting for the mount, {now - start:.0f} s so far: {fault}")
        if not mount_folder.socket.exists() or not any(
            item.point == point for item in mounts.list_mounts(mount_folder.folder)
        ):
            continue
        listing = listing or mounts.start_listing(point)
        if listing.poll() is None:
            fault = "no answer to a first listing yet"
        elif listing.returncode == 0:
            mount_folder.socket.chmod(0o666)  # other users need write permission to connect
            return True
        else:
            fault = listing.communicate()[1].strip()
            listing = None
    return False


def _stop(
    mount_folder: MountFolder, bucket: str, rclone: RcloneMount, unmount: mounts.UnmountFunction, reporter: Reporter
) -> None:
    """Unmount, end rclone, and remove the mount's files."""
    point = mount_folder.mount_point(bucket)

    def report_busy() -> None:
        reporter.event("busy", f"files in {point} are open: waiting up to {GRACE_SECONDS:.0f} s for them")

    idle = False
    try:
        grace = GRACE_SECONDS if rclone.code() is None else 0  # a dead mount has no readers
        for item in mounts.list_mounts(mount_folder.folder):
            if item.point == point:
                idle = mounts.unmount_or_detach(point, grace, report_busy, unmount)
                if not idle and grace:
                    reporter.event("lazy", "they stay open: unmounting anyway, so reads from them will fail")
    finally:
        rclone.end(_END_SECONDS, at_once=not idle)
        mount_folder.remove_files(bucket)


def _handle_rclone_end(where: str, ready: bool, code: int, rclone: RcloneMount) -> StageOutcome:
    """Return the outcome, or raise the error, for rclone having ended by itself."""
    if ready and code == 0:
        return StageOutcome(f"{where} was unmounted by somebody else", "")
    raise _rclone_end_error(where, ready, rclone.describe_end())


def _rclone_end_error(where: str, ready: bool, reason: str) -> LarderError:
    if not ready and "fusermount" in reason:
        return ConfigurationError(
            f"{where} can't be mounted here: {reason}",
            next_step="a container needs /dev/fuse, its rights, and no AppArmor profile against mounting, as in "
            "compose/mount.yaml; a user needs access to /dev/fuse",
        )
    return ServiceError(f"{where} is no longer mounted: rclone has ended ({reason})", next_step="mount it again")
