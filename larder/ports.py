"""Find free ports of the loopback interface, and the program that listens on a port in use."""

from __future__ import annotations

import socket
from itertools import islice

from larder.errors import ResourceError

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Return whether a server could listen on `port` now."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def require_free(port: int, otherwise: str) -> None:
    """Check that no program listens on a port.

    Args:
        port: The port.
        otherwise: What users can do instead of stopping that program, for the next step.

    Raises:
        ResourceError: If the port is in use.
    """
    if not is_free(port):
        raise ResourceError(f"port {port} is taken by {describe_listener(port)}", next_step=f"stop it, or {otherwise}")


def free_above(port: int, count: int) -> list[int]:
    """Return the next `count` free ports above `port`.

    Raises:
        ResourceError: If there are fewer.
    """
    ports = list(islice(filter(is_free, range(port + 1, 1 << 16)), count))
    if len(ports) < count:
        raise ResourceError(
            f"there are only {len(ports)} free ports above {port}, and the store needs {count}",
            next_step="set a lower port in S3_ENDPOINT_URL",
        )
    return ports


def describe_listener(port: int) -> str:
    """Return the program that listens on `port`, as "name (process 12)", or "another program" if it isn't known."""
    import psutil  # imported here because it is needed only if the port is in use

    try:
        listening = [
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        ]
        return next(f"{psutil.Process(pid).name()} (process {pid})" for pid in listening if pid)
    except (psutil.Error, StopIteration):  # the process is another user's, or has just ended
        return "another program"
