"""What a file's content says of itself: its sha256, and the ETag that a store gives it.

The ETag is the MD5 of the content, or, for what was uploaded in parts, the MD5 of the parts' MD5s with their number
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html). Stores that encrypt with
keys of their customers give others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

CUTOFF_BYTES = 200 << 20
"""Files of this size and larger go up in parts."""
PART_BYTES = 16 << 20
MOST_PARTS = 10_000
"""Of one upload (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)."""
ETAG_SETTINGS: dict[str, str | int] = {"cutoff_bytes": CUTOFF_BYTES, "part_bytes": PART_BYTES}
"""What ETags depend on beside the content, as manifests note it."""


class Fingerprint(NamedTuple):
    """Length and digests of a file."""

    bytes: int
    sha256: str
    etag: str


def fingerprint(path: Path, cutoff_bytes: int = CUTOFF_BYTES, part_bytes: int = PART_BYTES) -> Fingerprint:
    """Read a file once. Its ETag is the one that a store gives what larder and rclone upload."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        in_parts = size >= cutoff_bytes
        step = min(part_bytes, size + 1)  # a larger buffer than needed takes time, too
        length, sha256, md5, parts = 0, hashlib.sha256(), hashlib.md5(usedforsecurity=False), []
        while chunk := file.read(step):
            length += len(chunk)
            sha256.update(chunk)
            if in_parts:
                parts.append(hashlib.md5(chunk, usedforsecurity=False).digest())
            else:
                md5.update(chunk)
    return Fingerprint(length, sha256.hexdigest(), etag_of_parts(parts) if in_parts else md5.hexdigest())


def etag_of_parts(md5s: Iterable[bytes]) -> str:
    """The ETag of an object that was uploaded in parts with these MD5s."""
    digests = list(md5s)
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
