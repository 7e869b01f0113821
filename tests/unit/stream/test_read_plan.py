"""Which ranges are read for an epoch, and when."""

import itertools
import threading
from typing import Any, cast

import numpy as np
import pytest

from larder.stream.batch_reader import BatchReader, ReadLimits, Traffic, block_numbers
from larder.stream.order import Batching, Samples, Segment, Shuffle, rank_batches
from larder.stream.read_plan import Places, ReadPlan, plan_reading

SAMPLE_BYTES, PER_BLOCK, BLOCKS = 70_000, 60, 64


def places() -> Places:
    samples = np.arange(PER_BLOCK * BLOCKS)
    begin = (samples % (8 * PER_BLOCK) * SAMPLE_BYTES).astype(np.int32)
    shard = samples // (8 * PER_BLOCK)
    starts = np.arange(0, len(samples) + 1, PER_BLOCK)
    return Places([f"{number}.tar" for number in range(8)], shard, begin, begin + SAMPLE_BYTES, block_numbers(starts))


def batches_of(batch_size: int, read: int, last: str = "keep") -> list[Samples]:
    shuffle = Shuffle(np.arange(0, PER_BLOCK * BLOCKS + 1, PER_BLOCK), PER_BLOCK * BLOCKS, 0)
    batching = Batching(1, batch_size, last)  # type: ignore[arg-type]
    return rank_batches(shuffle, 0, [Segment(batching, read)] if read else [], 0, batching)


def check(plan: ReadPlan, batches: list[Samples]) -> None:
    """Every sample of every batch is in the range that is read for it, and counted."""
    where, used = places(), dict.fromkeys(map(id, plan.queue), 0)
    for number, batch in enumerate(batches):
        for sample in batch.tolist():
            block = plan.alone.get((number, sample)) or plan.blocks[int(where.block[sample])]
            used[id(block)] += 1
            assert block.shard == where.shards[where.shard[sample]]
            assert block.begin <= where.begin[sample] < where.end[sample] <= block.end
            assert block.first_batch <= number
    assert used == {id(block): block.unused for block in plan.queue}
    assert [block.first_batch for block in plan.queue] == sorted(block.first_batch for block in plan.queue)


@pytest.mark.parametrize("last", ["keep", "pad"])
@pytest.mark.parametrize(("batch_size", "read"), list(itertools.product([1, 7, 32, 256, 3000], [0, 1, 5])))
def test_every_sample_is_in_a_range(batch_size: int, read: int, last: str):
    batches = batches_of(batch_size, read, last)
    if batches:
        check(plan_reading(places(), batches, read_first=read > 0), batches)


def test_an_epoch_reads_each_block_once():
    plan = plan_reading(places(), batches_of(256, 0), read_first=False)
    assert not plan.alone
    assert len(plan.queue) == BLOCKS
    assert sum(block.end - block.begin for block in plan.queue) == PER_BLOCK * BLOCKS * SAMPLE_BYTES


def test_a_resumed_batch_reads_what_is_faster():
    """A small batch has few samples of a block, which are read alone; a large one has many, so the block is read."""
    small = plan_reading(places(), batches_of(16, 120), read_first=True)
    first = [block for block in small.queue if block.first_batch == 0]
    assert len(first) <= 16
    assert sum(block.end - block.begin for block in first) < 8 << 20
    large = plan_reading(places(), batches_of(1024, 2), read_first=True)
    assert not large.alone
    assert len(large.queue) <= BLOCKS


def test_until_the_first_batch_is_decoded_little_is_read_ahead():
    """Else the fetchers would take the cores from the decoders, and bandwidth from the blocks that are needed first."""

    class WaitsError(Exception):
        pass

    def wait() -> None:
        raise WaitsError

    batches, where = batches_of(64, 0), places()
    reader = BatchReader[Any](
        cast(Any, None), **where._asdict(), batches=batches, work=cast(Any, None), traffic=Traffic(),
        limits=ReadLimits(decoders=1, fetchers=1, memory_bytes=1 << 40, batches=4),
    )  # fmt: skip
    reader._may_fetch.wait = wait  # type: ignore[method-assign, assignment]

    def taken() -> list[int]:
        found = []
        with pytest.raises(WaitsError):
            while (block := reader._take_block()) is not None:
                found.append(block.first_batch)
        return found

    assert set(taken()) == {0, 1}
    reader._batches[0].filled = len(batches[0])
    found = []
    while (block := reader._take_block()) is not None:
        found.append(block.first_batch)
    assert min(found) == 2
    assert max(found) > 2


def test_near_samples_share_a_request():
    batches = [np.array([3, 5, 4, 600, 59]), np.arange(100, 160)]
    plan = plan_reading(places(), batches, read_first=True)
    check(plan, batches)
    assert [(block.begin // SAMPLE_BYTES, block.end // SAMPLE_BYTES) for block in plan.queue[:3]] == [
        (3, 6),
        (600 - 480, 601 - 480),
        (59, 60),
    ]


def test_the_garbage_collector_may_close_a_reader_in_a_thread_that_holds_its_lock():
    batches, where = batches_of(64, 0), places()
    reader = BatchReader[Any](
        cast(Any, None), **where._asdict(), batches=batches, work=cast(Any, None), traffic=Traffic(),
        limits=ReadLimits(decoders=1, fetchers=1, memory_bytes=1 << 40, batches=4),
    )  # fmt: skip

    def close() -> None:
        with reader._lock:
            reader.close()

    thread = threading.Thread(target=close, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
