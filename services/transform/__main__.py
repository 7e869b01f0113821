"""`python -m services.transform`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.transform.settings import TransformSettings

ABOUT = "Turn the extracted files into the training-ready tree <dataset>/<split>/class_XX/<file>."


def run(settings: TransformSettings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.transform.transform import transform

    return transform(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("transform", TransformSettings, run, ABOUT))
