"""`python -m services.jupyter`."""

import sys

from larder.progress import Reporter
from larder.stage import StageOutcome
from services.commands import main
from services.jupyter.settings import JupyterSettings

ABOUT = "Run JupyterLab next to the data, with a notebook for each arm."


def run(settings: JupyterSettings, reporter: Reporter) -> StageOutcome:
    """Import and run the stage; the import waits until the settings are valid."""
    from services.jupyter.jupyter import jupyter

    return jupyter(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("jupyter", JupyterSettings, run, ABOUT))
