"""`python -m services.mount`."""

import sys

from larder.progress import Reporter
from larder.stage import Outcome
from services.commands import main
from services.mount.settings import MountSettings

ABOUT = "Mount the bucket read-only as a folder, until it is told to end; or take such a mount away."


def run(settings: MountSettings, reporter: Reporter) -> Outcome:
    """What the settings say of the three things this stage does; only what does it is imported."""
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
