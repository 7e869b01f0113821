"""`python -m services.bench`."""

import sys

from larder.progress import Reporter
from larder.stage import Outcome
from services.bench.settings import BenchSettings
from services.commands import main

ABOUT = "Measure how fast one way of reading a data set feeds a training loop on this machine."


def run(settings: BenchSettings, reporter: Reporter) -> Outcome:
    """Import what does the work, now that the settings are known to be right."""
    from services.bench.bench import bench

    return bench(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("bench", BenchSettings, run, ABOUT))
