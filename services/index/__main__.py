"""`python -m services.index`."""

import sys

from larder.progress import Reporter
from larder.stage import Outcome
from services.commands import main
from services.index.settings import IndexSettings

ABOUT = "Check, hash and index images, shards, archives or Parquet files in a store where they lie."


def run(settings: IndexSettings, reporter: Reporter) -> Outcome:
    """Import what does the work, now that the settings are known to be right."""
    from services.index.index import index

    return index(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("index", IndexSettings, run, ABOUT))
