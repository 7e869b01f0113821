"""`python -m services.verify`."""

import sys

from larder.progress import Reporter
from larder.stage import Outcome
from services.commands import main
from services.verify.settings import VerifySettings

ABOUT = "Follow the chain, archive to file to shard member to object in the store, and name the first break."


def run(settings: VerifySettings, reporter: Reporter) -> Outcome:
    """Import what does the work, now that the settings are known to be right."""
    from services.verify.verify import verify

    return verify(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("verify", VerifySettings, run, ABOUT))
