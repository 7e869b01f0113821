"""Let a child process read and decode: batches arrive in memory that both processes share (mode="process").

The child runs the same threads as mode="thread" (`larder.stream.batch_reader`). It is started as a program, not forked:
so it needs no `if __name__ == "__main__"`, and a DataLoader's workers may start it, too. Keys of a store reach it
through the connection, never through its arguments.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from larder.errors import ConfigurationError, ResourceError
from larder.stream.batch_reader import Traffic, require_process
from larder.stream.child_messages import SENT_AHEAD, Batch, Command, unpack
from larder.stream.decode import PillowSettings
from larder.stream.order import Samples
from larder.stream.shared_slots import SharedSlots, create_file
from larder.stream.thread_reader import Epoch, ReadSetup
from larder.stream.work import ImageBatch

_PROGRAM = """import sys
sys.path[:] = sys.argv[5:]
from larder.stream.child import main
main(*map(int, sys.argv[1:5]))
"""
_CHECK_SECONDS = 1.0
"""Pause between looks at the child. A fork of this process may keep the connection open when the child is dead."""
_END_SECONDS = 5.0
_LESS_MEMORY = "give the program more memory, or lower `window_bytes`, `ahead_bytes` or `batch_size`"
_SEE_MESSAGE = "see what it wrote to stderr, or set mode='thread'"
_GO_ON = "the stream keeps its position: iterate again, or resume with load_state_dict"


class Child:
    """A process that reads for one stream, epoch after epoch. It ends with this object, and with its parent.

    Args:
        setup: What to read.
        slot_bytes: Length of the longest batch in bytes.
        traffic: Counts bytes and requests from now on in memory that the child shares.

    Raises:
        ConfigurationError: If the transform can't be sent.
        ResourceError: If the process can't be started.
    """

    def __init__(self, setup: ReadSetup, slot_bytes: int, traffic: Traffic) -> None:
        # What is sent ahead counts as decoded in advance.
        limits = replace(setup.limits, batches=max(1, setup.limits.batches - SENT_AHEAD))
        message = _pickled(setup._replace(limits=limits))
        self.owner, self.slot_bytes = os.getpid(), slot_bytes
        self._connection, theirs = Pipe()
        file = create_file()
        self._slots = SharedSlots(file, slot_bytes)
        self._slots.counts[:] = traffic.counts
        with theirs:
            self._process = _start(theirs.fileno(), file, slot_bytes)
        self.end = weakref.finalize(self, _end, self._process, self._connection, self.owner)
        """End the process; does nothing the second time."""
        traffic.counts = self._slots.counts
        self._free = deque[int]()  # without a lock: the garbage collector appends, in any thread
        try:
            self._send(message)  # takes until the child is ready
        except BaseException:
            self.end()
            raise

    def read(self, epoch: Epoch) -> None:
        """Begin an epoch. The child sends its first batches at once."""
        self._send(pickle.dumps(Command(epoch, self._take_free())))

    def want_one_more(self) -> None:
        """Allow the child to send one more batch."""
        self._send(pickle.dumps(Command(None, self._take_free())))

    def receive(self) -> Batch:
        """Wait for the next batch.

        Raises:
            ResourceError: If the child has ended.
            BaseException: What ended the reading.
        """
        try:
            while not self._connection.poll(_CHECK_SECONDS):
                if self._process.poll() is not None and not self._connection.poll():
                    raise EOFError
            found = unpack(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            raise self._explain_end() from None
        if isinstance(found, BaseException):
            raise found
        return found

    def images(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a slot's images. The child gets the slot back when nobody refers to them any more."""
        memory = self._slots.slot(slot)
        weakref.finalize(memory, self._free.append, slot).atexit = False
        return memory[: int(np.prod(shape))].reshape(shape)

    def _take_free(self) -> list[int]:
        return [self._free.popleft() for _ in range(len(self._free))]

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except ConnectionError:
            return  # the child has ended, which `receive` explains; it may have sent an error before

    def _explain_end(self) -> ResourceError:
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            code = 0
        what, next_step = f"ended unexpectedly, with exit code {code}", _SEE_MESSAGE
        if code < 0:
            what = f"was ended by {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            what, next_step = "was killed, most likely because memory ran out", _LESS_MEMORY
        return ResourceError(f"the stream's child process {what}", next_step=f"{next_step}; {_GO_ON}")


def _pickled(setup: ReadSetup) -> bytes:
    try:
        return pickle.dumps((PillowSettings.of_this_process(), setup))
    except Exception as error:  # pickle raises all kinds of exceptions
        raise ConfigurationError(
            f"transform={setup.transform!r}: it can't be sent to the stream's child process: {error}",
            next_step="define its class at the top of a module, or set mode='thread'",
        ) from error


def _start(connection: int, file: int, slot_bytes: int) -> subprocess.Popen[bytes]:
    """Start the child, in a session of its own: Ctrl-C reaches the parent alone, which ends the child."""
    numbers = map(str, (connection, file, slot_bytes, os.getpid()))
    try:
        return subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, *numbers, *_import_path()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(connection, file),
            start_new_session=True,
        )
    except OSError as error:
        raise ResourceError(
            f"the stream's child process can't be started: {error.strerror}: {sys.executable!r}",
            next_step="set mode='thread'",
        ) from error


def _import_path() -> list[str]:
    """Return where the child finds modules: where this process does, wherever its working directory was meanwhile."""
    return [*(os.fspath(path) or os.getcwd() for path in sys.path), str(Path(__file__).parents[2])]


def _end(process: subprocess.Popen[bytes], connection: Connection, owner: int) -> None:
    """End the child at once: it has nothing to finish. In a fork of its parent, do nothing."""
    if os.getpid() == owner:
        process.kill()
        process.wait()
        connection.close()


class ChildReader:
    """An iterator over an epoch's batches; it stands for `larder.stream.batch_reader.BatchReader`.

    Args:
        child: The process that reads.
        epoch: What it reads.
        labels: Returns the labels of samples, int64; see `SampleTable.labels`.
        size: Width and height of the images, in pixels.
        keep: Called with the child when it has read everything, so that it can read the next epoch.

    Raises:
        InputError: From `next`, if a sample can't be read.
        ServiceError: From `next`, if the store fails.
        ResourceError: From `next`, if the child has ended.
    """

    def __init__(
        self,
        child: Child,
        epoch: Epoch,
        labels: Callable[[Samples], NDArray[np.int64]],
        size: int,
        keep: Callable[[Child], None],
    ) -> None:
        self._child, self._epoch, self._labels, self._size, self._keep = child, epoch, labels, size, keep
        self._done = 0
        self._is_begun = self._is_closed = False

    def __iter__(self) -> Iterator[ImageBatch]:
        return self

    def __next__(self) -> ImageBatch:
        require_process(self._child.owner)
        if self._is_closed or self._done == len(self._epoch.batches):
            raise StopIteration
        if not self._is_begun:
            self._is_begun = True
            self._child.read(self._epoch)
        try:
            found = self._child.receive()
        except BaseException:
            self.close()
            raise
        samples = self._epoch.batches[self._done]
        self._done += 1
        self._child.want_one_more()
        images = self._child.images(found.slot, (len(samples), self._size, self._size, 3))
        batch = ImageBatch(images, self._labels(samples))
        batch.skipped = found.skipped
        return batch

    def close(self) -> None:
        """Keep the child if it has read the whole epoch; else end it."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._done == len(self._epoch.batches):
            self._keep(self._child)
        else:
            self._child.end()
