"""`python -m services.optimize`."""

import sys

from services.commands import main
from services.optimize.optimize import optimize
from services.optimize.settings import OptimizeSettings

ABOUT = "Pack the tree's images as LitData chunks: on the volume, or straight into an S3 store."

if __name__ == "__main__":
    sys.exit(main("optimize", OptimizeSettings, optimize, ABOUT))
