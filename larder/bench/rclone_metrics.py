"""What rclone says of its traffic: its metrics, in Prometheus's text format, on a Unix socket.

Counted, in rclone 1.75: `rclone_bytes_transferred_total`, the bytes of files as they are handed to the reader, so
bodies without headers or listings; `rclone_http_status_code`, one for each answer to an HTTP request, whatever it says
and whatever it was for, so listings, HEAD and repeats count, and a request that was never answered doesn't.
"""

from __future__ import annotations

import os
import re
import socket
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from larder.errors import ServiceError
from larder.loaders.traffic import Network

BYTES, REQUESTS = "rclone_bytes_transferred_total", "rclone_http_status_code"
METRICS = "mount the bucket with rclone's metrics on a socket that this user may write (`--metrics-addr=unix://…`)"
"""A next step."""
_TIMEOUT_SECONDS = 10.0
_LONGEST_NAME_BYTES = 100  # of a socket; the kernels' limits are 108 and 104


def read(place: Path) -> Network:
    """The totals of the rclone that serves its metrics at the socket `place`. Raises ServiceError without an answer."""
    try:
        text = _get(place)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ServiceError(
            f"rclone doesn't tell its traffic at {place}: {reason}",
            next_step=METRICS,
        ) from error
    try:
        return parse(text)
    except ValueError as error:
        raise ServiceError(
            f"what answers at {place} has no such figures: {error}",
            next_step=METRICS,
        ) from error


def parse(text: str) -> Network:
    """The totals in Prometheus's text format (https://prometheus.io/docs/instrumenting/exposition_formats/).

    Raises ValueError when they aren't there. There are no requests before the first, and then no such line.
    """
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    transferred = _values(samples, BYTES)
    if not transferred:
        raise ValueError(f"there is no {BYTES}")
    return Network(sum(transferred), sum(_values(samples, REQUESTS)))


def _values(samples: list[str], name: str) -> list[int]:
    line = re.compile(rf"{name}(?:\{{.*\}})?\s+(\S+)")
    return [int(float(found[1])) for found in map(line.match, samples) if found]


def _get(place: Path) -> str:
    connection = _SocketConnection(place)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        if answer.status != 200:
            raise HTTPException(answer.reason)
        return answer.read().decode()
    finally:
        connection.close()


class _SocketConnection(HTTPConnection):
    def __init__(self, place: Path) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        if len(os.fsencode(self._place)) <= _LONGEST_NAME_BYTES:
            self.sock.connect(str(self._place))
            return
        folder = os.open(self._place.parent, os.O_RDONLY | os.O_DIRECTORY)  # a longer name goes through its folder
        try:
            self.sock.connect(f"/proc/self/fd/{folder}/{self._place.name}")
        finally:
            os.close(folder)
