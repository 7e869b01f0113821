"""Which folder of a volume or a bucket holds a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from larder import sample
from larder.artifacts import find_in_bucket, find_on_volume, find_tree, require_dataset, require_dataset_name
from larder.contract import IndexSummary, Manifest
from larder.errors import ConfigurationError
from larder.progress import Reporter

Make = Callable[..., None]


def manifest_of(dataset: str) -> Manifest:
    return Manifest(
        artifact="tree",
        dataset=dataset,
        classes=[],
        splits={},
        input={},
        settings={},
        files=0,
        bytes=0,
        index=IndexSummary(bytes=0, sha256=""),
    )


@pytest.fixture
def reporter() -> Reporter:
    return Reporter("test", "line")


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Put finished data into a folder of the volume: `make("photos")`, or under another name in its manifest."""

    def make(folder: str, dataset: str | None = None, text: str = "") -> None:
        place = tmp_path / folder / "_larder/manifest.json"
        place.parent.mkdir(parents=True)
        place.write_text(text or manifest_of(dataset or folder).to_json())

    return make


def test_a_name_is_the_folders(tmp_path: Path, reporter: Reporter, make: Make) -> None:
    for folder in ("photos", "Food-11", "photos-webdataset"):
        make(folder)
    assert find_on_volume(tmp_path, "tree", "photos", reporter) == "photos"
    assert find_on_volume(tmp_path, "webdataset", "photos", reporter) == "photos-webdataset"
    assert find_on_volume(tmp_path, "litdata", "photos", reporter) == "photos-litdata"


def test_without_a_name_it_is_the_one_that_is_there(tmp_path: Path, reporter: Reporter, make: Make) -> None:
    for folder in ("raw", "rejects", "photos", "cats-webdataset", ".larder/photos/new", "lost+found"):
        make(folder)
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "file").touch()
    assert find_on_volume(tmp_path, "tree", "", reporter) == "photos"
    assert find_on_volume(tmp_path, "webdataset", "", reporter) == "cats-webdataset"
    assert find_on_volume(tmp_path, "litdata", "", reporter) == "Food-11-litdata", "none is there: the default"


def test_several_data_sets_must_be_told_apart(tmp_path: Path, reporter: Reporter, make: Make) -> None:
    make("photos")
    make("Food-11")
    with pytest.raises(ConfigurationError, match="several datasets: Food-11, photos") as caught:
        find_on_volume(tmp_path, "tree", "", reporter)
    assert "LARDER_DATASET" in caught.value.next_step


@pytest.mark.parametrize("root", ["nowhere", "file"])
def test_no_volume_holds_nothing(tmp_path: Path, reporter: Reporter, root: str) -> None:
    (tmp_path / "file").touch()
    assert find_on_volume(tmp_path / root, "tree", "", reporter) == "Food-11"
    assert find_on_volume(tmp_path / root, "tree", "photos", reporter) == "photos"


def test_data_that_earlier_versions_named_in_the_manifest_alone(
    tmp_path: Path, reporter: Reporter, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("Food-11", "photos")
    make("Food-11-webdataset", "photos")
    assert find_on_volume(tmp_path, "tree", "photos", reporter) == "Food-11"
    assert find_on_volume(tmp_path, "webdataset", "photos", reporter) == "Food-11-webdataset"
    assert capsys.readouterr().err.count("photos lies in") == 2
    assert find_on_volume(tmp_path, "tree", "cats", reporter) == "cats", "those are others"
    assert find_on_volume(tmp_path, "tree", "", reporter) == "Food-11"
    make("photos")
    assert find_on_volume(tmp_path, "tree", "photos", reporter) == "photos", "its own folder comes first"


def test_a_damaged_manifest_is_left_to_the_stage_that_reads_it(tmp_path: Path, reporter: Reporter, make: Make) -> None:
    make("photos", text="{")
    make("Food-11", "photos")
    assert find_on_volume(tmp_path, "tree", "photos", reporter) == "photos"
    (tmp_path / "Food-11/_larder/manifest.json").write_text("{")
    assert find_on_volume(tmp_path, "tree", "cats", reporter) == "cats"


def test_in_a_bucket(reporter: Reporter) -> None:
    asked: list[str] = []

    def there(**manifests: str) -> Callable[[str], Manifest | None]:
        def find(folder: str) -> Manifest | None:
            asked.append(folder)
            manifest = manifests.get(folder.replace("-", "_"))
            return manifest_of(manifest) if manifest else None

        return find

    assert find_in_bucket("webdataset", "", "s3://b", there(), reporter) == "Food-11-webdataset"
    assert asked == [], "the default takes no requests"
    assert find_in_bucket("tree", "photos", "s3://b", there(photos="photos"), reporter) == "photos"
    assert find_in_bucket("tree", "photos", "s3://b", there(), reporter) == "photos"
    assert find_in_bucket("tree", "photos", "s3://b", there(Food_11="photos"), reporter) == "Food-11"
    assert find_in_bucket("tree", "photos", "s3://b", there(Food_11="Food-11"), reporter) == "photos"


def test_a_tree_is_named_by_its_folder_or_its_volume(tmp_path: Path, reporter: Reporter, make: Make) -> None:
    make("volume/photos")
    volume = tmp_path / "volume"
    assert find_tree(volume, "", reporter) == find_tree(volume, "photos", reporter) == volume / "photos"
    assert find_tree(volume / "photos", "", reporter) == volume / "photos"
    assert find_tree(volume, "cats", reporter) == volume, "so that a message names what was asked for"
    assert find_tree(tmp_path / "nowhere", "", reporter) == tmp_path / "nowhere"


@pytest.mark.parametrize(
    ("folder", "dataset", "expected"),
    [
        pytest.param("photos", "photos", "photos", id="its-own"),
        pytest.param("raw", "photos", "photos", id="of-the-manifest"),
        pytest.param("Food-11", "photos", "Food-11", id="data-of-an-earlier-version"),
        pytest.param("raw", sample.NAME, "Food-11", id="the-sample"),
        pytest.param("raw", "My photos", "Food-11", id="what-an-earlier-version-allowed"),
        pytest.param("raw", "../x", "Food-11", id="a-path"),
    ],
)
def test_what_is_made_of_data_without_a_name_given(folder: str, dataset: str, expected: str) -> None:
    assert require_dataset_name(manifest_of(dataset), folder) == expected


def test_another_name_than_the_datas() -> None:
    require_dataset("", manifest_of("photos"), "/mnt/raw")
    require_dataset("photos", manifest_of("photos"), "/mnt/raw")
    require_dataset("photos", manifest_of(sample.NAME), "/mnt/raw")
    with pytest.raises(ConfigurationError, match="'photos', and LARDER_DATASET is 'cats'"):
        require_dataset("cats", manifest_of("photos"), "/mnt/raw")
