"""A user's data set under its own name, through every stage; and data from before names were folders'."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from larder.contract import find_manifest

FOLDERS = {"data": "photos", "wds": "photos-webdataset", "lit": "photos-litdata"}
LOADS = {"data": "tree", "wds": "webdataset", "lit": "litdata"}


class House:
    """Three volumes and a bucket, and stages on them."""

    def __init__(self, root: Path, stage: Any, store: Any, bucket: str) -> None:
        self.root, self._stage, self._store, self._bucket = root, stage, store, bucket
        for name in FOLDERS:
            (root / name).mkdir()

    def __call__(self, name: str, *flags: str, on: str = "data", code: int = 0, **env: str) -> Any:
        """Run a stage on a volume, which must end with `code`."""
        places = {"LARDER_WDS_DIR": str(self.root / "wds"), "LARDER_LIT_DIR": str(self.root / "lit")}
        settings = self._store.env | {"S3_BUCKET": self._bucket, "LARDER_WORKERS": "1"} | places | env
        ended = self._stage(name, *flags, volume=self.root / on, env=settings)
        assert ended.code == code, ended.stderr
        return ended

    def pack(self, **env: str) -> None:
        """Both packing stages, each onto its volume."""
        for name, on in (("shard", "wds"), ("optimize", "lit")):
            self(name, on=on, LARDER_INPUT=str(self.root / "data"), **env)

    def load(self, **env: str) -> None:
        """Everything into the bucket."""
        for on, layout in LOADS.items():
            self("load", on=on, LARDER_LOAD=layout, **env)

    def verify(self, **env: str) -> None:
        """The whole chain, with all that is in the store."""
        ended = self("verify", LARDER_VERIFY_SAMPLES="all", **env)
        assert ended.stdout.count("ok ") == 7, ended.stdout  # all links but the archive, which was a folder

    def in_bucket(self) -> set[str]:
        """The folders at the bucket's top."""
        found = self._store.client.list_objects_v2(Bucket=self._bucket)["Contents"]
        return {item["Key"].partition("/")[0] for item in found}

    def on_volumes(self) -> set[str]:
        """The folders with images on all volumes."""
        found = {path.parents[1].name for path in self.root.glob("*/*/_larder/manifest.json")}
        return found - {"raw"}


@pytest.fixture
def house(tmp_path: Path, stage: Any, s3: Any) -> Iterator[House]:
    bucket = f"larder-test-{uuid.uuid4().hex[:12]}"
    s3.client.create_bucket(Bucket=bucket)
    yield House(tmp_path, stage, s3, bucket)
    for item in s3.client.list_objects_v2(Bucket=bucket).get("Contents", ()):
        s3.client.delete_object(Bucket=bucket, Key=item["Key"])
    s3.client.delete_bucket(Bucket=bucket)


@pytest.fixture
def photos(tmp_path: Path, picture: Callable[[int], bytes]) -> str:
    """A folder of pictures."""
    source = tmp_path / "source"
    for number, split in enumerate(("training", "validation", "evaluation") * 2):
        (source / split).mkdir(parents=True, exist_ok=True)
        (source / split / f"{number % 2}_{number}.jpg").write_bytes(picture(number))
    return f"--source={source}"


def test_a_users_data_set_has_its_own_name_everywhere(house: House, photos: str) -> None:
    named = {"LARDER_DATASET": "photos"}
    house("extract", photos, **named)
    house("transform", **named)
    house.pack(**named)
    house.load(**named)
    assert house.on_volumes() == house.in_bucket() == set(FOLDERS.values())
    house.verify(**named)
    for on, folder in FOLDERS.items():
        manifest = find_manifest(house.root / on / folder)
        assert manifest is not None
        assert manifest.dataset == "photos"


def test_the_name_is_told_once(house: House, photos: str) -> None:
    house("extract", photos, "--dataset=photos")
    house("transform")
    house.pack()
    house.load()
    assert house.on_volumes() == house.in_bucket() == set(FOLDERS.values())
    house.verify()


def test_data_of_an_earlier_version_stay_where_they_are(house: House, photos: str) -> None:
    house("extract", photos, "--dataset=photos")
    house("transform")
    house.pack()
    for on, folder in FOLDERS.items():
        (house.root / on / folder).rename(house.root / on / folder.replace("photos", "Food-11"))
    earlier = house.on_volumes()
    assert earlier == {"Food-11", "Food-11-webdataset", "Food-11-litdata"}
    for named in ({"LARDER_DATASET": "photos"}, {}):
        assert "up to date" in house("extract", photos, LARDER_DATASET="photos").stderr
        transformed = house("transform", **named)
        assert "up to date" in transformed.stderr
        assert "earlier versions" in transformed.stderr
        house.pack(**named)
        house.load(**named)
        assert house.on_volumes() == house.in_bucket() == earlier
        house.verify(**named)


def test_the_sample_stands_in_for_any_data_set(house: House) -> None:
    for named, folder in (({}, "Food-11"), ({"LARDER_DATASET": "photos"}, "photos")):
        house("extract", "--source=sample", "--sample-images=40", **named)
        house("transform", **named)
        manifest = find_manifest(house.root / "data" / folder)
        assert manifest is not None
        assert manifest.dataset == "sample"


def test_a_name_that_is_not_the_datas_is_refused(house: House, photos: str) -> None:
    house("extract", photos, "--dataset=photos")
    refused = house("transform", code=2, LARDER_DATASET="cats")
    assert "'photos', and LARDER_DATASET is 'cats'" in refused.stderr
    assert house.on_volumes() == set()
    house("transform")
    refused = house("shard", on="wds", code=2, LARDER_INPUT=str(house.root / "data/photos"), LARDER_DATASET="cats")
    assert "'photos', and LARDER_DATASET is 'cats'" in refused.stderr
    refused = house("shard", on="wds", code=3, LARDER_INPUT=str(house.root / "data"), LARDER_DATASET="cats")
    assert "holds no finished data" in refused.stderr


def test_two_data_sets_on_a_volume_must_be_told_apart(house: House, photos: str) -> None:
    for name in ("photos", "cats"):
        house("extract", photos, f"--dataset={name}")
        house("transform")
    for name, on in (("load", "data"), ("shard", "wds"), ("verify", "data")):
        refused = house(name, on=on, code=2, LARDER_INPUT=str(house.root / "data"))
        assert "several data sets: cats, photos" in refused.stderr
        assert "LARDER_DATASET" in refused.stderr
    house("load", LARDER_DATASET="photos")
    assert house.in_bucket() == {"photos"}


def test_the_default_source_is_fetched_under_no_other_name(house: House) -> None:
    refused = house("extract", "--check", code=2, LARDER_DATASET="photos")
    assert "LARDER_SOURCE is not set" in refused.stderr
    house("extract", "--check", LARDER_DATASET="Food-11")
    house("extract", "--check", "--source=sample", LARDER_DATASET="photos")


@pytest.mark.parametrize("name", ["../x", "-photos", "my photos", "pho\ntos", "a" * 200, "photös", "raw", "$(id)"])
@pytest.mark.parametrize("stage_name", ["extract", "transform", "load", "shard", "optimize", "verify"])
def test_a_name_that_is_none(stage_name: str, name: str) -> None:
    from docs.generate import STAGES
    from larder.errors import ConfigurationError

    environ = {"LARDER_DATASET": name, "LARDER_SOURCE": "sample", "S3_BUCKET": "bucket"}
    with pytest.raises(ConfigurationError) as caught:
        STAGES[stage_name].load(stage_name, [], environ)
    assert "LARDER_DATASET (environment)=" in caught.value.what
    assert caught.value.what.count("\n") == 1, "one fault, on one line"
