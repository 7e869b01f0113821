"""`python -m services.transform`."""

import sys

from services.commands import main
from services.transform.settings import TransformSettings
from services.transform.transform import transform

ABOUT = "Turn the extracted files into the training-ready tree <data set>/<split>/class_XX/<file>."

if __name__ == "__main__":
    sys.exit(main("transform", TransformSettings, transform, ABOUT))
