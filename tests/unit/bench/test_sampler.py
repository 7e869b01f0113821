"""Samples of a value while a block runs."""

from __future__ import annotations

import threading
from time import thread_time

from larder.bench.sampler import Sampler
from tests.conftest import Until

CPU_SECONDS = 0.02


class Threads(Sampler):
    """Takes some CPU time for each sample, and notes the thread."""

    def __init__(self, interval_seconds: float) -> None:
        super().__init__(interval_seconds)
        self.threads: list[int] = []

    def _sample(self) -> None:
        end = thread_time() + CPU_SECONDS
        while thread_time() < end:
            pass
        self.threads.append(threading.get_ident())


def test_the_first_and_the_last_sample_cost_the_block_nothing() -> None:
    with Threads(3600) as sampler:
        assert sampler.threads == [threading.get_ident()]
    assert sampler.threads == [threading.get_ident()] * 2
    assert sampler.block_cpu_seconds < CPU_SECONDS
    assert sampler.own_cpu_seconds >= 2 * CPU_SECONDS


def test_samples_in_between_are_counted_as_the_blocks(until: Until) -> None:
    with Threads(0.001) as sampler:
        until(lambda: len(sampler.threads) >= 4, "three samples are taken while the block runs")
        assert set(sampler.threads[1:]) != {threading.get_ident()}
    inner = sampler.threads[1:-1]
    assert sampler.block_cpu_seconds >= len(inner) * CPU_SECONDS
    assert sampler.own_cpu_seconds >= sampler.block_cpu_seconds + 2 * CPU_SECONDS
