"""Whether two runs of a comparison agree."""

from __future__ import annotations

from typing import Any

import pytest

from larder.bench.report.agreement import Agreement, describe, find_agreement
from larder.bench.report.changes import compare_records, remarks
from tests.unit.bench.report.conftest import MakeRecord, change_rates


def summary(arm: str, median: float, width: float) -> dict[str, Any]:
    return {
        "arm": arm,
        "workers": 2,
        "imgs_per_s": {"median": median, "low": median - width / 2, "high": median + width / 2},
    }


def test_runs_agree_if_ranks_are_the_same_and_medians_near() -> None:
    pairs = [
        (summary("stream", 1000, 40), summary("stream", 1030, 20)),
        (summary("webdataset", 400, 10), summary("webdataset", 391, 10)),
    ]
    assert find_agreement(pairs) == Agreement(2, [], [])
    assert describe(find_agreement(pairs)).startswith("The two runs agree: both rank 2 arms the same")


def test_one_arm_has_no_rank() -> None:
    found = find_agreement([(summary("stream", 1000, 40), summary("stream", 1030, 20))])
    assert describe(found).startswith("The two runs agree: the medians of each arm differ")


@pytest.mark.parametrize("after", [959.0, 1041.0])
def test_medians_further_apart_than_the_wider_interval_dont_agree(after: float) -> None:
    found = find_agreement([(summary("stream", 1000, 40), summary("stream", after, 20))])
    assert not found.holds
    [fault] = found.apart
    assert f"the medians of stream with 2 workers, 1,000 and {after:,.0f} images/s" in fault


def test_arms_that_change_places_dont_agree_though_their_medians_are_near() -> None:
    pairs = [
        (summary("a", 100, 40), summary("a", 90, 40)),
        (summary("b", 95, 40), summary("b", 99, 40)),
        (summary("c", 10, 4), summary("c", 10, 4)),
    ]
    found = find_agreement(pairs)
    assert found.swapped == [("a with 2 workers", "b with 2 workers")]
    assert "a with 2 workers and b with 2 workers change places" in describe(found)


def test_equal_medians_have_no_order_to_lose() -> None:
    pairs = [(summary("a", 100, 4), summary("a", 100, 4)), (summary("b", 100, 4), summary("b", 101, 4))]
    assert find_agreement(pairs).holds


@pytest.mark.parametrize(("factor", "start"), [(1.0, "The two runs agree"), (0.2, "The two runs don't agree")])
def test_the_report_says_whether_two_runs_agree(make_record: MakeRecord, factor: float, start: str) -> None:
    changes = compare_records(make_record(change_rates("webdataset", factor)), make_record(name="before.json"))
    assert remarks(changes)[0].startswith(start)
