"""Sample a value in a thread while a block runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from time import thread_time
from typing import Self


class Sampler(ABC):
    """Context manager that samples at the start, after every interval, and at the end."""

    def __init__(self, interval_seconds: float) -> None:
        self.own_cpu_seconds = 0.0
        """CPU time of the sampling thread; set when the block has ended."""
        self._interval = interval_seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            self._sample()
            ended = self._end.wait(self._interval)
        self._sample()
        self.own_cpu_seconds = thread_time()

    @abstractmethod
    def _sample(self) -> None:
        """Take one sample; it may change `_interval`."""
