"""Run the command `larder` as `python -m larder`, which works without installing anything."""

import sys

if sys.version_info < (3, 9):  # noqa: UP036  (a bare machine may have an older one)
    sys.exit(
        "error: larder needs Python 3.9 or newer; this is " + sys.version.split()[0] + "\n"
        "  next step: run it with a newer one, as in python3.11 -m larder"
    )

from larder.cli.main import main

sys.exit(main())
