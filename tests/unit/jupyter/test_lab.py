"""The functions that notebooks call, without a kernel."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from larder import chunks
from larder.errors import ConfigurationError, InputError, ServiceError
from services.jupyter import lab


@pytest.fixture(autouse=True)
def front_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the front door to make."""
    monkeypatch.setenv("LARDER_FRONT_DOOR", "make")


@pytest.mark.parametrize(
    ("requests", "images", "expected"),
    [
        pytest.param(44, 40, "1.10 requests per image, 70.0 KiB in each", id="one-by-one"),
        pytest.param(3, 2100, "700 images per request, 70.0 KiB in each", id="shards"),
        pytest.param(None, 40, "no requests were counted", id="not-counted"),
    ],
)
def test_requests_for_images(requests: int | None, images: int, expected: str) -> None:
    record = {"network_requests": requests, "network_bytes": (requests or 0) * 70 * 1024, "images": images}
    assert lab.describe_requests(record) == expected


@pytest.mark.parametrize(
    "line",
    ["3\n", '"three"\n', "[1]\n", '{"a":1}\n', '{"event": "error"}\n', "Traceback (most recent call last):\n", "\n"],
)
def test_a_library_s_own_words_are_no_event(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab._parse_event(line) is None
    lab._print_event(line)
    assert capsys.readouterr().out == ""
    failure = lab._explain_failure(1, ["begin\n", line])
    assert failure.what == f"bench ended with 1:\nbegin\n{line.rstrip()}"


def test_progress_is_reported_and_an_error_is_raised_once(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        json.dumps({"stage": "bench", "event": event, "message": message}) + "\n"
        for event, message in (
            ("progress", "measuring: 8 images"),
            ("error", "error: no bucket\n  next step: make one"),
            ("next", "again"),
        )
    ]
    for line in lines:
        lab._print_event(line)
    assert capsys.readouterr().out == "measuring: 8 images\n"
    failure = lab._explain_failure(2, [*lines, "3\n"])
    assert (type(failure), failure.what, failure.next_step) == (lab.StageError, "no bucket", "make one")


def test_a_wrong_setting_is_named_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_WORKERS", "abc")
    with pytest.raises(ConfigurationError, match=r"a fault:\n  - LARDER_WORKERS") as caught:
        lab.bench("imagefolder_local")
    assert "next step" not in caught.value.what


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a store that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
        for name, value in ({"S3_ENDPOINT_URL": endpoint, "S3_BUCKET": "food"} | keys).items():
            monkeypatch.setenv(name, value)
        yield endpoint


@pytest.mark.parametrize("cell", [lab.open_artifact, lab.bench], ids=lambda cell: str(cell.__name__))
def test_a_store_that_never_answers_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, silent: str, cell: Callable[[str], object]
) -> None:
    assert lab.ANSWER_SECONDS <= 10
    monkeypatch.setattr(lab, "ANSWER_SECONDS", 0.2)
    with pytest.raises(ServiceError, match=f"at most 0.2 s for s3://food: .*{silent}") as caught:
        cell("shards" if cell is lab.open_artifact else "webdataset")
    assert "`make s3-up`; then `make jupyter` again, which keeps the workspace" in caught.value.next_step


def test_without_a_bucket_the_next_step_ends_with_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("S3_BUCKET", "RCLONE_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    for call in (lambda: lab.open_artifact("chunks"), lab.find_mounted_tree):
        with pytest.raises(ConfigurationError, match="S3_BUCKET is not set") as caught:
            call()
        assert caught.value.next_step.startswith("run `make s3-up` and `make etl-load`, or set S3_BUCKET")
        assert caught.value.next_step.endswith("; then `make jupyter` again, which keeps the workspace")


def test_without_a_mount_the_next_step_ends_with_jupyter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("S3_BUCKET", "food")
    monkeypatch.setenv("LARDER_MOUNT_DIR", str(tmp_path))
    with pytest.raises(InputError, match="nothing is mounted") as caught:
        lab.find_mounted_tree()
    assert "`make mount`" in caught.value.next_step
    assert caught.value.next_step.endswith("then `make jupyter` again, which keeps the workspace")


def test_the_first_files_of_the_split_that_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOOD11_SPLIT", "validation")
    for number, name in enumerate(("training/class_00/a", "validation/class_01/c", "validation/class_00/b")):
        path = tmp_path / f"{name}.jpg"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(number))
    (tmp_path / "validation" / "README").touch()
    files = [("validation/class_00/b.jpg", 2), ("validation/class_01/c.jpg", 1)]
    assert lab.list_files(tmp_path, 6) == files
    assert lab.list_files(tmp_path, 1) == files[:1]


def test_a_split_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FOOD11_SPLIT", "holdout")
    with pytest.raises(InputError, match="holdout doesn't exist") as caught:
        lab.list_files(tmp_path, 6)
    assert "FOOD11_SPLIT" in caught.value.next_step


def test_what_is_missing_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("S3_BUCKET", "RCLONE_CONTAINER"):
        monkeypatch.delenv(name, raising=False)
    for name in ("FOOD11_DATA_DIR", "LARDER_RESULTS"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    expected = {"tree": "etl-local", "mount": "s3-up", "objects": "s3-up", "shards": "s3-up", "chunks": "s3-up"}
    for what, target in (expected | {"records": "bench"}).items():
        assert not lab.ready(what)
        [line] = capsys.readouterr().out.splitlines()
        assert line.startswith("Skipped: ")
        assert f"`make {target}" in line
    lab.show_data()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[what, "missing:"] for what in expected]


def test_a_silent_store_is_asked_once(
    monkeypatch: pytest.MonkeyPatch, silent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer is kept for a while if it took long, and asked again afterwards."""
    monkeypatch.setattr(lab, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(lab, "SLOW_SECONDS", 0.0)
    monkeypatch.setattr(lab, "_MISSING", {})
    asked = []
    find = lab.find
    monkeypatch.setattr(lab, "find", lambda what: asked.append(what) or find(what))
    for _ in range(3):
        assert not lab.ready("chunks")
    assert asked == ["chunks"]
    assert capsys.readouterr().out.count(silent) == 3
    monkeypatch.setattr(lab, "_MISSING", {"chunks": (0.0, "")})
    assert not lab.ready("chunks")
    assert asked == ["chunks", "chunks"]


def test_a_scratch_folder_is_empty_each_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LARDER_CACHE_DIR", str(tmp_path))
    (lab.scratch("shards") / "left").touch()
    assert lab.scratch("other") != lab.scratch("shards")
    assert list(lab.scratch("shards").iterdir()) == []


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        pytest.param([100] * 10, {"13.0 KiB": 2000 + 11 * 1024, "400 B": 400}, id="many"),
        pytest.param([100] * 4, {"5.8 KiB": 800 + 5 * 1024}, id="too-few"),
    ],
)
def test_caches_to_compare(monkeypatch: pytest.MonkeyPatch, lengths: list[int], sizes: dict[str, int]) -> None:
    """A cache for a part of the split has room for twice what LitData fetches ahead: less would deadlock."""
    index = {f"chunk-0-{number}.bin": chunks.Extent(length, 1) for number, length in enumerate(lengths)}
    monkeypatch.setattr(lab, "open_artifact", lambda _: (None, None))
    monkeypatch.setattr(lab, "read_chunk_index", lambda *_: index)
    assert lab.cache_sizes("validation") == sizes


@pytest.mark.parametrize(
    ("provenance", "expected"),
    [
        pytest.param({}, "To make it distant, run `make s3-up LARDER_S3_LATENCY=20ms", id="none"),
        pytest.param(
            {"latency_s": 0.02, "bandwidth_bits_per_s": 200_000_000}, "a link of 20 ms and 200 Mbit/s", id="both"
        ),
        pytest.param({"latency_s": 0.005, "bandwidth_bits_per_s": None}, "through a link of 5 ms.$", id="latency"),
    ],
)
def test_the_link_of_a_record(provenance: dict[str, Any], expected: str) -> None:
    assert re.search(expected, lab.describe_link({"provenance": provenance}))
