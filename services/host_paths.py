"""Show folders of the host in messages, in place of those of the container that a stage runs in.

The command `larder` sets LARDER_HOST_FOLDERS for containers that it starts: a JSON object from folders of the container
to those of the host that are mounted there.
"""

from __future__ import annotations

import json
import os
import re

VARIABLE = "LARDER_HOST_FOLDERS"


def show_host_paths(text: str) -> str:
    """Replace the container's folders in a text by the host's."""
    folders = _folders()
    if not folders:
        return text
    names = "|".join(map(re.escape, folders))
    return re.sub(rf"(?<![\w/.:-])({names})(?![\w-]|\.\w)", lambda match: folders[match[1]], text)


def _folders() -> dict[str, str]:
    try:
        found = json.loads(os.environ.get(VARIABLE) or "{}")
    except ValueError:
        return {}
    return {str(inside): str(outside) for inside, outside in found.items()} if isinstance(found, dict) else {}
