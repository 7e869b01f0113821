"""`python -m services.load`."""

import sys

from larder.stage import main
from services.load.load import load
from services.load.settings import LoadSettings

ABOUT = "Put the training-ready tree into an S3 store, one object per image, and verify every object there."

if __name__ == "__main__":
    sys.exit(main("load", LoadSettings, load, ABOUT))
