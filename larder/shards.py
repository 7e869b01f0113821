"""WebDataset's names: the members of a tar shard that are one sample.

The format: https://github.com/webdataset/webdataset#the-webdataset-format
"""

from __future__ import annotations

LABEL = "cls"
"""The extension of labels."""


def member_names(path: str) -> tuple[str, str]:
    """The members of the sample that is at `path` in the tree: its image's and its label's.

    Both have the path below the split as their key; the image's extension is in lower case, and `jpg` for `jpeg`.
    """
    key, _, extension = path.partition("/")[2].rpartition(".")
    extension = extension.lower()
    return f"{key}.{'jpg' if extension == 'jpeg' else extension}", f"{key}.{LABEL}"
