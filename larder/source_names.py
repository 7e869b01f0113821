"""What LARDER_SOURCE names: one source, or several.

Standard library only, and Python 3.9: the command line mounts local ones into containers.
"""

from __future__ import annotations

import json
import os


def split_sources(text: str) -> list[str]:
    """Return the sources that LARDER_SOURCE names: a JSON list, or one a line, whose names may hold all but newlines.

    >>> split_sources('["a, b.tar", "c.tar"]'), split_sources("a.tar\\nc.tar")
    (['a, b.tar', 'c.tar'], ['a.tar', 'c.tar'])

    Raises:
        ValueError: A list that isn't one of names.
    """
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            return [text]  # a file with an odd name
        if not (listed and isinstance(listed, list) and all(item and isinstance(item, str) for item in listed)):
            raise ValueError('must be a list of names, as in ["a.tar", "b.tar"]')
        return listed
    if "\n" not in text or os.path.exists(os.path.expanduser(text)):
        return [text]
    return [line for line in text.splitlines() if line.strip()]
