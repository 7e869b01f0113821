"""`python -m services.load`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.load.settings import LoadSettings

ABOUT = "Put finished data into an S3 store, and verify every object there: the tree, tar shards or LitData chunks."


def run(settings: LoadSettings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.load.load import load

    return load(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("load", LoadSettings, run, ABOUT))
