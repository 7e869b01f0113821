"""What DataLoader says when its workers fail, in torch 2.14's own words."""

import gc
import multiprocessing
import subprocess
import sys

import pytest

from larder.errors import ConfigurationError, InputError, LarderError, ResourceError, ServiceError, StorageError


@pytest.mark.parametrize(
    ("message", "what", "remedy"),
    [
        pytest.param(
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are "
            "out of shared memory. Please try to raise your shared memory limit.",
            "ran out of shared memory", "LARDER_SHM_SIZE", id="bus-error",
        ),
        pytest.param(
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            "RuntimeError: unable to write to file </torch_7_1_0>: No space left on device (28)",
            "ran out of shared memory", "LARDER_SHM_SIZE", id="no-space",
        ),
        pytest.param(
            "DataLoader worker (pid 7) is killed by signal: Killed. ", "was lost", "LARDER_WORKERS lower", id="killed"
        ),
        pytest.param(
            "DataLoader worker (pid(s) 7) exited unexpectedly", "was lost", "LARDER_WORKERS lower", id="gone"
        ),
    ],
)  # fmt: skip
def test_lost_workers_become_storage_errors(make_settings, manifest, message, what, remedy):
    from services.bench.dataloader import open_dataloader

    with (
        pytest.raises(ResourceError, match=what) as caught,
        open_dataloader(manifest, [], 640, make_settings("--workers", "1"), "make etl-local"),
    ):
        raise RuntimeError(message)
    assert remedy in caught.value.next_step


def test_other_errors_stay_as_they_are(make_settings, manifest):
    from services.bench.dataloader import open_dataloader

    with (
        pytest.raises(RuntimeError, match="a fault"),
        open_dataloader(manifest, [], 640, make_settings(), "make etl-local"),
    ):
        raise RuntimeError("a fault")


class Failing:
    """A dataset whose every image fails, in the worker that reads it."""

    def __init__(self, error: LarderError) -> None:
        self.error = error

    def __len__(self) -> int:
        return 640

    def __getitem__(self, number: int) -> None:
        from services.bench.dataloader import CarriedError

        raise CarriedError.of(self.error) from self.error


@pytest.mark.parametrize("kind", [ConfigurationError, InputError, ServiceError, StorageError])
def test_errors_come_out_of_workers_whole(make_settings, manifest, kind):
    from services.bench.dataloader import open_dataloader

    error = kind("s3://b/k: Gemüse\nis gone", next_step="look, then 'run' again")
    with (
        pytest.raises(kind) as caught,
        open_dataloader(manifest, Failing(error), 640, make_settings("--workers", "1"), "make etl-load") as feed,
    ):
        next(feed.read(0, 1))
    assert (type(caught.value), caught.value.what, caught.value.next_step) == (kind, error.what, error.next_step)
    del feed, caught
    gc.collect()  # the traceback holds the loader, whose worker other tests would count
    assert not multiprocessing.active_children()


def test_an_epoch_is_a_seeded_permutation_and_a_short_pass_is_its_start():
    from services.bench.dataloader import _Order

    order, same = _Order(100, seed=3), _Order(100, seed=3)
    whole = list(order)
    assert sorted(whole) == list(range(100)) != whole
    same.limit = 10
    assert (list(same), len(same)) == (whole[:10], 10)
    same.epoch = 1
    assert list(same) != whole[:10]
    assert list(_Order(100, seed=4)) != whole


HANDS_OVER = """
import os, socket
from multiprocessing import resource_sharer
from services.bench.dataloader import start_worker

start_worker(0)
address, _ = resource_sharer.DupFd(os.open(os.devnull, os.O_RDONLY))._id
with socket.socket(socket.AF_UNIX) as taker:
    taker.connect(address)
resource_sharer.stop(60)
"""


def test_a_worker_is_silent_when_a_batch_is_no_longer_wanted():
    """The process that takes it was interrupted in the middle."""
    ended = subprocess.run([sys.executable, "-c", HANDS_OVER], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
