"""Keep class folders without images in a bucket, with an empty object in each.

Object stores have no empty folders. A program that reads the bucket through a mount or a copy then finds every class
in every split, as in the tree. Otherwise a program that numbers the folders it finds would give one class different
labels in different splits. No index lists these objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from larder.bucket import BucketPrefix, ListedObject
from larder.contract import Manifest

PLACEHOLDER = ".keep"
_PATH = re.compile(rf"[^/]+/class_[0-9]+/{re.escape(PLACEHOLDER)}")


def is_placeholder(item: ListedObject) -> bool:
    """Return whether an object is a placeholder for an empty folder."""
    return item.bytes == 0 and _PATH.fullmatch(item.path) is not None


def keep_class_folders(source: Manifest, remote: BucketPrefix, objects: Iterable[ListedObject], requests: int) -> None:
    """Write placeholders for a tree's empty class folders, and delete placeholders that it doesn't need.

    Args:
        source: The manifest of the loaded artifact. Nothing is done for shards and chunks.
        remote: The artifact's folder in the store.
        objects: The objects in the store that aren't loaded files.
        requests: Maximum number of parallel requests.

    Raises:
        ConfigurationError, ServiceError: If the store refuses or fails.
    """
    if source.artifact != "tree":
        return
    expected = {f"{path}/{PLACEHOLDER}" for path in source.empty_class_folders()}
    placeholders = {item.path for item in objects if is_placeholder(item)}
    with ThreadPoolExecutor(requests) as pool:
        for _ in pool.map(lambda path: remote.write(path, b""), sorted(expected - placeholders)):
            pass
    remote.delete(sorted(placeholders - expected))
