"""Read and decode in a process of its own, for a stream with mode="process" (`larder.stream.child_reader`).

The process ends at once when its parent ends, or closes the connection. It imports neither torch nor the parent's main
module.
"""

from __future__ import annotations

import math
import os
import pickle
import queue
import signal
import threading
import traceback
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from larder.errors import ConfigurationError
from larder.machine import release_free_memory
from larder.stream.batch_reader import Traffic
from larder.stream.child_messages import SENT_AHEAD, Batch, Command, pack_batch, pack_error
from larder.stream.decode import PillowSettings
from larder.stream.kernel import JpegKernel
from larder.stream.shared_slots import SharedSlots, SlotPool
from larder.stream.thread_reader import Epoch, ReadSetup, read_images
from larder.stream.work import ImageBatch

_CHECK_SECONDS = 1.0
"""Pause between looks at the parent. A fork of the parent may keep the connection open when the parent is dead."""


def main(connection_handle: int, file_handle: int, slot_bytes: int, parent: int) -> None:
    """Read what the parent requests, until it closes the connection.

    Args:
        connection_handle: Descriptor of the connection.
        file_handle: Descriptor of the file with the slots.
        slot_bytes: Length of a slot in bytes.
        parent: Process id of the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    connection = Connection(connection_handle)
    try:
        while not connection.poll(_CHECK_SECONDS):
            if os.getppid() != parent:
                return
        message = connection.recv_bytes()
    except (EOFError, ConnectionError):
        return
    try:
        pillow: PillowSettings
        setup: ReadSetup
        pillow, setup = pickle.loads(message)
    except Exception as error:
        connection.send_bytes(pack_error(_explain(error)))
        os._exit(1)
    pillow.apply()
    Server(connection, setup, SharedSlots(file_handle, slot_bytes), parent).run()


def _explain(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"the stream's child process can't load the transform or the store's settings: {error}",
        next_step="define their classes in a module that can be imported, not in the script, or set mode='thread'",
    )


class Server:
    """Reads epochs in threads, and sends a batch whenever the parent wants one.

    Args:
        connection: The connection to the parent.
        setup: What to read.
        slots: The memory that is shared with the parent.
        parent: Process id of the parent.
    """

    def __init__(self, connection: Connection, setup: ReadSetup, slots: SharedSlots, parent: int) -> None:
        self._connection, self._setup, self._parent = connection, setup, parent
        self._pool, self._traffic = SlotPool(slots), Traffic(slots.counts)
        self._decoder = setup.decoder(JpegKernel.load())
        self._epochs = queue.SimpleQueue[tuple[Epoch, threading.Semaphore]]()
        self._wanted = threading.Semaphore(0)

    def run(self) -> None:
        """Read the epochs that the parent requests. Doesn't return: the process ends with the connection."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            self._read(*self._epochs.get())

    def _listen(self) -> None:
        """Take commands until the parent is gone. Then end the process: it has nothing to finish."""
        try:
            while os.getppid() == self._parent:
                if self._connection.poll(_CHECK_SECONDS):
                    self._take(self._connection.recv())
        except (EOFError, ConnectionError):
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        os._exit(1)

    def _take(self, command: Command) -> None:
        self._pool.give_back(command.free)
        if command.epoch is None:
            self._wanted.release()
        else:  # what was still requested of the last epoch is void
            self._wanted = threading.Semaphore(SENT_AHEAD)
            self._epochs.put((command.epoch, self._wanted))

    def _read(self, epoch: Epoch, wanted: threading.Semaphore) -> None:
        """Send an epoch's batches, each when it is wanted, or the error that ends the reading."""
        try:
            reader = read_images(self._setup, epoch, self._decoder, self._new_batch, self._traffic)
            release_free_memory()  # planning takes 50 MB for a million samples
            for _ in epoch.batches:
                wanted.acquire()
                batch = next(reader)
                self._send(pack_batch(Batch(batch.slot, batch.skipped)))
            reader.close()
        except BaseException as error:  # the parent raises it, and ends this process
            self._send(pack_error(error))

    def _send(self, message: bytes) -> None:
        try:
            self._connection.send_bytes(message)
        except ConnectionError:
            os._exit(0)

    def _new_batch(self, shape: tuple[int, ...], labels: NDArray[np.int64]) -> ImageBatch:
        slot, memory = self._pool.take()
        return ImageBatch(memory[: math.prod(shape)].reshape(shape), labels, slot)
