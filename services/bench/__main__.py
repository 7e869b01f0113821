"""`python -m services.bench`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.bench.settings import BenchSettings
from services.commands import main

ABOUT = "Measure how fast one way of reading a dataset feeds a training loop on this machine."


def run(settings: BenchSettings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.bench.bench import bench

    return bench(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("bench", BenchSettings, run, ABOUT))
