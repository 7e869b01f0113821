"""What a round's process does with the epochs of an arm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from larder.bench.comparison.epoch import Counters
from larder.bench.comparison.plan import WARM_UP, Entry, Run
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison.work import Job, _measure_epochs
from larder.bench.measured_loader import MeasuredLoader
from larder.errors import InputError


class EmptyLoader:
    """A loader whose library yields nothing, as some do after failures that they only log."""

    images, reader = 640, "a library 1.0"

    def __len__(self) -> int:
        return 10

    def read(self, epoch: int, batches: int) -> Iterator[Any]:
        return iter(())


def test_an_epoch_without_images_is_an_error_of_the_arm(tmp_path: Path) -> None:
    run = Run(Entry("arm", "stream", 2), WARM_UP, 0)
    job = Job("arm", run, ComparisonSettings.load("compare", [], {}), tmp_path, None)
    measured = MeasuredLoader(EmptyLoader(), lambda: None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="epoch 1 had no images; the split has 640") as raised:
        list(_measure_epochs(job, measured, Counters(lambda: None, lambda: 0), None))
    assert "a library 1.0" in raised.value.next_step
