"""What changed from one record to another, beyond the noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from larder.bench.report.changes import changes_table, compare_records, headline, ratio_interval, remarks
from larder.bench.report.facts import NO_FIGURE
from larder.errors import InputError
from tests.unit.bench.report.conftest import MakeRecord, change_rates

Change = Callable[[dict[str, Any]], object]


def test_nothing_changed_between_equal_runs(make_record: MakeRecord) -> None:
    changes = compare_records(make_record(), make_record(name="before.json"))
    assert {one.verdict for one in changes.arms} == {"no change beyond the noise"}
    assert changes.noise == pytest.approx(0.0362)
    assert headline(changes) == "Against before.json of 2026-11-29 12:00 UTC: nothing changed beyond the noise of 3.6%."
    assert changes.software.rows == []


@pytest.mark.parametrize(
    ("factor", "verdict"),
    [(1.2, "faster"), (0.8, "slower"), (1.02, "no change beyond the noise")],
)
def test_a_change_counts_if_it_is_beyond_the_noise(make_record: MakeRecord, factor: float, verdict: str) -> None:
    changes = compare_records(make_record(change_rates("webdataset", factor)), make_record(name="before.json"))
    verdicts = {one.arm: one.verdict for one in changes.arms}
    assert verdicts.pop("webdataset") == verdict
    assert set(verdicts.values()) == {"no change beyond the noise"}
    assert (f"webdataset with 2 workers is 20% {verdict}" in headline(changes)) == (factor != 1.02)
    [row] = [row for row in changes_table(changes).rows if row[0] == "webdataset"]
    assert row[4].startswith(f"{factor:.3f} (")


def test_an_arm_that_uses_all_cores_has_no_number_of_workers(make_record: MakeRecord) -> None:
    def change(record: dict[str, Any]) -> None:
        change_rates("webdataset", 1.2)(record)
        for arm in record["arms"]:
            if arm["name"] == "webdataset":
                arm["workers"] = "all cores"

    changes = compare_records(make_record(change), make_record(name="before.json"))
    assert "webdataset with all cores is 20% faster" in headline(changes)
    [row] = [row for row in changes_table(changes).rows if row[0] == "webdataset"]
    assert row[1] == "all cores"


def test_without_an_a_a_test_nothing_is_claimed(make_record: MakeRecord) -> None:
    before = make_record(lambda record: record["summary"].update(repeated=None), "before.json")
    changes = compare_records(make_record(change_rates("webdataset", 2.0)), before)
    assert {one.verdict for one in changes.arms} == {"noise unknown"}
    assert "it is unknown which changes are beyond the noise" in headline(changes)


def test_of_a_record_without_rounds_nothing_is_claimed(make_record: MakeRecord) -> None:
    before = make_record(lambda record: record.update(rounds=[]), "before.json")
    changes = compare_records(make_record(), before)
    assert "a record lacks the rounds, so it is unknown what changed" in headline(changes)
    assert {row[4] for row in changes_table(changes).rows} == {NO_FIGURE}


def test_other_code_layouts_and_settings_are_listed(make_record: MakeRecord) -> None:
    def change(record: dict[str, Any]) -> None:
        record["provenance"]["revision"] = "1" * 40
        record["provenance"]["versions"]["litdata"] = "0.2.75"
        record["data"]["layouts"][4]["manifest_sha256"] = "f" * 64
        record["settings"]["seed"] = 1

    rows = compare_records(make_record(), make_record(change, "before.json")).software.rows
    assert [row[0] for row in rows] == ["revision", "litdata", "manifest of litdata", "setting seed"]
    assert rows[1] == ("litdata", "0.2.75", "0.2.76")


def test_arms_of_one_record_are_named(make_record: MakeRecord) -> None:
    def rename(record: dict[str, Any]) -> None:
        record["summary"]["arms"][1]["arm"] = "fast_new"

    changes = compare_records(make_record(rename), make_record(name="before.json"))
    assert remarks(changes)[1:] == [
        "only in before.json: imagefolder_local with 2 workers",
        "new: fast_new with 2 workers",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda record: record["provenance"].update(cpu_model="other"),
            "provenance.cpu_model is 'AMD EPYC 9R14' in one",
        ),
        (lambda record: record["provenance"].update(endpoint="http://elsewhere"), "provenance.endpoint is"),
        (
            lambda record: record["provenance"].update(latency_s=0.02),
            "provenance.latency_s is 'None' in one and '0.02'",
        ),
        (lambda record: record["data"].update(samples=3), "data.samples is '4000' in one and '3' in the other"),
        (lambda record: record["data"].update(samples_digest="0" * 64), "data.samples_digest is '50d8"),
        (lambda record: record["settings"].update(batch_size=1), "settings.batch_size is"),
        (lambda record: record.update(quick=True), "quick is 'False' in one"),
        (lambda record: record["summary"].update(arms=[]), "have no arm with the same number of workers in common"),
    ],
    ids=["machine", "store", "latency", "samples", "digest", "settings", "quick", "arms"],
)
def test_records_that_are_not_comparable_are_refused(make_record: MakeRecord, change: Change, message: str) -> None:
    with pytest.raises(InputError) as refused:
        compare_records(make_record(), make_record(change, "before.json"))
    assert message in refused.value.what
    assert refused.value.next_step


def test_a_record_is_not_compared_with_itself(make_record: MakeRecord) -> None:
    with pytest.raises(InputError, match="is the same record"):
        compare_records(make_record(), make_record())


def test_the_interval_of_a_ratio_covers_its_rounds() -> None:
    ratio, low, high = ratio_interval([110.0, 120.0, 130.0], [90.0, 100.0, 110.0])
    assert ratio == pytest.approx(1.2)
    assert 1.0 <= low < ratio < high <= 130 / 90
    assert ratio_interval([110.0, 120.0, 130.0], [90.0, 100.0, 110.0]) == (ratio, low, high)
