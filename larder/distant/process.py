"""Start and stop the process that makes a store distant."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from larder.distant.link import UNLIMITED, Link, require_plain_http
from larder.distant.proxy import Traffic, read_counters
from larder.errors import ResourceError


class DistantStore(NamedTuple):
    """A running proxy."""

    endpoint: str
    """Its address, for clients in place of the store's."""
    counters: Path
    """Its traffic, for `read_counters`."""

    def traffic(self) -> Traffic:
        """Return what it has forwarded so far."""
        return read_counters(self.counters)


@contextmanager
def open_distant_store(endpoint: str, link: Link, folder: Path) -> Iterator[DistantStore]:
    """Run a proxy to a store while a block runs. It also ends if this process is killed.

    Args:
        endpoint: The store's address, http://host or http://host:port.
        link: What the proxy adds.
        folder: Folder for its counters and its log.

    Raises:
        ConfigurationError: If the store has TLS.
        ResourceError: If the proxy doesn't start.
    """
    require_plain_http(endpoint)
    counters, log = folder / "distant.counters", folder / "distant.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "larder.distant", f"--target={endpoint}", f"--counters={counters}"),
                *as_flags(link),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # Ctrl-C is for this process, which ends the other one
        )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port:
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ResourceError(
                f"the proxy that makes the store distant doesn't start: {lines[-1] if lines else 'it wrote nothing'}",
                next_step="free memory or ports, then run the same command again",
            )
        yield DistantStore(f"http://127.0.0.1:{port}", counters)
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def as_flags(link: Link) -> tuple[str, str]:
    """Return a link as flags of `python -m larder.distant`.

    Example:
        >>> as_flags(Link(0.02, None))
        ('--latency=20.000000ms', '--bandwidth=unlimited')
    """
    bandwidth = UNLIMITED if link.bits_per_s is None else f"{link.bits_per_s / 1000:f}kbit"
    return f"--latency={link.latency_s * 1000:f}ms", f"--bandwidth={bandwidth}"


def split_address(endpoint: str) -> tuple[str, int]:
    """Return host and port of a store's address.

    Example:
        >>> split_address("http://localhost:9000")
        ('localhost', 9000)
    """
    parts = urlsplit(endpoint)
    return parts.hostname or "", parts.port or 80
