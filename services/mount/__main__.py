"""`python -m services.mount`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.mount.settings import MountSettings

ABOUT = "Mount the bucket read-only as a folder until the stage is stopped, or unmount it."


def run(settings: MountSettings, reporter: Reporter) -> StageOutcome:
    """Mount, mount in the background, or unmount, and import only what that needs."""
    if settings.unmount:
        from services.mount.unmount import unmount

        return unmount(settings, reporter)
    if settings.detach:
        from services.mount.background import detach

        return detach(settings, reporter)
    from services.mount.serve import serve

    return serve(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("mount", MountSettings, run, ABOUT))
