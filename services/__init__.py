"""The stages. Run each as `python -m services.<stage>`; no stage imports another."""

import os
import signal
import sys

if os.getpid() == 1:  # PID 1 of a container: the kernel drops SIGTERM until a handler is installed
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
