"""A flag that ends serving, and is safe to set in a signal handler."""

from __future__ import annotations

import queue
import time
from contextlib import suppress

_STEP_SECONDS = 0.5


class StopFlag:
    """A flag that any thread or signal handler may set once.

    `threading.Event` would deadlock if a handler interrupts the thread that holds the event's lock.
    `queue.SimpleQueue.put` is reentrant: it may interrupt a `get` of the same thread.
    """

    def __init__(self) -> None:
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_set = False

    def set(self) -> None:
        """Set the flag."""
        self._is_set = True
        self._wake_ups.put(None)

    def wait(self, seconds: float = float("inf")) -> bool:
        """Wait until the flag is set, at most `seconds`. Return whether it is set.

        Waits in short steps: a signal that arrives just before the thread sleeps doesn't wake it, and the handler runs
        only once the thread is awake.
        """
        end = time.monotonic() + seconds
        while not self._is_set and (left := end - time.monotonic()) > 0:
            with suppress(queue.Empty):
                self._wake_ups.get(timeout=min(left, _STEP_SECONDS))
        return self._is_set
