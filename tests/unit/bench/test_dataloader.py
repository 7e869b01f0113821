"""What DataLoader says when its workers fail, in torch 2.14's own words."""

import pytest

from larder.errors import ResourceError


@pytest.mark.parametrize(
    ("message", "what", "remedy"),
    [
        pytest.param(
            "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are "
            "out of shared memory. Please try to raise your shared memory limit.",
            "ran out of shared memory", "--shm-size", id="bus-error",
        ),
        pytest.param(
            "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
            "RuntimeError: unable to write to file </torch_7_1_0>: No space left on device (28)",
            "ran out of shared memory", "--shm-size", id="no-space",
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
        open_dataloader(manifest, [], 640, make_settings("--workers", "1")),
    ):
        raise RuntimeError(message)
    assert remedy in caught.value.next_step


def test_other_errors_stay_as_they_are(make_settings, manifest):
    from services.bench.dataloader import open_dataloader

    with pytest.raises(RuntimeError, match="a fault"), open_dataloader(manifest, [], 640, make_settings()):
        raise RuntimeError("a fault")


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
