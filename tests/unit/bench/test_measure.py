from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from larder.bench.measure import measure, percentile
from tests.unit.bench.conftest import MakeBatch


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        pytest.param([7.0], 50, 7.0, id="one-value"),
        pytest.param([4.0, 1.0, 3.0, 2.0], 50, 2.0, id="half-of-four"),
        pytest.param([float(n) for n in range(1, 101)], 90, 90.0, id="p90-of-a-hundred"),
        pytest.param([float(n) for n in range(1, 101)], 99, 99.0, id="p99-of-a-hundred"),
        pytest.param([float(n) for n in range(1, 11)], 99, 10.0, id="p99-of-ten-is-the-highest"),
    ],
)
def test_percentile(values: list[float], percent: float, expected: Any) -> None:
    assert percentile(values, percent) == expected


def test_waits_and_seconds_hold_the_feed_s_time_and_not_the_end(make_batch: MakeBatch) -> None:
    def slow() -> Iterator[Any]:
        for images in (4, 4, 2):
            time.sleep(0.05)
            yield make_batch(images)
        time.sleep(0.3)  # after the last batch: no part of the pass

    told = []
    measured = measure(slow(), told.append)
    assert (measured.images, told, len(measured.waits)) == (10, [4, 4, 2], 3)
    assert all(0.05 <= wait < 0.15 for wait in measured.waits)
    assert sum(measured.waits) <= measured.seconds < 0.3
    assert measured.peak_memory_bytes > 1_000_000


def test_advance_counts_in_the_whole_but_in_no_wait(make_batch: MakeBatch) -> None:
    measured = measure(iter([make_batch(), make_batch()]), lambda _: time.sleep(0.05))
    assert max(measured.waits) < 0.04
    assert measured.seconds >= 0.05


@pytest.mark.parametrize(
    "form", [{"shape": (3, 256, 256)}, {"dtype": "torch.uint8"}], ids=["another-size", "not-normalized"]
)
def test_batches_of_another_form_are_refused(make_batch: MakeBatch, form: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="a loader must yield"):
        measure(iter([make_batch(**form)]), lambda _: None)
