"""`python -m services.optimize`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.optimize.settings import OptimizeSettings

ABOUT = "Pack the tree's images as LitData chunks: on the volume, or straight into an S3 store."


def run(settings: OptimizeSettings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.optimize.optimize import optimize

    return optimize(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("optimize", OptimizeSettings, run, ABOUT))
