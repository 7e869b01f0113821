"""`python -m services.verify`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.verify.settings import VerifySettings

ABOUT = "Verify the chain from archive to file, shard member and object in the store, and report the first break."


def run(settings: VerifySettings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.verify.verify import verify

    return verify(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("verify", VerifySettings, run, ABOUT))
