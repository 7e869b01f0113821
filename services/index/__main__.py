"""`python -m services.index`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.index.settings import IndexSettings

ABOUT = "Check, hash and index images, shards, archives or Parquet files in a store in place."


def run(settings: IndexSettings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.index.index import index

    return index(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("index", IndexSettings, run, ABOUT))
