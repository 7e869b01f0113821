"""`python -m services.mount.mounter`: the one process with the right to mount. It reads nothing from the store.

It mounts FUSE at one mount point, which it was started with, and unmounts FUSE in that point's folder. Whoever holds
the other end of one of its channels can have it do nothing else: the stage, and rclone, by `bin/fusermount3`.

    asked               does                                            answers
    mount               mounts at the mount point                       done, and the handle of /dev/fuse
    unmount[\\0NAME]     unmounts the mount point, or NAME beside it     done
    detach[\\0NAME]      the same, also while files are open             done

What can't be done is answered with the system's words. It ends when nobody holds the other ends.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import cast

from services.mount import kernel
from services.mount.mounts import mounted_in

MOST_BYTES = 1000
DONE = b"done"
KIND = "fuse.rclone"


def serve(channels: Iterable[socket.socket], point: Path, source: str) -> None:
    """Do what is asked until nobody can ask any more."""
    with selectors.DefaultSelector() as asking:
        for channel in channels:
            asking.register(channel, selectors.EVENT_READ)
        while asking.get_map():
            for key, _ in asking.select():
                channel = cast(socket.socket, key.fileobj)
                if asked := _received(channel):
                    _answer(channel, asked, point, source)
                else:
                    asking.unregister(channel)


def _received(channel: socket.socket) -> bytes:
    """What is asked; nothing at the end."""
    try:
        return channel.recv(MOST_BYTES)
    except ConnectionError:
        return b""


def _answer(channel: socket.socket, asked: bytes, point: Path, source: str) -> None:
    handle = None
    try:
        handle = _do(asked, point, source)
        answer = DONE
    except (OSError, ValueError) as fault:
        answer = (getattr(fault, "strerror", None) or str(fault)).encode()[:MOST_BYTES]
    try:
        with suppress(OSError):  # who asked is gone
            if handle is None:
                channel.send(answer, socket.MSG_DONTWAIT)
            else:
                socket.send_fds(channel, [answer], [handle], socket.MSG_DONTWAIT)
    finally:
        if handle is not None:
            os.close(handle)  # when rclone ends, nobody holds it: then the kernel ends the mount


def _do(asked: bytes, point: Path, source: str) -> int | None:
    """Do one thing; returns the handle of /dev/fuse where it was to mount. Raises OSError, or ValueError."""
    if asked == b"mount":
        return _mount(point, source)
    command, _, name = asked.partition(b"\0")
    if command not in (b"unmount", b"detach"):
        raise ValueError("no such command")
    where = point.parent / os.fsdecode(name) if name else point
    if where.name in ("", ".", "..") or where.parent != point.parent or not _is_fuse(where):
        raise ValueError("no mount of FUSE in the folder")
    kernel.unmount(str(where), lazily=command == b"detach")
    return None


def _is_fuse(point: Path) -> bool:
    """Whether what was mounted last at a point is FUSE's."""
    kinds = [item.kind for item in mounted_in(point.parent) if item.point == point]
    return bool(kinds) and kinds[-1].startswith("fuse")


def _mount(point: Path, source: str) -> int:
    if any(item.point == point for item in mounted_in(point.parent)):
        raise ValueError("something is mounted there already")
    # By its handle: whoever owns the folder could put a link in the mount point's place meanwhile.
    target = os.open(point, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY)
    fuse = None
    try:
        if os.readlink(f"/proc/self/fd/{target}") != str(point):
            raise ValueError("the mount point is a link")
        fuse = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other"
        kernel.mount_fuse(source, KIND, f"/proc/self/fd/{target}", options)
        return fuse
    except BaseException:
        if fuse is not None:
            os.close(fuse)
        raise
    finally:
        os.close(target)


def main() -> int:
    """Serve the two channels whose numbers are given."""
    point, source, *numbers = sys.argv[1:]
    for ending in (signal.SIGINT, signal.SIGTERM):  # meant for the stage, which then has the mount taken away
        signal.signal(ending, signal.SIG_IGN)
    channels = [socket.socket(fileno=int(number)) for number in numbers]
    try:
        kernel.keep(kernel.SYS_ADMIN, kernel.DAC_OVERRIDE)
    except PermissionError:
        return 1  # which the stage explains
    channels[0].send(DONE)
    serve(channels, Path(point), source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
