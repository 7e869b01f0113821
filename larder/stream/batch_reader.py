"""Read and decode one epoch's batches in threads: fetchers read blocks of shards, decoders fill batches from them."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from larder.errors import ConfigurationError, InputError
from larder.stream.block_memory import BlockMemory
from larder.stream.order import Samples
from larder.stream.read_plan import NOTHING, Block, Places, plan_reading
from larder.stream.shard_folders import ShardFolder, ShortShardError

R = TypeVar("R")
_STOP_SECONDS = 5.0
"""Time for threads to end. A fetcher may wait for a store that doesn't answer; then it ends on its own later."""
DECODED_TOGETHER = 32
"""Samples that a decoder takes at once. A smaller number spreads a batch better over threads; with a larger one, less
Python runs."""


class Work(Protocol[R]):
    """What decoders do. Its methods are called in several threads at once."""

    def start(self, samples: Samples) -> R:
        """Return an empty batch for these samples."""

    def fill(self, batch: R, begin: int, samples: Samples, contents: Sequence[memoryview | InputError]) -> None:
        """Fill a batch's places from `begin` on.

        Args:
            batch: What `start` returned.
            begin: The first sample's place in the batch.
            samples: Numbers of the samples.
            contents: Their bytes, or why they couldn't be read.
        """


@dataclass(eq=False)
class _Batch(Generic[R]):
    samples: Samples
    content: R | None = None
    begun: int = 0
    """Samples that a decoder has taken."""
    filled: int = 0
    fault: BaseException | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True)
class ReadLimits:
    """Limits of a reader.

    Attributes:
        decoders: Threads that decode.
        fetchers: Threads that read, each with one request at a time.
        memory_bytes: Bytes of shards that are held or being read. It is exceeded only by what the next batch needs.
        batches: Batches that are decoded in advance.
    """

    decoders: int
    fetchers: int
    memory_bytes: int
    batches: int


class Traffic:
    """What was read from the shards so far.

    Attributes:
        counts: Bytes and requests, int64 [2]; perhaps in memory that processes share.
    """

    def __init__(self, counts: NDArray[np.int64] | None = None) -> None:
        self.counts = np.zeros(2, np.int64) if counts is None else counts
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count a request and its bytes."""
        with self._lock:
            self.counts[:] += (size, 1)


class BatchReader(Generic[R]):
    """An iterator over batches. Threads start with the first batch that is requested, and end with `close`.

    Args:
        folder: The shards.
        shards: Path of each shard.
        begin: Position of each sample in its shard, int64 [N].
        end: Position after each sample, int64 [N].
        shard: Shard of each sample, int32 [N].
        block: Block of each sample, int64 [N].
        batches: The samples of each batch.
        work: What decoders do.
        limits: Numbers of threads, and memory.
        traffic: Counts bytes and requests.
        read_first: Whether to read the first batch's samples before whole blocks; see `plan_reading`.

    Raises:
        InputError: From `next`, if a sample can't be read.
        ServiceError: From `next`, if the store fails.
    """

    def __init__(
        self,
        folder: ShardFolder,
        *,
        shards: Sequence[str],
        shard: NDArray[np.int32],
        begin: NDArray[np.int64],
        end: NDArray[np.int64],
        block: NDArray[np.int64],
        batches: Sequence[Samples],
        work: Work[R],
        limits: ReadLimits,
        traffic: Traffic,
        read_first: bool = False,
    ) -> None:
        self._folder, self._work, self._limits, self._traffic = folder, work, limits, traffic
        self._begin, self._end, self._block = begin, end, block
        self._batches = [_Batch[R](samples) for samples in batches]
        places = Places(shards, shard, begin, end, block)
        self._plan = plan_reading(places, batches, read_first=read_first) if batches else NOTHING
        self._memory = BlockMemory(block.end - block.begin for block in self._plan.queue)
        self._next_block = self._head = self._next_batch = self._held = 0
        # One condition for each kind of waiting thread: to wake all of them at each change takes much of the time.
        # The lock is reentrant: the garbage collector may close this reader in a thread that holds it.
        self._lock = threading.RLock()
        self._may_fetch, self._may_decode, self._is_filled = (threading.Condition(self._lock) for _ in range(3))
        self._stopped = False
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._process = os.getpid()

    def __iter__(self) -> Iterator[R]:
        return self

    def __next__(self) -> R:
        require_process(self._process)
        if self._head == len(self._batches):
            self.close()
            raise StopIteration
        if not self._threads:
            self._start()
        batch = self._batches[self._head]
        with self._lock:
            while batch.filled < len(batch.samples) and (batch.fault or self._failure) is None:
                self._is_filled.wait()
            self._head += 1
            self._may_fetch.notify()
            self._may_decode.notify_all()
        if fault := batch.fault or self._failure:
            self.close()
            raise fault
        content, batch.content = batch.content, None
        return cast("R", content)

    def close(self) -> None:
        """Stop the threads, and release what they hold."""
        if os.getpid() != self._process:
            return  # the threads are the parent's
        with self._lock:
            self._stopped = True
            self._wake_all()
        stop_at = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            # A thread that could not be started has no identity; the garbage collector may close from any thread.
            if thread.ident is not None and thread is not threading.current_thread():
                thread.join(max(0.0, stop_at - time.monotonic()))
        _running.discard(self)
        self._head = len(self._batches)
        for batch in self._batches:
            batch.content = None
        for block in self._plan.queue:
            block.content = None

    def _start(self) -> None:
        jobs = [self._fetch] * self._limits.fetchers + [self._decode] * self._limits.decoders
        self._threads = [
            threading.Thread(target=self._run, args=[job], daemon=True, name="larder-stream") for job in jobs
        ]
        _running.add(self)
        for thread in self._threads:
            thread.start()

    def _run(self, job: Callable[[], None]) -> None:
        """Run a thread's job. If it fails unexpectedly, the consumer raises the error instead of waiting forever."""
        try:
            job()
        except BaseException as error:
            with self._lock:
                self._failure = error
                self._wake_all()

    def _wake_all(self) -> None:
        for condition in (self._may_fetch, self._may_decode, self._is_filled):
            condition.notify_all()

    def _fetch(self) -> None:
        while (block := self._take_block()) is not None:
            content: memoryview | None = None
            memory: memoryview | None = None
            fault: BaseException | None = None
            try:
                memory = self._memory.take(block.length)
                content = self._folder.read(block.shard, block.begin, block.end, memory)
                self._traffic.add(block.length)
            except ShortShardError as error:
                content, error.content = error.content, memoryview(b"")  # what is there is good
                fault = error
            except BaseException as error:  # raised where its samples are requested
                fault = error
            with self._lock:
                block.content, block.fault, block.is_read = content, fault, True
                self._may_decode.notify_all()
            del content, memory  # else this thread would hold them while it waits

    def _take_block(self) -> Block | None:
        """Return the next block to read as soon as there is memory for it; None if nothing is left to do."""
        with self._lock:
            while not self._stopped and self._next_block < len(self._plan.queue):
                block = self._plan.queue[self._next_block]
                size = self._memory.cost(block.length)
                # What the next batch needs is always read: otherwise nothing would be released any more. Until the
                # first one is decoded, only the second's blocks are read ahead: more would take cores and bandwidth.
                is_wanted = block.first_batch <= 1 or self._is_first_decoded()
                has_room = self._held + size <= self._limits.memory_bytes
                if (is_wanted and has_room) or block.first_batch <= self._head:
                    self._next_block += 1
                    self._held += size
                    self._may_fetch.notify()  # perhaps there is room for one more
                    return block
                self._may_fetch.wait()
            self._may_fetch.notify_all()
            return None

    def _is_first_decoded(self) -> bool:
        return self._head > 0 or self._batches[0].filled == len(self._batches[0].samples)

    def _decode(self) -> None:
        while (task := self._take_samples()) is not None:
            batch, begin, samples, blocks = task
            contents: list[memoryview | InputError] = []
            try:
                ranges = zip(blocks, self._begin[samples].tolist(), self._end[samples].tolist(), strict=True)
                contents = [_content_of(*one) for one in ranges]
                with batch.lock:
                    if batch.content is None:
                        batch.content = self._work.start(batch.samples)
                self._work.fill(batch.content, begin, samples, contents)
            except BaseException as error:  # raised where the batch is requested
                batch.fault = batch.fault or error
            del contents
            with self._lock:
                batch.filled += len(samples)
                for block in blocks:
                    block.unused -= 1
                    if not block.unused:
                        block.content = None
                        self._held -= self._memory.cost(block.length)
                self._may_fetch.notify()
                if batch.fault or batch.filled == len(batch.samples):
                    self._is_filled.notify_all()

    def _take_samples(self) -> tuple[_Batch[R], int, Samples, list[Block]] | None:
        """Return the next samples to decode when their blocks are read, or None when there is nothing left to do."""
        with self._lock:
            while not self._stopped and self._next_batch < len(self._batches):
                if self._next_batch < self._head + self._limits.batches:
                    break
                self._may_decode.wait()
            if self._stopped or self._next_batch == len(self._batches):
                return None
            number, batch = self._next_batch, self._batches[self._next_batch]
            begin = batch.begun
            samples = batch.samples[begin : begin + DECODED_TOGETHER]
            batch.begun += len(samples)
            if batch.begun == len(batch.samples):
                self._next_batch += 1
            blocks = [
                self._plan.alone.get((number, sample)) or self._plan.blocks[block]
                for sample, block in zip(samples.tolist(), self._block[samples].tolist(), strict=True)
            ]
            while not self._stopped and not all(block.is_read for block in blocks):
                self._may_decode.wait()
            return None if self._stopped else (batch, begin, samples, blocks)


def _content_of(block: Block, begin: int, end: int) -> memoryview | InputError:
    """Return a sample's bytes, or the error that says why the sample can't be read. Raise other errors."""
    content = block.content  # which another thread may release
    if content is not None and end - block.begin <= len(content):
        return content[begin - block.begin : end - block.begin]
    if isinstance(block.fault, InputError):
        return block.fault
    if block.fault is not None:
        raise block.fault
    raise ConfigurationError(
        "the stream was closed in another thread while it was being read",
        next_step="close it after the loop has ended",
    )


_running = weakref.WeakSet[BatchReader[Any]]()


@atexit.register
def _close_running() -> None:
    """Stop the threads before the interpreter frees what they use."""
    for reader in list(_running):
        reader.close()


def require_process(process: int) -> None:
    """Raise ConfigurationError if this isn't the process, by its id, that began to read."""
    if os.getpid() != process:
        raise ConfigurationError(
            "this process was forked while the stream was being read, and a fork can't read on",
            next_step="start the stream in the process that reads it, or use the start method spawn or forkserver",
        )


def block_numbers(block_starts: Samples) -> Samples:
    """Return the block of each sample, int32 [N], from the first sample of each block."""
    return np.repeat(np.arange(len(block_starts) - 1, dtype=np.int32), np.diff(block_starts))
