"""`python -m services.jupyter`."""

import sys

from larder.progress import Reporter
from larder.stage import Outcome
from services.commands import main
from services.jupyter.settings import JupyterSettings

ABOUT = "Run JupyterLab beside the data; its notebooks show every way of feeding."


def run(settings: JupyterSettings, reporter: Reporter) -> Outcome:
    """Import what does the work, now that the settings are known to be right."""
    from services.jupyter.jupyter import jupyter

    return jupyter(settings, reporter)


if __name__ == "__main__":
    sys.exit(main("jupyter", JupyterSettings, run, ABOUT))
