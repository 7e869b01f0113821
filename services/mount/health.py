"""`python -m services.mount.health`: whether the mount answers; for the container's health check."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from larder.terminal import say
from services.mount.mounts import fault_of, mounted_in


def main() -> int:
    """0 when our mount in LARDER_MOUNT_DIR can be listed; else the reason goes to stderr."""
    ours = [item.point for item in mounted_in(Path(os.environ["LARDER_MOUNT_DIR"]).resolve()) if item.ours]
    fault = fault_of(ours[-1]) if ours else "nothing is mounted yet"
    if fault:
        say(fault, file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
