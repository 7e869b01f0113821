r"""`python -m services.mount.mounter`: the only process with the right to mount. It doesn't read from the store.

It mounts FUSE at one mount point, which is given at the start, and unmounts FUSE in that point's folder. The stage, and
rclone by `bin/fusermount3`, hold the other ends of its channels and can request nothing else:

    request             action                                           answer
    mount               mount at the mount point                         done, and the file descriptor of /dev/fuse
    unmount[\0NAME]      unmount the mount point, or NAME beside it       done
    detach[\0NAME]       the same, even while files are open              done

A failed request is answered with the system's error message. The process ends when all other ends are closed.
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
from services.mount.mounts import list_mounts

MAX_MESSAGE_BYTES = 1000
DONE = b"done"
KIND = "fuse.rclone"


def serve(channels: Iterable[socket.socket], point: Path, source: str) -> None:
    """Answer requests until all channels are closed."""
    with selectors.DefaultSelector() as selector:
        for channel in channels:
            selector.register(channel, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                channel = cast(socket.socket, key.fileobj)
                if request := _receive_request(channel):
                    _handle_request(channel, request, point, source)
                else:
                    selector.unregister(channel)


def _receive_request(channel: socket.socket) -> bytes:
    """Return a request, or nothing at the end."""
    try:
        return channel.recv(MAX_MESSAGE_BYTES)
    except ConnectionError:
        return b""


def _handle_request(channel: socket.socket, request: bytes, point: Path, source: str) -> None:
    handle = None
    try:
        handle = _execute(request, point, source)
        answer = DONE
    except (OSError, ValueError) as fault:
        answer = (getattr(fault, "strerror", None) or str(fault)).encode()[:MAX_MESSAGE_BYTES]
    try:
        with suppress(OSError):  # the requester has ended
            if handle is None:
                channel.send(answer, socket.MSG_DONTWAIT)
            else:
                socket.send_fds(channel, [answer], [handle], socket.MSG_DONTWAIT)
    finally:
        if handle is not None:
            os.close(handle)  # then only rclone holds it, and the kernel ends the mount with rclone


def _execute(request: bytes, point: Path, source: str) -> int | None:
    """Execute a request; return the file descriptor of /dev/fuse for a mount. Raises OSError or ValueError."""
    if request == b"mount":
        return _mount(point, source)
    command, _, name = request.partition(b"\0")
    if command not in (b"unmount", b"detach"):
        raise ValueError("no such command")
    where = point.parent / os.fsdecode(name) if name else point
    if where.name in ("", ".", "..") or where.parent != point.parent or not _is_fuse(where):
        raise ValueError("no FUSE mount in the folder")
    kernel.unmount(str(where), lazily=command == b"detach")
    return None


def _is_fuse(point: Path) -> bool:
    """Return whether the topmost mount at a point is FUSE's."""
    kinds = [item.kind for item in list_mounts(point.parent) if item.point == point]
    return bool(kinds) and kinds[-1].startswith("fuse")


def _mount(point: Path, source: str) -> int:
    if any(item.point == point for item in list_mounts(point.parent)):
        raise ValueError("something is mounted there already")
    # Mount through a file descriptor, since the folder's owner could replace the mount point by a link meanwhile.
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
    """Serve the two channels whose file descriptors are given."""
    point, source, *descriptors = sys.argv[1:]
    for stop_signal in (signal.SIGINT, signal.SIGTERM):  # meant for the stage, which then sends a request to unmount
        signal.signal(stop_signal, signal.SIG_IGN)
    channels = [socket.socket(fileno=int(descriptor)) for descriptor in descriptors]
    try:
        kernel.keep_capabilities(kernel.SYS_ADMIN, kernel.DAC_OVERRIDE)
    except PermissionError:
        return 1  # the stage explains it
    channels[0].send(DONE)
    serve(channels, Path(point), source)
    return 0


if __name__ == "__main__":
    sys.exit(main())
