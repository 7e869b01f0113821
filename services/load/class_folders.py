"""Class folders without images: stores have no empty folders, so an empty object stands in each.

Who reads the bucket as folders, by a mount or a copy, finds every class in every split then, as in the tree. Else
programs that number the folders that they find would give one class several labels. No index names these objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from larder.bucket import Folder, Listed
from larder.contract import Manifest

PLACEHOLDER = ".keep"
_PATH = re.compile(rf"[^/]+/class_[0-9]+/{re.escape(PLACEHOLDER)}")


def is_placeholder(item: Listed) -> bool:
    """Whether an object stands in for a folder."""
    return item.bytes == 0 and _PATH.fullmatch(item.path) is not None


def keep_class_folders(source: Manifest, there: Folder, objects: Iterable[Listed], requests: int) -> None:
    """Put the objects that stand in for folders that a tree has, and delete those of other data sets.

    Args:
        source: The manifest of what is loaded; nothing is done for packs.
        there: Its place in the store.
        objects: What is there beside the files that are loaded.
        requests: How many requests may be under way.

    Raises:
        ConfigurationError, ServiceError: If the store refuses or fails.
    """
    if source.artifact != "tree":
        return
    wanted = {f"{path}/{PLACEHOLDER}" for path in source.empty_class_folders()}
    found = {item.path for item in objects if is_placeholder(item)}
    with ThreadPoolExecutor(requests) as pool:
        for _ in pool.map(lambda path: there.write(path, b""), sorted(wanted - found)):
            pass
    there.delete(sorted(found - wanted))
