"""Read the bodies of a store's responses, however long they are."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from http.client import HTTPResponse, IncompleteRead
from pathlib import Path
from typing import Any

from botocore.response import StreamingBody

from larder.errors import InputError, ServiceError
from larder.s3_requests import CHECK_STORE
from larder.volume import require_space

_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 64 << 20
"""Free space to leave on the disk while an object is downloaded."""
_FIND_OTHER_WRITER = (
    "find out what else writes to the bucket, then run the command that made the data again with LARDER_FORCE=true"
)


def read_bounded(body: StreamingBody, max_bytes: int, name: str) -> bytes:
    """Read a whole body. Raises InputError if it has more than `max_bytes` bytes."""
    content = b"".join(read_pieces(body, max_bytes + 1))
    if len(content) > max_bytes:
        raise InputError(
            f"{name} has more than {max_bytes:,} bytes, more than larder writes", next_step=_FIND_OTHER_WRITER
        )
    return content


def read_pieces(body: StreamingBody, max_bytes: int | None) -> Iterator[bytes]:
    """Yield the first `max_bytes` bytes of a body in pieces. urllib3 raises if the body is shorter than announced."""
    left = max_bytes
    while left is None or left > 0:
        piece = body.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left))
        if not piece:
            return
        left = None if left is None else left - len(piece)
        yield piece


def read_piece_into(body: Any, buffer: memoryview) -> int:
    """Fill a buffer, or its first MiB, with a body's next bytes, and return their number; 0 at the end.

    They go from the socket into the buffer: `readinto` of urllib3 reads into memory of its own, and copies that twice.

    Args:
        body: The response of urllib3 that `with` makes of botocore's body.
        buffer: Writable memory.
    """
    piece = buffer[:_CHUNK_BYTES]
    response = getattr(body, "_fp", None)
    if not isinstance(response, HTTPResponse):
        return int(body.readinto(piece))
    with body._error_catcher():  # raises urllib3's errors, and gives the connection back at the end of the body
        count = response.readinto(piece)
        if not count and response.length:
            raise IncompleteRead(b"", response.length)
    return count


def require_range(given: str, offset: int, what: str) -> None:
    """Raise ServiceError unless a Content-Range header begins at `offset`."""
    if not re.match(rf"bytes {offset}-", given):
        raise ServiceError(
            f"{what}: the store was asked for bytes from {offset:,} on, and sent {given or 'the whole'!r}",
            next_step=CHECK_STORE,
        )


def copy_body(body: StreamingBody, target: Path | None, max_bytes: int | None = None) -> tuple[int, str]:
    """Write a body to the file `target`, if any, and return its length and sha256. Stop after `max_bytes + 1` bytes."""
    length, digest, checked_length = 0, hashlib.sha256(), 0
    with Path(target or os.devnull).open("wb") as file:
        for chunk in read_pieces(body, None if max_bytes is None else max_bytes + 1):
            if target is not None and length >= checked_length:  # don't rely on the Content-Length that the store sends
                require_space(target.parent, _SPARE_BYTES, f"{target.name}, which a store sends,")
                checked_length = length + _SPARE_BYTES // 2
            length += len(chunk)
            digest.update(chunk)
            file.write(chunk)
    return length, digest.hexdigest()
