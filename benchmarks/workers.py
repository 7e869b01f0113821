"""`python -m benchmarks.workers`: start two worker processes for one tiny task; see `startup`."""

import math

from larder.engines.local import LocalEngine

if __name__ == "__main__":
    with LocalEngine(2, serial_seconds=0)(math.sqrt, [1.0]) as results:
        list(results)
