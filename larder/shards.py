"""WebDataset's names: the members of a tar shard that are one sample.

The format: https://github.com/webdataset/webdataset#the-webdataset-format

A sample's key is its path below the split without the extension. Readers end a key at the first dot of the file name,
and take members of one key for one sample. So a file with another dot in its name, and one that differs from another in
the extension alone, get a key of their own: the dots become underscores, and eight digits of the path's SHA-256 follow.
`cat.0.jpg` has the key `cat_0-b6a2a0e4`. It depends on the path alone. Of files that differ in the extension, the first
in byte order keeps its key.
"""

from __future__ import annotations

import hashlib

LABEL = "cls"
"""The extension of labels."""
_DIGITS = 8


def member_names(path: str, key: str | None = None) -> tuple[str, str]:
    """The members of the sample that is at `path` in the tree: its image's and its label's.

    Both have the path below the split as their key, unless there is another; the image's extension is in lower case,
    and `jpg` for `jpeg`.
    """
    own, _, extension = path.partition("/")[2].rpartition(".")
    extension = extension.lower()
    key = own if key is None else key
    return f"{key}.{'jpg' if extension == 'jpeg' else extension}", f"{key}.{LABEL}"


def needs_key(path: str, before: str) -> bool:
    """Whether the sample at `path` needs another key than its path's.

    `before` is the last sample, sorted by path, that has its path's key; "" for none.
    """
    stem = path.rpartition(".")[0]
    return "." in stem.rpartition("/")[2] or (before != "" and before.rpartition(".")[0] == stem)


def own_key(path: str) -> str:
    """The key of a sample that needs one."""
    inside = path.partition("/")[2]
    folder, slash, name = inside.rpartition("/")
    digest = hashlib.sha256(inside.encode()).hexdigest()[:_DIGITS]
    return f"{folder}{slash}{name.rpartition('.')[0].replace('.', '_')}-{digest}"
