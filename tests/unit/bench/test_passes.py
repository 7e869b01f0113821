"""The number of batches of a pass."""

from __future__ import annotations

from typing import Any

import pytest

from larder.bench.passes import plan_batches
from larder.errors import ConfigurationError


@pytest.mark.parametrize(
    ("images", "batches", "expected"),
    [
        pytest.param(640, 0, 10, id="a-whole-epoch"),
        pytest.param(641, 0, 11, id="its-last-batch-is-short"),
        pytest.param(640, 4, 4, id="as-many-as-asked"),
        pytest.param(640, 10, 10, id="all-that-there-are"),
        pytest.param(256, 0, 4, id="fewer-than-the-warm-up"),
        pytest.param(129, 0, 3, id="the-fewest"),
    ],
)
def test_batches_to_measure(images: int, batches: int, expected: Any) -> None:
    assert plan_batches(images, "training", 64, batches) == expected


@pytest.mark.parametrize(
    ("images", "batches", "named"),
    [
        pytest.param(128, 0, ["batch_size=64", "has 2 (128 images"], id="short-epoch"),
        pytest.param(0, 0, ["batch_size=64", "has 0 (0 images"], id="no-images"),
        pytest.param(640, 11, ["batches=11", "has 10"], id="more-than-an-epoch"),
        pytest.param(64, 2, ["2 faults", "batch_size", "batches="], id="all-at-once"),
    ],
)
def test_too_short_an_epoch_names_the_numbers(images: int, batches: int, named: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        plan_batches(images, "training", 64, batches)
    assert all(part in str(caught.value) for part in named), caught.value
