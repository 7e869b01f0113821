"""Find out whether an address is a link's: the proxy itself answers one request, which no store does.

So nobody has to be told which link a store is behind: not a container that runs since before the link was changed, and
not a program that was started by hand.
"""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

from larder.distant.link import MAX_LATENCY_SECONDS, Link

QUESTION = b"GET /_larder/link HTTP/1.1\r\n"
"""How the request begins. No bucket has such a name."""
_CONNECT_SECONDS = 3.0
_ANSWER_SECONDS = MAX_LATENCY_SECONDS + 5
_MAX_BYTES = 2048
_OK = b"HTTP/1.1 200 "


def make_answer(link: Link) -> bytes:
    """Return the response of a link."""
    body = json.dumps({"link": link._asdict()}).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def find_link(endpoint: str) -> Link | None:
    """Return the link through which a store is reached; None if the address is the store's own, or nothing answers.

    Args:
        endpoint: The store's address. Only those with http can be a link's.
    """
    try:
        parts = urlsplit(endpoint)
        if parts.scheme != "http" or not parts.hostname:
            return None
        with socket.create_connection((parts.hostname, parts.port or 80), _CONNECT_SECONDS) as connection:
            connection.settimeout(_CONNECT_SECONDS)
            connection.sendall(QUESTION + f"Host: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            return _parse(_receive(connection))
    except (OSError, ValueError, RecursionError):  # the last one for JSON with thousands of brackets
        return None


def _receive(connection: socket.socket) -> bytes:
    """Return a response, or the beginning of one that isn't a link's."""
    data, deadline = b"", time.monotonic() + _ANSWER_SECONDS
    while len(data) <= _MAX_BYTES and data[: len(_OK)] == _OK[: len(data)]:
        connection.settimeout(max(deadline - time.monotonic(), 0.001))
        part = connection.recv(_MAX_BYTES)
        if not part:
            break
        data += part
    return data


def _parse(response: bytes) -> Link | None:
    """Return the link that a response describes; None if it describes none. Raise ValueError if it isn't JSON."""
    head, _, body = response.partition(b"\r\n\r\n")
    if not head.startswith(_OK):
        return None
    fields = json.loads(body)
    link = fields.get("link") if isinstance(fields, dict) else None
    if not isinstance(link, dict):
        return None
    latency, bits = link.get("latency_s"), link.get("bits_per_s")
    if isinstance(latency, bool) or not isinstance(latency, (int, float)) or not 0 <= latency <= MAX_LATENCY_SECONDS:
        return None
    is_limit = isinstance(bits, int) and not isinstance(bits, bool) and bits > 0
    return Link(float(latency), bits) if bits is None or is_limit else None
