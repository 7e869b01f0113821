"""Which arms the data allow, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.bench.arms import IMAGE_PREFIX
from larder.bench.comparison import data
from larder.bench.comparison.data import Location, describe_left_out, find_data
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison_record import LeftOut
from larder.errors import InputError, LarderError, ServiceError


def test_a_missing_layout_is_named_once_with_its_command(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")  # an arm whose library is missing says that instead
    settings = ComparisonSettings.load("compare", ["--data-dir", str(tmp_path / "nothing")], {})
    with pytest.raises(InputError) as refused:
        find_data(settings, ["imagefolder_local", "simplejpeg_local", "spdl"], str)
    lines = [line for line in refused.value.what.splitlines() if line.startswith("  - ")]
    assert len(lines) == 1
    assert lines[0].startswith("  - imagefolder_local, simplejpeg_local, spdl: ")
    assert lines[0].endswith("; extract and transform")


def test_arms_with_different_reasons_stand_apart() -> None:
    rows = [("a", "no tree", "make tree"), ("b", "no library", "pip install b"), ("c", "no tree", "make tree")]
    left_out = [LeftOut(arm=arm, reason=reason, command=command) for arm, reason, command in rows]
    assert describe_left_out(left_out) == ["a, c: no tree; make tree", "b: no library; pip install b"]


def test_missing_libraries_have_one_line_and_one_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "missing_packages", lambda name: ["a package"])
    settings = ComparisonSettings.load("compare", ["--data-dir", str(tmp_path / "nothing")], {})
    with pytest.raises(InputError) as refused:
        find_data(settings, ["dali", "mosaicml", "spdl", "s3torchconnector", "s3torchconnector_shards"], str)
    lines = [line for line in refused.value.what.splitlines() if line.startswith("  - ")]
    assert lines == [
        "  - dali, spdl, s3torchconnector, s3torchconnector_shards: not installed; "
        "pip install 'larder-data[bench,dali,spdl,s3torchconnector]'",
        "  - mosaicml: not installed; bench peers LARDER_ARM=mosaicml",
    ]


def test_what_images_lack_has_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "missing_packages", lambda name: ["a package"])
    monkeypatch.setattr("sys.prefix", IMAGE_PREFIX)
    settings = ComparisonSettings.load("compare", ["--data-dir", str(tmp_path / "nothing")], {})
    with pytest.raises(InputError) as refused:
        find_data(settings, ["dali", "mosaicml", "spdl", "s3torchconnector", "turboloader"], str)
    lines = [line for line in refused.value.what.splitlines() if line.startswith("  - ")]
    assert lines == [
        "  - dali, mosaicml, spdl, s3torchconnector, turboloader: not in larder's images; bench compare RUNNER=host"
    ]


def test_without_a_bucket_all_that_read_one_have_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "missing_packages", lambda name: [])
    settings = ComparisonSettings.load("compare", [], {})
    with pytest.raises(InputError) as refused:
        find_data(settings, ["stream", "litdata_streaming", "remote_one_sample", "imagefolder_rclone_mount"], str)
    lines = [line for line in refused.value.what.splitlines() if line.startswith("  - ")]
    assert lines == [
        "  - stream, litdata_streaming, remote_one_sample, imagefolder_rclone_mount: "
        "it reads from a bucket, and S3_BUCKET is not set; s3 up"
    ]


def test_a_store_that_doesnt_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def locate(layout: str, settings: object) -> Location | LarderError:
        asked.append(layout)
        return ServiceError("the store doesn't answer", next_step="check it")

    monkeypatch.setattr(data, "_try_to_locate", locate)
    settings = ComparisonSettings.load("compare", [], {"S3_BUCKET": "b"})
    with pytest.raises(InputError) as refused:
        find_data(settings, ["stream", "webdataset", "litdata_streaming", "remote_one_sample"], str)
    assert asked == ["tree", "objects"]
    assert refused.value.what.count("the store doesn't answer") == 1
