"""A user's dataset under its own name in every stage, and data from versions without names."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from larder.contract import find_manifest
from larder.errors import ConfigurationError, LarderError
from larder.progress import Reporter
from larder.settings import Settings
from larder.stage import StageOutcome
from services.extract.extract import extract
from services.extract.settings import ExtractSettings
from services.load.load import load
from services.load.settings import LoadSettings
from services.optimize.optimize import optimize
from services.optimize.settings import OptimizeSettings
from services.shard.settings import ShardSettings
from services.shard.shard import shard
from services.transform.settings import TransformSettings
from services.transform.transform import transform
from services.verify.settings import VerifySettings
from services.verify.verify import verify
from tests.conftest import Store
from tests.integration.conftest import MakePicture

STAGES: dict[str, tuple[type[Settings], Callable[[Any, Reporter], StageOutcome]]] = {
    "extract": (ExtractSettings, extract),
    "transform": (TransformSettings, transform),
    "shard": (ShardSettings, shard),
    "optimize": (OptimizeSettings, optimize),
    "load": (LoadSettings, load),
    "verify": (VerifySettings, verify),
}
FOLDERS = {"data": "photos", "wds": "photos-webdataset", "lit": "photos-litdata"}
LOADS = {"data": "tree", "wds": "webdataset", "lit": "litdata"}


class House:
    """Three volumes and a bucket, and stages on them, run in this process."""

    def __init__(self, root: Path, store: Any, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._store, self._bucket, self._capsys = root, store, bucket, capsys
        for name in FOLDERS:
            (root / name).mkdir()

    def __call__(self, name: str, *flags: str, on: str = "data", **env: str) -> str:
        """Run a stage on a volume, and return stdout and stderr."""
        kind, work = STAGES[name]
        places = {"LARDER_WDS_DIR": str(self.root / "wds"), "LARDER_LIT_DIR": str(self.root / "lit")}
        shared = {"S3_BUCKET": self._bucket, "LARDER_WORKERS": "1", "LARDER_VOLUME_DIR": str(self.root / on)}
        settings = kind.load(name, flags, self._store.env | shared | places | env)
        self._capsys.readouterr()
        outcome = work(settings, Reporter(name, "line"))
        captured = self._capsys.readouterr()
        return f"{captured.out}{captured.err}{outcome.summary}"

    def refuse(self, name: str, *flags: str, on: str = "data", **env: str) -> LarderError:
        """Run a stage that must fail, and return the error."""
        with pytest.raises(LarderError) as caught:
            self(name, *flags, on=on, **env)
        return caught.value

    def pack(self, **env: str) -> None:
        """Both packing stages, each onto its volume."""
        for name, on in (("shard", "wds"), ("optimize", "lit")):
            self(name, on=on, LARDER_INPUT=str(self.root / "data"), **env)

    def load(self, **env: str) -> None:
        """Everything into the bucket."""
        for on, layout in LOADS.items():
            self("load", on=on, LARDER_LOAD=layout, **env)

    def verify(self, **env: str) -> None:
        """Verify the whole chain, including the store."""
        output = self("verify", LARDER_VERIFY_SAMPLES="all", **env)
        assert output.count("\nok ") == 7, output  # all links but the archive, which was a folder

    def in_bucket(self) -> set[str]:
        """The folders at the bucket's top."""
        objects = self._store.client.list_objects_v2(Bucket=self._bucket)["Contents"]
        return {item["Key"].partition("/")[0] for item in objects}

    def on_volumes(self) -> set[str]:
        """The folders with images on all volumes."""
        folders = {path.parents[1].name for path in self.root.glob("*/*/_larder/manifest.json")}
        return folders - {"raw"}


@pytest.fixture
def house(tmp_path: Path, s3: Store, capsys: pytest.CaptureFixture[str]) -> Iterator[House]:
    bucket = f"larder-test-{uuid.uuid4().hex[:12]}"
    s3.client.create_bucket(Bucket=bucket)
    yield House(tmp_path, s3, bucket, capsys)
    for item in s3.client.list_objects_v2(Bucket=bucket).get("Contents", ()):
        s3.client.delete_object(Bucket=bucket, Key=item["Key"])
    s3.client.delete_bucket(Bucket=bucket)


@pytest.fixture
def photos(tmp_path: Path, picture: MakePicture) -> str:
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


def test_the_name_is_reported_once(house: House, photos: str) -> None:
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
        assert "up to date" in house("extract", photos, LARDER_DATASET="photos")
        transformed = house("transform", **named)
        assert "up to date" in transformed
        assert "earlier versions" in transformed
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
    refused = house.refuse("transform", LARDER_DATASET="cats")
    assert refused.exit_code == 2
    assert "'photos', and LARDER_DATASET is 'cats'" in refused.what
    assert house.on_volumes() == set()
    house("transform")
    refused = house.refuse("shard", on="wds", LARDER_INPUT=str(house.root / "data/photos"), LARDER_DATASET="cats")
    assert "'photos', and LARDER_DATASET is 'cats'" in refused.what
    refused = house.refuse("shard", on="wds", LARDER_INPUT=str(house.root / "data"), LARDER_DATASET="cats")
    assert refused.exit_code == 3
    assert "holds no finished data" in refused.what


def test_two_data_sets_on_a_volume_must_be_told_apart(house: House, photos: str) -> None:
    for name in ("photos", "cats"):
        house("extract", photos, f"--dataset={name}")
        house("transform")
    for name, on in (("load", "data"), ("shard", "wds"), ("verify", "data")):
        refused = house.refuse(name, on=on, LARDER_INPUT=str(house.root / "data"))
        assert refused.exit_code == 2
        assert "several datasets: cats, photos" in refused.what
        assert "LARDER_DATASET" in refused.next_step
    house("load", LARDER_DATASET="photos")
    assert house.in_bucket() == {"photos"}


def test_the_default_source_is_fetched_under_no_other_name() -> None:
    with pytest.raises(ConfigurationError, match="LARDER_SOURCE is not set"):
        ExtractSettings.load("extract", [], {"LARDER_DATASET": "photos"})
    ExtractSettings.load("extract", [], {"LARDER_DATASET": "Food-11"})
    ExtractSettings.load("extract", ["--source=sample"], {"LARDER_DATASET": "photos"})


@pytest.mark.parametrize("name", ["../x", "-photos", "my photos", "pho\ntos", "a" * 200, "photös", "raw", "$(id)"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_name_that_is_none(stage: str, name: str) -> None:
    environ = {"LARDER_DATASET": name, "LARDER_SOURCE": "sample", "S3_BUCKET": "bucket"}
    with pytest.raises(ConfigurationError) as caught:
        STAGES[stage][0].load(stage, [], environ)
    assert "LARDER_DATASET (environment)=" in caught.value.what
    assert caught.value.what.count("\n") == 1, "one fault, on one line"
