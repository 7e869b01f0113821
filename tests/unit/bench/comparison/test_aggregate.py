"""Rounds of several comparisons are put together only if they are comparable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.bench.comparison.aggregate import aggregate
from larder.bench.comparison_record import read_comparison
from larder.errors import InputError

EXAMPLE = Path(__file__).parents[1] / "comparison.json"


@pytest.fixture
def other(tmp_path: Path) -> Callable[..., Path]:
    """Write another run of the example, with a change."""

    def write(change: Callable[[dict[str, Any]], object] = lambda record: None) -> Path:
        record = json.loads(EXAMPLE.read_text())
        record["provenance"]["time_utc"] = "2026-12-01T12:00:00+00:00"
        change(record)
        (path := tmp_path / "other.json").write_text(json.dumps(record))
        return path

    return write


def test_rounds_are_put_together(other: Callable[..., Path]) -> None:
    one, both = read_comparison(EXAMPLE), aggregate([EXAMPLE, other()])
    assert len(both.rounds) == 2 * len(one.rounds)
    rounds = {arm.arm: arm.rounds for arm in both.summary.arms}
    assert rounds == {arm.arm: 2 * arm.rounds for arm in one.summary.arms}
    positions = [one.position for one in both.rounds]
    assert len(set(positions)) == len(positions)
    assert both.summary.repeated is not None
    assert len(both.rooflines[0].rounds) == 2 * len(one.rooflines[0].rounds)
    assert both.id != one.id


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda record: record["provenance"].update(cpu_model="another CPU"), "provenance.cpu_model"),
        (lambda record: record["provenance"].update(revision="f" * 40), "provenance.revision"),
        (lambda record: record["provenance"]["versions"].update(torch="3.0"), "provenance.versions.torch"),
        (lambda record: record["provenance"].update(endpoint="http://other:9000"), "provenance.endpoint"),
        (lambda record: record["provenance"].update(latency_s=0.02), "provenance.latency_s"),
        (lambda record: record["provenance"].update(bandwidth_bits_per_s=1000), "provenance.bandwidth_bits_per_s"),
        (lambda record: record["data"].update(samples=3999), "data.samples"),
        (lambda record: record["settings"].update(batch_size=128), "settings.batch_size"),
        (lambda record: record.update(quick=True), "quick"),
        (
            lambda record: record["data"]["layouts"][0].update(manifest_sha256="f" * 64),
            "data.layouts.tree.manifest_sha256",
        ),
    ],
    ids=["machine", "code", "libraries", "store", "latency", "bandwidth", "samples", "settings", "quick", "data"],
)
def test_records_that_arent_comparable_are_refused(
    other: Callable[..., Path], change: Callable[[dict[str, Any]], object], field: str
) -> None:
    with pytest.raises(InputError) as refused:
        aggregate([EXAMPLE, other(change)])
    assert f"comparison.json and other.json aren't comparable: {field} is" in refused.value.what


def test_what_isnt_installed_in_one_place_makes_no_difference_if_it_is_unknown(other: Callable[..., Path]) -> None:
    assert aggregate([EXAMPLE, other(lambda record: record["provenance"]["versions"].update(dali="unknown"))])


def test_records_of_different_arms_name_different_libraries(other: Callable[..., Path]) -> None:
    assert aggregate([EXAMPLE, other(lambda record: record["provenance"]["versions"].update(spdl="0.6"))])


def test_few_rounds_of_parts_of_epochs_give_low_confidence(other: Callable[..., Path], tmp_path: Path) -> None:
    record = json.loads(EXAMPLE.read_text())
    record["settings"]["batches"] = 20
    (first := tmp_path / "first.json").write_text(json.dumps(record))
    both = aggregate([first, other(lambda record: record["settings"].update(batches=20))])
    assert both.summary.confidence == "low"


def test_an_arm_that_one_record_has_isnt_left_out(other: Callable[..., Path], tmp_path: Path) -> None:
    record = json.loads(EXAMPLE.read_text())
    left_out = [{"arm": name, "reason": "not installed", "command": ""} for name in (record["arms"][0]["name"], "dali")]
    (first := tmp_path / "first.json").write_text(json.dumps(record | {"left_out": left_out}))
    assert [one.arm for one in aggregate([first, other()]).left_out] == ["dali"]


def test_a_record_of_another_version_is_refused(other: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="larder-comparison/2"):
        aggregate([EXAMPLE, other(lambda record: record.update(schema="larder-comparison/2"))])


def test_the_same_record_twice_is_refused() -> None:
    with pytest.raises(InputError, match="twice"):
        aggregate([EXAMPLE, EXAMPLE])


def test_libraries_layouts_and_failures_of_all_records_are_kept(other: Callable[..., Path]) -> None:
    """The second record has another arm with a layout and a library of its own, which failed in its first round."""
    failure = {"arm": "mosaicml", "workers": 2, "round": 1, "kind": "error", "message": "no"}

    def change(record: dict[str, Any]) -> None:
        layout = record["data"]["layouts"][0] | {"layout": "mds", "where": "s3://bucket/mds"}
        record["data"]["layouts"].append(layout)
        record["provenance"]["versions"]["mosaicml-streaming"] = "0.14.0"
        record["failures"] = [failure]

    one, both = read_comparison(EXAMPLE), aggregate([EXAMPLE, other(change)])
    assert [layout.layout for layout in both.data.layouts] == [layout.layout for layout in one.data.layouts] + ["mds"]
    assert both.provenance.versions["mosaicml-streaming"] == "0.14.0"
    assert both.failures[-1].arm == "mosaicml"
    assert both.failures[-1].round == max(each.round for each in one.rounds) + 1


def test_a_run_that_is_part_of_a_record_already_is_refused(other: Callable[..., Path], tmp_path: Path) -> None:
    (path := tmp_path / "both.json").write_text(aggregate([EXAMPLE, other()]).as_json())
    with pytest.raises(InputError, match="twice"):
        aggregate([path, other()])
