"""`python -m services.s3`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.s3.settings import S3Settings

ABOUT = "Diagnose an S3 store, make the bucket, or start and stop the embedded store."


def run(settings: S3Settings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.s3.s3 import s3

    return s3(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("s3", S3Settings, run, ABOUT))
