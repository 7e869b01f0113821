"""`python -m services.extract`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.extract.settings import ExtractSettings

ABOUT = "Bring a dataset from its source into the data volume, as raw/ with a manifest."


def run(settings: ExtractSettings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.extract.extract import extract

    return extract(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("extract", ExtractSettings, run, ABOUT))
