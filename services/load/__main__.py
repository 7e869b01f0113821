"""`python -m services.load`."""

import sys

from services.commands import main
from services.load.load import load
from services.load.settings import LoadSettings

ABOUT = "Put finished data into an S3 store, and verify every object there: the tree, tar shards or LitData chunks."

if __name__ == "__main__":
    sys.exit(main("load", LoadSettings, load, ABOUT))
