"""Ports of the loopback interface: which are free, and which program listens on one that isn't."""

from __future__ import annotations

import socket
from itertools import islice

from larder.errors import ResourceError

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether a server could listen there now."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def require_free(port: int, otherwise: str) -> None:
    """Raise ResourceError when another program listens on `port`; its next step is to stop that, or `otherwise`."""
    if not is_free(port):
        raise ResourceError(f"port {port} is taken by {holder(port)}", next_step=f"stop that, or {otherwise}")


def free_above(port: int, count: int) -> list[int]:
    """Return the next `count` free ports above `port`. Raises ResourceError when there are not that many."""
    found = list(islice(filter(is_free, range(port + 1, 1 << 16)), count))
    if len(found) < count:
        raise ResourceError(
            f"there are only {len(found)} free ports above {port}, and the store needs {count}",
            next_step="set a lower port in S3_ENDPOINT_URL",
        )
    return found


def holder(port: int) -> str:
    """Return who listens on `port`, as "name (process 12)"; "another program" where the system doesn't tell."""
    import psutil  # here, since only a port that is taken needs it

    try:
        listening = [
            found.pid for found in psutil.net_connections("tcp")
            if found.status == psutil.CONN_LISTEN and found.laddr.port == port
        ]  # fmt: skip
        return next(f"{psutil.Process(pid).name()} (process {pid})" for pid in listening if pid)
    except (psutil.Error, StopIteration):  # another user's, or it has just ended
        return "another program"
