"""`python -m services.extract`."""

import sys

from services.commands import main
from services.extract.extract import extract
from services.extract.settings import ExtractSettings

ABOUT = "Bring a dataset from its source into the data volume, as raw/ with a manifest."

if __name__ == "__main__":
    sys.exit(main("extract", ExtractSettings, extract, ABOUT))
