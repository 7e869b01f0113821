"""`python -m services.transform`."""

import sys

from larder.progress import Reporter
from larder.stage import Outcome
from services.commands import main
from services.transform.settings import TransformSettings

ABOUT = "Turn the extracted files into the training-ready tree <data set>/<split>/class_XX/<file>."


def run(settings: TransformSettings, reporter: Reporter) -> Outcome:
    """Import what does the work, now that the settings are known to be right."""
    from services.transform.transform import transform

    return transform(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("transform", TransformSettings, run, ABOUT))
