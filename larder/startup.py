"""End quietly if Ctrl-C arrives while a program still imports its modules, which takes a second or more."""

from __future__ import annotations

import os
import signal
import sys


def end_on_signals() -> None:
    """Have SIGINT and SIGTERM end a program that starts by `python -m`, until it installs its own handlers.

    A package calls this before its other imports. It does nothing where the package is imported by another program. It
    also matters for a container's first process: the kernel drops its signals until there is a handler.
    """
    if sys.argv[:1] != ["-m"]:  # which it is until Python has found the program in the package
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            signal.signal(number, lambda *_: os._exit(130))
