"""The stages: each is run as `python -m services.<stage>`, none is imported by another."""

import os
import signal
import sys

if os.getpid() == 1:  # a container's first process: until it has a handler, the kernel drops a request to end
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
