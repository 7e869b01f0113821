"""The flag that a signal handler sets."""

from __future__ import annotations

import sys
import threading
from itertools import count
from types import FrameType
from typing import Any

from services.mount.stop_flag import StopFlag


def wait_interrupted_at(step: int) -> bool:
    """Wait in a thread, and run a signal handler at its `step`-th step. Return whether the wait ends."""
    stop, steps = StopFlag(), count()

    def interrupt(frame: FrameType, event: str, arg: Any) -> Any:
        if event in ("call", "line") and next(steps) == step:
            sys.settrace(None)
            stop.set()
        return interrupt

    def wait() -> None:
        sys.settrace(interrupt)
        while not stop.wait(0.001):
            pass

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


def test_a_handler_may_set_it_in_the_middle_of_waiting() -> None:
    """A signal does this: in the waiting thread, between any two of its steps."""
    assert all(wait_interrupted_at(step) for step in range(40))


def test_it_waits_no_longer_than_it_is_told() -> None:
    stop = StopFlag()
    assert not stop.wait(0.001)
    stop.set()
    stop.set()
    assert [stop.wait(), stop.wait(10)] == [True, True]
