"""One measured pass: waits, seconds and images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from larder.bench import measure as measure_module
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


class Clock:
    """A clock that only tests advance."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of `measure`."""
    made = Clock()
    monkeypatch.setattr(measure_module, "perf_counter", made)
    return made


def test_waits_include_loading_and_the_pass_ends_with_its_last_batch(make_batch: MakeBatch, clock: Clock) -> None:
    def slow() -> Iterator[Any]:
        for images in (4, 4, 2):
            clock.advance(0.5)
            yield make_batch(images)
        clock.advance(3)  # after the last batch: no part of the pass

    counts: list[int] = []
    measured = measure(slow(), counts.append)
    assert (measured.images, counts, len(measured.waits)) == (10, [4, 4, 2], 3)
    assert measured.waits == [0.5, 0.5, 0.5]
    assert measured.seconds == 1.5
    assert measured.peak_memory_bytes > 1_000_000


def test_advance_counts_in_the_whole_but_in_no_wait(make_batch: MakeBatch, clock: Clock) -> None:
    measured = measure(iter([make_batch(), make_batch()]), lambda _: clock.advance(0.5))
    assert measured.waits == [0, 0]
    assert measured.seconds == 0.5, "the second call comes after the last batch"


@pytest.mark.parametrize(
    "form", [{"shape": (3, 256, 256)}, {"dtype": "torch.uint8"}], ids=["another-size", "not-normalized"]
)
def test_batches_of_another_form_are_refused(make_batch: MakeBatch, form: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="a loader must yield"):
        measure(iter([make_batch(**form)]), lambda _: None)
