"""Compute a file's sha256 and the ETag that a store gives it.

The ETag is the MD5 of the content. After a multipart upload, it is the MD5 of the parts' MD5s, with the number of parts
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html). Objects that are
encrypted with customer-provided keys have other ETags.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

CUTOFF_BYTES = 200 << 20
"""Files of at least this size are uploaded in parts."""
PART_BYTES = 16 << 20
MAX_PARTS = 10_000
"""Maximum number of parts of one upload (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html)."""
ETAG_SETTINGS: dict[str, str | int] = {"cutoff_bytes": CUTOFF_BYTES, "part_bytes": PART_BYTES}
"""The settings that ETags depend on, as manifests record them."""


class Fingerprint(NamedTuple):
    """Length and digests of a file."""

    bytes: int
    sha256: str
    etag: str


def fingerprint(path: Path, cutoff_bytes: int = CUTOFF_BYTES, part_bytes: int = PART_BYTES) -> Fingerprint:
    """Compute a file's length and digests in one pass.

    Args:
        path: The file.
        cutoff_bytes: Size from which the file would be uploaded in parts.
        part_bytes: Size of a part.

    Returns:
        Length, sha256, and the ETag that a store gives the file if larder or rclone uploads it.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        in_parts = size >= cutoff_bytes
        step = min(part_bytes, size + 1)  # allocating a larger buffer than needed takes time
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
    """Return the ETag of an object that was uploaded in parts with these MD5s."""
    digests = list(md5s)
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"
