"""Lines of progress."""

from __future__ import annotations

import json

import pytest

from larder.progress import Reporter


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, which only the test changes."""
    times = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: times[0])
    return times


@pytest.mark.parametrize(
    ("total", "unit", "done", "seconds", "shown"),
    [
        (5, "batches", 1, 8, "1 of 5 batches, 0.12 batches/s, 32 s left"),
        (5, "batches", 5, 10, "5 of 5 batches, 0.50 batches/s"),
        (1, "batches", 1, 800, "1 of 1 batch, less than 0.01 batches/s"),
        (5, "batches", 0, 8, "0 of 5 batches"),
        (4000, "images", 2000, 8, "2,000 of 4,000 images, 250 images/s, 8 s left"),
        (4000, "images", 12, 8, "12 of 4,000 images, 1.5 images/s, 2659 s left"),
        (None, "images", 1, 6, "1 image, 0.17 images/s"),
        (4 << 20, "B", 1 << 20, 8, "1.0 MiB of 4.0 MiB, 128.0 KiB/s, 24 s left"),
    ],
)
def test_a_line_has_part_whole_rate_and_time(
    now: list[float],
    capsys: pytest.CaptureFixture[str],
    total: int | None,
    unit: str,
    done: int,
    seconds: float,
    shown: str,
) -> None:
    with Reporter("bench", "line").task("measured", total, unit) as task:
        now[0] += seconds
        task.advance(done)
        assert capsys.readouterr().err == f"bench: measured: {shown}\n"


def test_short_work_has_no_line(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter("bench", "line").task("measured", 5, "batches") as task:
        task.advance(5)
    assert capsys.readouterr().err == ""


def test_machines_get_the_figures(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with Reporter("bench", "json").task("measured", 5, "batches") as task:
        now[0] += 8
        task.advance(1)
        [line] = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert (event["done"], event["total"], event["unit"], event["seconds_left"]) == (1, 5, "batches", 32.0)
