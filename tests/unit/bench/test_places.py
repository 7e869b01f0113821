"""The folders of LARDER_DATASET."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest

from larder.bench.layout_locations import locate_in_bucket, locate_mounted_tree, locate_tree
from larder.contract import META, Manifest
from larder.progress import NullReporter
from tests.unit.bench.conftest import MakeSettings

NAMED = {"LARDER_DATASET": "photos", "S3_BUCKET": "b", "S3_PREFIX": "team"}


def finish(folder: Path, manifest: Manifest, dataset: str) -> None:
    (folder / META).mkdir(parents=True)
    (folder / META / "manifest.json").write_text(manifest.model_copy(update={"dataset": dataset}).to_json())


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        pytest.param({}, "/mnt/Food-11", id="the-default"),
        pytest.param({"LARDER_DATASET": "photos"}, "/mnt/photos", id="a-name"),
        pytest.param({"LARDER_DATASET": "photos", "FOOD11_DATA_DIR": "/d"}, "/d", id="a-name-and-a-folder"),
    ],
)
def test_the_tree_of_a_data_set(make_settings: MakeSettings, environ: Mapping[str, str], folder: str) -> None:
    assert locate_tree(make_settings(**environ), NullReporter()) == Path(folder)


def test_data_of_an_earlier_version_is_found_in_the_default_folder(
    make_settings: MakeSettings, manifest: Manifest, tmp_path: Path
) -> None:
    mount = tmp_path / "b" / "team"
    for place in (tmp_path, mount):
        finish(place / "Food-11", manifest, "photos")
    settings = make_settings(FOOD11_DATA_DIR=str(tmp_path / "photos"), LARDER_MOUNT_DIR=str(tmp_path), **NAMED)
    assert locate_tree(settings, NullReporter()) == tmp_path / "Food-11"
    assert locate_mounted_tree(settings, NullReporter()) == mount / "Food-11"
    for place in (tmp_path, mount):
        finish(place / "photos", manifest, "photos")
    assert locate_tree(settings, NullReporter()) == tmp_path / "photos"
    assert locate_mounted_tree(settings, NullReporter()) == mount / "photos"


@pytest.mark.parametrize(("layout", "name"), [("tree", "Food-11"), ("webdataset", "Food-11-webdataset")])
def test_the_default_s_folder_in_a_bucket_is_known_without_asking(
    make_settings: MakeSettings, layout: Literal["tree", "webdataset", "litdata"], name: str
) -> None:
    assert locate_in_bucket(make_settings(S3_BUCKET="b"), layout, NullReporter()) == f"s3://b/{name}"
