"""Ports of the loopback interface: which are free, and who holds one that isn't."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from larder.errors import ResourceError

LOOPBACK = "127.0.0.1"
_LISTENING = "0A"  # linux/include/net/tcp_states.h


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def free_above(port: int, count: int) -> list[int]:
    """The next `count` free ports above `port`. Raises ResourceError when there are not that many."""
    found = list(islice(filter(is_free, range(port + 1, 1 << 16)), count))
    if len(found) < count:
        raise ResourceError(
            f"there are only {len(found)} free ports above {port}, and the store needs {count}",
            next_step="set a lower port in S3_ENDPOINT_URL",
        )
    return found


def holder(port: int) -> str:
    """The program that listens on `port`, as "name (process 12)"; "another program" where the system doesn't tell."""
    inodes = {f"socket:[{inode}]" for inode in _listening(port)}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(handle.readlink()) in inodes for handle in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
        except OSError:  # another user's, or it has just ended
            continue
    return "another program"


def _listening(port: int) -> Iterator[str]:
    """The sockets that listen on `port`, by inode (proc_net_tcp in the kernel's documentation)."""
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == _LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                yield words[9]
