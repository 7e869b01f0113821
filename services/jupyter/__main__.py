"""`python -m services.jupyter`."""

import sys

from services.commands import main
from services.jupyter.jupyter import jupyter
from services.jupyter.settings import JupyterSettings

ABOUT = "Run JupyterLab beside the data; its notebooks show every way of feeding."

if __name__ == "__main__":
    sys.exit(main("jupyter", JupyterSettings, jupyter, ABOUT))
