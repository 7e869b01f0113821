"""Read rclone's traffic from its metrics, in Prometheus's text format, on a Unix socket.

rclone 1.75 counts these:

- `rclone_bytes_transferred_total`: bytes of files as they are passed to the reader; bodies only, no headers or
  listings.
- `rclone_http_status_code`: one per HTTP response, of any status and any kind of request. Listings, HEAD requests and
  retries count; a request without a response doesn't.
- `process_cpu_seconds_total`: rclone's user and system time.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TypeVar

from larder.errors import ServiceError
from larder.loaders.traffic import NetworkTraffic

T = TypeVar("T")

BYTES, REQUESTS = "rclone_bytes_transferred_total", "rclone_http_status_code"
CPU = "process_cpu_seconds_total"
SERVE_METRICS = (
    "mount the bucket with rclone's metrics on a socket that this user may write (`--metrics-addr=unix://…`)"
)
"""Next step of an error."""
_TIMEOUT_SECONDS = 10.0
_MAX_NAME_BYTES = 100  # of a socket's path; the limits are 108 on Linux and 104 on macOS


def read_traffic(socket_path: Path) -> NetworkTraffic:
    """Return the totals of the rclone that serves metrics at a socket. Raise ServiceError if none does."""
    return _read(socket_path, parse)


def read_cpu_seconds(socket_path: Path) -> float:
    """Return the CPU time of the rclone that serves metrics at a socket. Raise ServiceError if none does."""
    return _read(socket_path, parse_cpu_seconds)


def _read(socket_path: Path, parse_text: Callable[[str], T]) -> T:
    try:
        text = _get(socket_path)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ServiceError(
            f"rclone doesn't report its traffic at {socket_path}: {reason}",
            next_step=SERVE_METRICS,
        ) from error
    try:
        return parse_text(text)
    except ValueError as error:
        raise ServiceError(
            f"the program that answers at {socket_path} isn't rclone, or an old one: {error}",
            next_step=SERVE_METRICS,
        ) from error


def parse(text: str) -> NetworkTraffic:
    """Return the totals in Prometheus's text format (https://prometheus.io/docs/instrumenting/exposition_formats/).

    rclone omits the counter of requests until the first one; then it is 0.

    Raises:
        ValueError: If the bytes are missing.
    """
    transferred = _values(text, BYTES)
    if not transferred:
        raise ValueError(f"there is no {BYTES}")
    return NetworkTraffic(int(sum(transferred)), int(sum(_values(text, REQUESTS))))


def parse_cpu_seconds(text: str) -> float:
    """Return the CPU time in the same format.

    Raises:
        ValueError: If it is missing.
    """
    seconds = _values(text, CPU)
    if not seconds:
        raise ValueError(f"there is no {CPU}")
    return seconds[0]


def _values(text: str, name: str) -> list[float]:
    line = re.compile(rf"{name}(?:\{{.*\}})?\s+(\S+)")
    samples = (line.match(sample) for sample in text.splitlines() if not sample.startswith("#"))
    return [float(match[1]) for match in samples if match]


def _get(socket_path: Path) -> str:
    connection = _SocketConnection(socket_path)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        if response.status != 200:
            raise HTTPException(response.reason)
        return response.read().decode()
    finally:
        connection.close()


class _SocketConnection(HTTPConnection):
    def __init__(self, socket_path: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._socket_path = socket_path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        if len(os.fsencode(self._socket_path)) <= _MAX_NAME_BYTES:
            self.sock.connect(str(self._socket_path))
            return
        folder = os.open(self._socket_path.parent, os.O_RDONLY | os.O_DIRECTORY)  # shortens the path of the socket
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._socket_path.name}")
        finally:
            os.close(folder)
