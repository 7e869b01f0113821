"""What is shown while a job runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from larder.bench.comparison.job_progress import JobWatch, counted, read_progress, write_progress
from larder.bench.comparison.processes import JobRunner
from larder.progress import Reporter
from tests.unit.bench.comparison import jobs


class Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("time.monotonic", made)
    return made


Watched = Callable[..., str]


@pytest.fixture
def watched(clock: Clock, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Watched:
    """Return a function that watches a job, which writes a text after each second, and returns what was shown."""

    def watch(*written: str) -> str:
        path = tmp_path / "job.progress"
        with JobWatch(Reporter("compare", "line"), "round 1, stream with 2 workers", path, clock) as show:
            for text in written:
                clock.now += 1
                if text:
                    path.write_text(text)
                show()
        return capsys.readouterr().err

    return watch


def test_a_short_job_says_nothing(watched: Watched) -> None:
    assert watched("10 640") == ""


def test_a_job_of_more_than_two_seconds_is_announced(watched: Watched) -> None:
    assert watched("", "", "") == "compare: round 1, stream with 2 workers: running\n"


def test_its_images_are_counted(watched: Watched) -> None:
    lines = watched("", "", *(f"{64 * number} 640" for number in range(1, 11))).splitlines()
    assert lines[0].endswith(": running")
    assert lines[1] == "compare: round 1, stream with 2 workers: 384 of 640 images, 76.8 images/s, 3 s left"


def test_a_job_that_reads_nothing_isnt_silent(watched: Watched) -> None:
    lines = watched(*[""] * 25).splitlines()
    assert [line.rpartition(": ")[2] for line in lines] == [
        "running",
        "no image has come yet, after 12 seconds",
        "no image has come yet, after 22 seconds",
    ]


def test_progress_of_an_earlier_job_doesnt_count(tmp_path: Path) -> None:
    path = tmp_path / "job.progress"
    write_progress(path, 640, 640)
    with JobWatch(Reporter("compare", "line"), "a job", path):
        assert read_progress(path) is None


def test_half_a_line_is_no_progress(tmp_path: Path) -> None:
    path = tmp_path / "job.progress"
    path.write_text("64")
    assert read_progress(path) is None


def test_counted_items_are_the_same(clock: Clock, tmp_path: Path) -> None:
    path, seen = tmp_path / "job.progress", []
    for item in counted("abc", path, 3):
        seen.append(item)
        clock.now += 1
    assert seen == ["a", "b", "c"]
    assert read_progress(path) == (3, 3)


def test_a_running_job_is_looked_at(tmp_path: Path) -> None:
    seen: list[bool] = []
    with JobRunner(tmp_path, 2) as runner:
        runner.run(jobs.hang, tmp_path / "child", "job", watch=lambda: seen.append(True))
    assert len(seen) > 1
