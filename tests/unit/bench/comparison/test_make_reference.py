"""The reference of a comparison: where it comes from, and what happens if there is no time for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.bench.comparison.compare import _make_reference
from larder.bench.comparison.images import ImageSource
from larder.bench.comparison.kept import KeptRounds
from larder.bench.comparison.processes import JobFailure
from larder.bench.comparison.session import Means
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison.time_budget import TimeBudget
from larder.bench.comparison.work import Job
from larder.progress import NullReporter

SOURCE = ImageSource("s3://bucket/shards", "/mnt/tree", "training")
TIMEOUT = JobFailure("timeout", "it took longer than 40 s, and was ended")
MakeMeans = Callable[..., tuple[Means, list[str]]]


@pytest.fixture
def make_means(tmp_path: Path) -> MakeMeans:
    """Return means whose jobs have these results, in turn, and the list of the sources that they read."""

    def make(*results: dict[str, Any] | JobFailure, quick: bool = False) -> tuple[Means, list[str]]:
        read, answers = list[str](), iter(results)

        class Runner:
            def run(
                self, function: object, job: Job, name: str, deadline: float, watch: object
            ) -> dict[str, Any] | JobFailure:
                assert job.source is not None
                read.append(job.source.shards or job.source.tree)
                return next(answers)

        settings = ComparisonSettings.load("compare", [], {})
        budget = TimeBudget.of_comparison(quick=quick)
        return Means(settings, KeptRounds(tmp_path), Runner(), NullReporter(), budget), read  # type: ignore[arg-type]

    return make


def test_a_reference_is_made_once(make_means: MakeMeans) -> None:
    means, read = make_means({"digest": "abc"})
    assert _make_reference(means, SOURCE, 40).digest == "abc"
    assert _make_reference(means, SOURCE, 40).digest == "abc"
    assert read == [SOURCE.shards]


def test_the_tree_serves_if_the_store_fails(make_means: MakeMeans) -> None:
    means, read = make_means(JobFailure("error", "403"), {"digest": "abc"})
    assert _make_reference(means, SOURCE, 40) == ("abc", False)
    assert read == [SOURCE.shards, SOURCE.tree]


def test_a_quick_comparison_does_without_a_reference_that_takes_too_long(make_means: MakeMeans) -> None:
    means, read = make_means(TIMEOUT, quick=True)
    assert _make_reference(means, SOURCE, 40) == ("unknown", True)
    assert read == [SOURCE.shards]


@pytest.mark.parametrize(("source", "samples"), [(None, 40), (SOURCE, 20_001)], ids=["no images", "too many"])
def test_without_images_or_with_too_many_there_is_no_reference(
    make_means: MakeMeans, source: ImageSource | None, samples: int
) -> None:
    means, read = make_means()
    assert _make_reference(means, source, samples) == ("unknown", False)
    assert not read
