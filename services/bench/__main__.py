"""`python -m services.bench`."""

import sys

from services.bench.bench import bench
from services.bench.settings import BenchSettings
from services.commands import main

ABOUT = "Measure how fast one way of reading a data set feeds a training loop on this machine."

if __name__ == "__main__":
    sys.exit(main("bench", BenchSettings, bench, ABOUT))
