"""`python -m services.mount`."""

import sys

from larder.progress import Reporter
from larder.stage import Outcome
from services.commands import main
from services.mount.background import detach
from services.mount.serve import serve
from services.mount.settings import MountSettings
from services.mount.unmount import unmount

ABOUT = "Mount the bucket read-only as a folder, until it is told to end; or take such a mount away."


def mount(settings: MountSettings, reporter: Reporter) -> Outcome:
    """What the settings say of the three things this stage does."""
    if settings.unmount:
        return unmount(settings, reporter)
    return detach(settings, reporter) if settings.detach else serve(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("mount", MountSettings, mount, ABOUT))
