"""`python -m services.mount.health`: check that the mount answers, for the container's health check."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from larder.terminal import print_escaped
from services.mount.mounts import find_mount_error, list_mounts


def main() -> int:
    """Return 0 if larder's mount in LARDER_MOUNT_DIR can be listed; otherwise print why not on stderr and return 1."""
    ours = [item.point for item in list_mounts(Path(os.environ["LARDER_MOUNT_DIR"]).resolve()) if item.is_ours]
    fault = find_mount_error(ours[-1]) if ours else "nothing is mounted yet"
    if fault:
        print_escaped(fault, file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
