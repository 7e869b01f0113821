"""What a file's content says of itself: its sha256, and the ETag that a store gives it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from larder.rclone import CUTOFF_BYTES, PART_BYTES


class Fingerprint(NamedTuple):
    """Length and digests of a file."""

    bytes: int
    sha256: str
    etag: str


def fingerprint(path: Path, cutoff_bytes: int = CUTOFF_BYTES, part_bytes: int = PART_BYTES) -> Fingerprint:
    """Read a file once. Its ETag is the one that a store gives what rclone uploads.

    That is the MD5 of the content, or, from `cutoff_bytes` on, the MD5 of the parts' MD5s with their number
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html). Stores that encrypt
    with keys of their customers give others.
    """
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
    if not in_parts:
        return Fingerprint(length, sha256.hexdigest(), md5.hexdigest())
    of_parts = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return Fingerprint(length, sha256.hexdigest(), f"{of_parts}-{len(parts)}")
