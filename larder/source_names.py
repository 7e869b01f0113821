"""Split LARDER_SOURCE into its sources.

This module needs only Python 3.9 and the standard library, since the command line uses it to mount local sources into
containers.
"""

from __future__ import annotations

import json
import os


def split_sources(text: str) -> list[str]:
    r"""Return the sources that LARDER_SOURCE names, as a JSON list or one per line.

    Raises:
        ValueError: If the text is a JSON list of something other than names.

    Example:
        >>> split_sources('["a, b.tar", "c.tar"]')
        ['a, b.tar', 'c.tar']
        >>> split_sources("a.tar\nc.tar")
        ['a.tar', 'c.tar']
    """
    if text.startswith("["):
        try:
            listed = json.loads(text)
        except (ValueError, RecursionError):
            return [text]  # a file whose name begins with a bracket
        if not (listed and isinstance(listed, list) and all(item and isinstance(item, str) for item in listed)):
            raise ValueError('must be a list of names, as in ["a.tar", "b.tar"]')
        return listed
    if "\n" not in text or os.path.exists(os.path.expanduser(text)):
        return [text]
    return [line for line in text.splitlines() if line.strip()]
