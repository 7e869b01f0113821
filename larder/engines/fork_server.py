"""End the fork server silently if a request breaks off. The fork server imports this module; nobody else does.

Ctrl-C may interrupt the parent while it asks for a worker. The fork server then gets half a request, and
multiprocessing lets it end with a traceback, which would only confuse.
"""

from __future__ import annotations

import sys
from types import TracebackType


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback, except for a lost connection to the parent."""
    if not isinstance(error, OSError | EOFError):
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _print_traceback
