"""Which folders belong to LARDER_DATASET."""

from pathlib import Path

import pytest

from larder.bench.places import mounted_tree_of, tree_of, uri_of
from larder.contract import META
from larder.progress import Silent

NAMED = {"LARDER_DATASET": "photos", "S3_BUCKET": "b", "S3_PREFIX": "team"}


def finish(folder: Path, manifest, dataset: str) -> None:
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
def test_the_tree_of_a_data_set(make_settings, environ, folder):
    assert tree_of(make_settings(**environ), Silent()) == Path(folder)


def test_what_an_earlier_version_put_into_the_default_s_folder_is_found(make_settings, manifest, tmp_path):
    mount = tmp_path / "b" / "team"
    for place in (tmp_path, mount):
        finish(place / "Food-11", manifest, "photos")
    settings = make_settings(FOOD11_DATA_DIR=str(tmp_path / "photos"), LARDER_MOUNT_DIR=str(tmp_path), **NAMED)
    assert tree_of(settings, Silent()) == tmp_path / "Food-11"
    assert mounted_tree_of(settings, Silent()) == mount / "Food-11"
    for place in (tmp_path, mount):
        finish(place / "photos", manifest, "photos")
    assert tree_of(settings, Silent()) == tmp_path / "photos"
    assert mounted_tree_of(settings, Silent()) == mount / "photos"


@pytest.mark.parametrize(("layout", "name"), [("tree", "Food-11"), ("webdataset", "Food-11-webdataset")])
def test_the_default_s_folder_in_a_bucket_is_known_without_asking(make_settings, layout, name):
    assert uri_of(make_settings(S3_BUCKET="b"), layout, Silent()) == f"s3://b/{name}"
