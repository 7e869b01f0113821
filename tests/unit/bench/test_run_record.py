"""The content of a record, and its table."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from larder.bench import provenance, run_table
from larder.bench.measure import Measurement
from larder.bench.passes import Pass, Warmup
from larder.bench.run_record import DATASET_FIELDS, RECORD_FIELDS, make_record, passes_of
from larder.bench.training import TRAINING_FIELDS, Epoch, make_training_record, render_training
from larder.contract import Manifest
from larder.distant.link import Link
from larder.loaders.traffic import NetworkTraffic
from tests.unit.bench.conftest import MakeSettings

SECRETS = {"AWS_ACCESS_KEY_ID": "k-e-y", "AWS_SECRET_ACCESS_KEY": "s3cr3t", "AWS_SESSION_TOKEN": "t0k3n"}

SERIES = {"t_s": [0.1, 0.3], "bytes_per_s": [1000, 2000]}


@pytest.fixture
def record(make_settings: MakeSettings, loader: Any) -> dict[str, Any]:
    return record_of(make_settings, loader, {"epoch": Pass(measured(2.0), NetworkTraffic(3 << 20, 1234))})


def measured(seconds: float) -> Any:
    return Measurement(640, seconds, [0.1] * 8 + [0.2, 0.9], 5.12, 1 << 30, "pss", SERIES)


def record_of(make_settings: MakeSettings, loader: Any, passes: dict[str, Pass]) -> dict[str, Any]:
    settings = make_settings(
        "--revision", "0123456789abcdef", S3_BUCKET="food", S3_ENDPOINT_URL="http://store:9000", **SECRETS
    )
    made = provenance.collect(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), settings.revision)
    warmup = Warmup(5, 0.5)
    return make_record(settings.arm, loader, passes, warmup, settings=settings.for_record(), provenance=made)


def test_figures(record: dict[str, Any], manifest: Manifest) -> None:
    assert (record["arm"], record["imgs/s"], record["batches/s"], record["avg_batch_s"]) == (
        "imagefolder_local",
        320.0,
        5.0,
        0.2,
    )
    assert record["batch_wait_s"] == {"p50": 0.1, "p90": 0.2, "p99": 0.9, "max": 0.9}
    assert record["cpu_s_per_1000_imgs"] == 8.0
    assert (record["peak_memory_bytes"], record["peak_memory_kind"]) == (1 << 30, "pss")
    assert record["dataset"]["manifest_sha256"] == manifest.digest()
    assert record["dataset"]["samples"] == {"training": 640}
    assert record["settings"]["batch_size"] == 64
    assert (record["network_bytes"], record["network_requests"]) == (3 << 20, 1234)
    assert record["received"] == SERIES


def test_the_documented_keys_are_those_of_the_records(record: dict[str, Any]) -> None:
    assert list(record) == list(RECORD_FIELDS)
    assert list(record["dataset"]) == list(DATASET_FIELDS)
    assert list(record["provenance"]) == list(provenance.PROVENANCE_FIELDS)
    trained = make_training_record("webdataset", [Epoch(2.0, 1.0, 640, 0.5)], 0.9, "cpu")
    described = {name: record[name] for name in ("loader", "recipe", "dataset", "settings", "provenance")}
    assert list(trained | described) == list(TRAINING_FIELDS)


def test_the_link_to_the_store_is_in_the_record_and_in_the_tables(
    record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def find(endpoint: str) -> Link:
        asked.append(endpoint)
        return Link(0.02, 200_000_000)

    assert "through" not in run_table.render_table(record)
    monkeypatch.setattr(provenance, "find_link", find)
    record["provenance"] = provenance.collect(datetime(2026, 1, 2, tzinfo=UTC), "", "http://store:9000")
    assert asked == ["http://store:9000"]
    assert (record["provenance"]["latency_s"], record["provenance"]["bandwidth_bits_per_s"]) == (0.02, 200_000_000)
    words = "http://store:9000, through a link of 20 ms and 200 Mbit/s"
    assert words in run_table.render_table(record)
    trained = make_training_record("webdataset", [Epoch(2.0, 1.0, 640, 0.5)], 0.9, "cpu")
    described = {"settings": record["settings"] | {"held_out": "validation"}, "provenance": record["provenance"]}
    assert words in render_training(trained | described)
    del record["provenance"]["latency_s"]  # as in records of earlier versions
    assert "through" not in run_table.render_table(record)


def test_says_where_the_data_lie_and_no_secret(record: dict[str, Any]) -> None:
    assert (record["settings"]["bucket"], record["settings"]["s3_endpoint_url"]) == ("food", "http://store:9000")
    assert not any(secret in json.dumps(record) for secret in (*SECRETS.values(), "***"))


def test_each_pass_has_its_figures_and_a_column(make_settings: MakeSettings, loader: Any) -> None:
    passes = {
        "cold": Pass(measured(4.0), NetworkTraffic(3 << 20, None)),
        "warm": Pass(measured(2.0), NetworkTraffic(0, None)),
    }
    record = record_of(make_settings, loader, passes)
    assert [(one["pass"], one["imgs/s"], one["network_bytes"]) for one in passes_of(record)] == [
        ("cold", 160.0, 3 << 20),
        ("warm", 320.0, 0),
    ]
    assert set(record["then"][0]) < set(record)
    text = run_table.render_table(record)
    assert "pass                  cold            warm\nimgs/s                160.0           320.0\n" in text
    assert "network               3.0 MiB         0 B\nimages " in text, "requests are unknown"
    assert max(map(len, text.splitlines()[:16])) < 80


def test_no_network(make_settings: MakeSettings, loader: Any) -> None:
    record = record_of(make_settings, loader, {"epoch": Pass(measured(2.0), None)})
    assert (record["network_bytes"], record["network_requests"]) == (None, None)
    assert "network               none\n" in run_table.render_table(record)
    assert "requests" not in run_table.render_table(record)


def test_provenance(record: dict[str, Any]) -> None:
    made = record["provenance"]
    assert (made["time_utc"], made["revision"], made["device"]) == (
        "2026-01-02T03:04:05+00:00",
        "0123456789abcdef",
        "cpu",
    )
    assert made["cores"] >= 1
    assert len(made["load_average"]) == 3
    assert made["cpu_model"]


def test_is_json_and_every_figure_is_in_the_table(record: dict[str, Any]) -> None:
    assert json.loads(json.dumps(record)) == record
    text = run_table.render_table(record)
    for part in (
        "320.0",
        "5.000",
        "0.2000",
        "batch wait p50, s     0.1000",
        "batch wait max, s     0.9000",
        "8.00",
        "1.0 GiB PSS",
        "0123456789ab",
        "network               3.0 MiB\nrequests              1,234\nimages                640\n",
        "warm-up               5 batches",
    ):
        assert part in text, part


def test_revision_of_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    assert provenance.git_revision(tmp_path) is None


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        pytest.param("150000 100000", "1073741824", (1.5, 1 << 30), id="limits"),
        pytest.param("max 100000", "max", (None, None), id="no-limits"),
        pytest.param(None, None, (None, None), id="no-cgroup"),
    ],
)
def test_limits_of_a_container(tmp_path: Path, cpu: str | None, memory: str | None, expected: Any) -> None:
    if cpu is not None and memory is not None:
        (tmp_path / "cpu.max").write_text(cpu + "\n")
        (tmp_path / "memory.max").write_text(memory + "\n")
    assert (provenance.cpu_quota_cores(tmp_path), provenance.memory_limit_bytes(tmp_path)) == expected


def test_cpu_model_where_the_kernel_gives_none(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert provenance.cpu_model(tmp_path / "cpuinfo")
