"""Comparisons of records: what is comparable, and what is significant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from larder.bench.run_rates import group_records, read_records
from larder.errors import InputError

MANIFEST = "0123456789abcdef"


def record(
    arm: str,
    *rates: float,
    workers: int = 2,
    time: str = "2026-01-01T00:00:00",
    passes: tuple[str, ...] = ("epoch",),
    loader: str = "larder",
    endpoint: str = "http://store:9000",
    manifest: str = MANIFEST,
    in_container: bool = False,
    latency_s: float | None = None,
) -> dict[str, Any]:
    network = None if arm == "imagefolder_local" else 1000
    first, *later = (
        {"pass": name, "imgs/s": rate, "network_bytes": network} for name, rate in zip(passes, rates, strict=True)
    )
    samples = {"training": 640}
    return {
        "arm": arm,
        **first,
        "then": later,
        "dataset": {"name": "Food-11", "split": "training", "samples": samples, "manifest_sha256": manifest},
        "settings": {
            "batch_size": 64,
            "workers": workers,
            "batches": 0,
            "webdataset_loader": loader,
            "s3_endpoint_url": endpoint,
        },
        "provenance": {"time_utc": time, "cpu_model": "a CPU", "cores": 2, "in_container": in_container}
        | ({} if latency_s is None else {"latency_s": latency_s, "bandwidth_bits_per_s": None}),
    }


def test_the_fastest_comes_first_with_ratios_and_their_spread() -> None:
    [comparison] = group_records([record("a", 100.0), record("b", 200.0), record("b", 220.0), record("a", 110.0)])
    assert [(arm.name, arm.median) for arm in comparison.arms] == [("b", 210.0), ("a", 105.0)]
    assert comparison.verdict() == "b is 2.00 times as fast as a (1.82 to 2.20)"


def test_spreads_that_overlap_are_no_victory() -> None:
    [comparison] = group_records([record("a", 100.0), record("a", 130.0), record("b", 120.0), record("b", 140.0)])
    verdict = "b is 1.13 times as fast as a (0.92 to 1.40); no significant difference (intervals overlap)"
    assert verdict in comparison.verdict()


def test_other_circumstances_are_not_mixed() -> None:
    most, other = group_records([record("a", 1.0), record("b", 2.0), record("a", 9.0, workers=4)])
    assert [arm.name for arm in most.arms] == ["b", "a"]
    assert "2 workers" in most.circumstances
    assert other.verdict() == "only a was measured under these circumstances: measure another arm"


def test_each_pass_is_an_arm_of_its_own() -> None:
    [comparison] = group_records([record("litdata_streaming", 50.0, 150.0, passes=("cold", "warm"))])
    assert [arm.name for arm in comparison.arms] == ["litdata_streaming (warm)", "litdata_streaming (cold)"]


def test_the_link_to_the_store_makes_another_arm() -> None:
    near, far = record("stream", 300.0), record("stream", 100.0, latency_s=0.02)
    [comparison] = group_records([near, far])
    assert [arm.name for arm in comparison.arms] == [
        "stream from store:9000",
        "stream from store:9000 through a link of 20 ms",
    ]
    [comparison] = group_records([record("imagefolder_local", 400.0, latency_s=0.02), far])
    assert [arm.name for arm in comparison.arms] == [
        "imagefolder_local",
        "stream from store:9000 through a link of 20 ms",
    ]


def test_two_loaders_of_one_arm_are_no_spread() -> None:
    [comparison] = group_records([record("webdataset", 100.0), record("webdataset", 300.0, loader="webdataset")])
    assert [(arm.name, arm.rates) for arm in comparison.arms] == [
        ("webdataset by webdataset", [300.0]),
        ("webdataset", [100.0]),
    ]


def test_two_stores_are_no_spread() -> None:
    [comparison] = group_records(
        [
            record("webdataset", 100.0),
            record("webdataset", 300.0, endpoint="https://far.example:7480"),
            record("remote_one_sample", 50.0, endpoint=""),
            record("imagefolder_local", 200.0, endpoint=""),
        ]
    )
    assert [(arm.name, arm.rates) for arm in comparison.arms] == [
        ("webdataset from far.example:7480", [300.0]),
        ("imagefolder_local", [200.0]),
        ("webdataset from store:9000", [100.0]),
        ("remote_one_sample from AWS", [50.0]),
    ]


def test_two_packings_are_no_spread() -> None:
    [comparison] = group_records(
        [
            record("webdataset", 100.0),
            record("webdataset", 300.0, manifest="fedcba9876543210"),
            record("remote_one_sample", 50.0, manifest="an artifact has a manifest of its own"),
        ]
    )
    assert [(arm.name, arm.rates) for arm in comparison.arms] == [
        ("webdataset, manifest fedcba98", [300.0]),
        ("webdataset, manifest 01234567", [100.0]),
        ("remote_one_sample", [50.0]),
    ]


def test_a_container_and_the_host_are_other_circumstances() -> None:
    most, other = group_records([record("a", 1.0), record("b", 2.0), record("a", 9.0, in_container=True)])
    assert most.circumstances.endswith(", on the host")
    assert other.circumstances.endswith(", in a container")


def test_records_are_read_by_their_time_without_trainings(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record("late", 1.0, time="2026-02-01")))
    (tmp_path / "b.json").write_text(json.dumps(record("early", 1.0, time="2026-01-01")))
    (tmp_path / "train-a.json").write_text(json.dumps({"arm": "a", "kind": "train"}))
    assert [each["arm"] for each in read_records(tmp_path)] == ["early", "late"]


WITHOUT_RATES = {name: value for name, value in record("a", 1.0).items() if name not in ("then", "imgs/s")}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(None, id="empty-folder"),
        pytest.param("{}", id="empty-record"),
        pytest.param("[1]", id="list"),
        pytest.param("no JSON", id="no-json"),
        pytest.param(json.dumps(WITHOUT_RATES | {"then": []}), id="without-rates"),
        pytest.param(json.dumps(WITHOUT_RATES | {"imgs/s": 1.0}), id="without-passes"),
        pytest.param(json.dumps(record("a", 1.0) | {"dataset": "Food-11"}), id="data-set-as-text"),
        pytest.param(json.dumps(record("a", 1.0) | {"settings": {}}), id="without-settings"),
    ],
)
def test_nothing_to_compare(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_records(tmp_path)
    assert "measure at least" in caught.value.next_step or "move it" in caught.value.next_step
