"""Failures of DataLoader's workers, in the words of torch 2.14."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from larder.contract import Manifest
from larder.errors import ConfigurationError, InputError, LarderError, ResourceError, ServiceError, StorageError
from larder.loaders.dataloader import EpochSampler, MapStyleLoader
from larder.loaders.failures import WorkerError, map_worker_errors


@pytest.mark.parametrize(
    ("message", "what", "remedy"),
    [
        pytest.param(
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are "
            "out of shared memory. Please try to raise your shared memory limit.",
            "ran out of shared memory",
            "shared memory",
            id="bus-error",
        ),
        pytest.param(
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            "RuntimeError: unable to write to file </torch_7_1_0>: No space left on device (28)",
            "ran out of shared memory",
            "shared memory",
            id="no-space",
        ),
        pytest.param(
            "DataLoader worker (pid 7) is killed by signal: Killed. ", "was lost", "`workers` lower", id="killed"
        ),
        pytest.param("DataLoader worker (pid(s) 7) exited unexpectedly", "was lost", "`workers` lower", id="gone"),
    ],
)
def test_lost_workers_become_resource_errors(message: str, what: str, remedy: str) -> None:
    with pytest.raises(ResourceError, match=what) as caught, map_worker_errors():
        raise RuntimeError(message)
    assert remedy in caught.value.next_step


def test_other_errors_stay_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="a fault"), map_worker_errors():
        raise RuntimeError("a fault")


class Failing:
    """A dataset whose every image fails, in the worker that reads it."""

    def __init__(self, error: LarderError) -> None:
        self.error = error

    def __len__(self) -> int:
        return 640

    def __getitem__(self, number: int) -> None:
        raise WorkerError.from_error(self.error) from self.error


@pytest.fixture
def loader(manifest: Manifest) -> Callable[..., Any]:
    """Makes a loader of a dataset with this number of workers."""

    def make(dataset: Any, workers: int = 1) -> Any:
        return MapStyleLoader(dataset, manifest, "training", batch_size=64, workers=workers, seed=0, transform=None)

    return make


@pytest.mark.parametrize("workers", [0, 1], ids=["here", "in-a-worker"])
@pytest.mark.parametrize("kind", [ConfigurationError, InputError, ServiceError, StorageError])
def test_errors_come_out_of_workers_whole(loader: Callable[..., Any], kind: type[LarderError], workers: int) -> None:
    error = kind("s3://b/k: Gemüse\nis gone", next_step="look, then 'run' again")
    with loader(Failing(error), workers) as numbers:
        with pytest.raises(kind) as caught:
            next(iter(numbers))
        assert (type(caught.value), caught.value.what, caught.value.next_step) == (kind, error.what, error.next_step)
    assert not multiprocessing.active_children()


class Numbered:
    """A dataset whose images are their numbers."""

    def __len__(self) -> int:
        return 640

    def __getitem__(self, number: int) -> tuple[float, int]:
        return float(number), number


@pytest.mark.parametrize("workers", [0, 2], ids=["here", "in-workers"])
def test_iterating_gives_epoch_after_epoch(loader: Callable[..., Any], workers: int) -> None:
    with loader(Numbered(), workers) as numbers:
        epochs = [[label for _, labels in numbers for label in labels.tolist()] for _ in range(2)]
        again = [label for _, labels in numbers.read(0, 3) for label in labels.tolist()]
    assert len(numbers) == 10
    assert [sorted(epoch) for epoch in epochs] == [list(range(640))] * 2
    assert epochs[0] != epochs[1]
    assert again == epochs[0][: 3 * 64]


def test_a_closed_loader_reads_again(loader: Callable[..., Any]) -> None:
    with loader(Numbered()) as numbers:
        first = next(iter(numbers))[1].tolist()
        numbers.close()
        assert not multiprocessing.active_children()
        assert next(numbers.read(0, 1))[1].tolist() == first


def test_an_epoch_is_a_seeded_permutation_and_a_short_pass_is_its_start() -> None:
    order, same = EpochSampler(100, seed=3), EpochSampler(100, seed=3)
    whole = list(order)
    assert sorted(whole) == list(range(100)) != whole
    same.limit = 10
    assert (list(same), len(same)) == (whole[:10], 10)
    same.epoch = 1
    assert list(same) != whole[:10]
    assert list(EpochSampler(100, seed=4)) != whole


HANDS_OVER = """
import os, socket
from multiprocessing import resource_sharer
from larder.loaders.failures import init_worker

init_worker(0)
address, _ = resource_sharer.DupFd(os.open(os.devnull, os.O_RDONLY))._id
with socket.socket(socket.AF_UNIX) as taker:
    taker.connect(address)
resource_sharer.stop(60)
"""


def test_a_worker_is_silent_when_a_batch_is_no_longer_wanted() -> None:
    """The process that takes it was interrupted in the middle."""
    ended = subprocess.run([sys.executable, "-c", HANDS_OVER], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
