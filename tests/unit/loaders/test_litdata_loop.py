"""The end of LitData's download thread during downloads."""

from __future__ import annotations

import asyncio

import pytest


@pytest.mark.parametrize("cancelled_before", [False, True])
def test_a_result_that_comes_after_the_loop_is_closed_is_dropped(cancelled_before: bool) -> None:
    from litdata.streaming import async_prefetch  # imported here: collecting the tests takes no torch

    from larder import litdata_adapter

    loop = async_prefetch._thread_event_loop()
    fetch = loop.create_task(asyncio.sleep(60))
    loop.run_until_complete(asyncio.sleep(0))
    if cancelled_before:
        fetch.cancel()
        loop.run_until_complete(asyncio.wait([fetch]))
    litdata_adapter.close_loop()
    assert fetch.cancelled()
    assert loop.is_closed()
    loop.call_soon_threadsafe(print)  # as obstore's thread does, which would print an error's traceback
