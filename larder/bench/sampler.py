"""Sample a value in a thread while a block runs."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from time import thread_time
from typing import Self


class Sampler(ABC):
    """Context manager that samples at the start, after every interval, and at the end.

    The first and the last sample are taken outside of the block, so that only those in between can slow it down.
    """

    def __init__(self, interval_seconds: float) -> None:
        self.own_cpu_seconds = 0.0
        """CPU time of all samples; set when the block has ended."""
        self.block_cpu_seconds = 0.0
        """CPU time of sampling while the block ran."""
        self._interval = interval_seconds
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Self:
        self.own_cpu_seconds = self._timed_sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self.own_cpu_seconds += self.block_cpu_seconds + self._timed_sample()

    def _run(self) -> None:
        while not self._end.wait(self._interval):
            self._sample()
        self.block_cpu_seconds = thread_time()

    def _timed_sample(self) -> float:
        """Take a sample in the thread of the block. Return its CPU time."""
        begin = thread_time()
        self._sample()
        return thread_time() - begin

    @abstractmethod
    def _sample(self) -> None:
        """Take one sample; it may change `_interval`."""
