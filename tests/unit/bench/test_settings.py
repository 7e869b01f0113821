"""bench's settings and arms."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from larder.bench import arms
from larder.bench.open_arm import import_arm, open_arm
from larder.errors import ConfigurationError
from larder.progress import Reporter
from larder.store import SET_STORE
from tests.unit.bench.conftest import MakeSettings


def test_defaults(make_settings: MakeSettings) -> None:
    settings = make_settings()
    assert (settings.arm, settings.split, settings.batch_size, settings.warmup_batches, settings.batches) == (
        "imagefolder_local",
        "training",
        64,
        5,
        0,
    )
    assert str(settings.data_dir) == "/mnt/Food-11"
    assert str(settings.results) == "results"


def test_environment(make_settings: MakeSettings) -> None:
    settings = make_settings(
        FOOD11_DATA_DIR="/d",
        FOOD11_SPLIT="validation",
        LARDER_WORKERS="3",
        LARDER_BENCH_BATCHES="7",
        LARDER_REVISION="r",
    )
    assert (str(settings.data_dir), settings.split, settings.workers, settings.batches, settings.revision) == (
        "/d",
        "validation",
        3,
        7,
        "r",
    )


def test_a_bucket_is_for_those_who_need_one(make_settings: MakeSettings) -> None:
    assert make_settings().bucket == ""
    assert make_settings(RCLONE_CONTAINER="object-chi-netID").bucket == "object-chi-netID"
    assert make_settings(RCLONE_CONTAINER="a", S3_BUCKET="b").bucket == "b"
    with pytest.raises(ConfigurationError, match="S3_BUCKET"):
        make_settings(S3_BUCKET="a/b")


def test_the_address_has_the_names_of_aws_tools(make_settings: MakeSettings) -> None:
    aws = {"AWS_ENDPOINT_URL_S3": "http://s3:9000", "AWS_ENDPOINT_URL": "http://aws:9000"}
    assert make_settings(**aws, S3_ENDPOINT_URL="http://own:9000").s3_endpoint_url == "http://own:9000"
    assert make_settings(**aws, S3_ENDPOINT_URL="").s3_endpoint_url == "http://s3:9000"
    assert make_settings(AWS_ENDPOINT_URL="http://aws:9000").s3_endpoint_url == "http://aws:9000"


def test_sizes_of_the_cache(make_settings: MakeSettings) -> None:
    assert (make_settings().max_cache_size, make_settings().max_pre_download) == (None, None)
    assert make_settings(LARDER_MAX_CACHE_SIZE="2GiB").max_cache_size == 2 << 30
    assert make_settings(LARDER_MAX_CACHE_SIZE="2000").max_cache_size == 2000
    with pytest.raises(ConfigurationError, match=r"2 faults(?s:.*)LARDER_MAX_CACHE_SIZE(?s:.*)LARDER_MAX_PRE_DOWNLOAD"):
        make_settings(LARDER_MAX_CACHE_SIZE="much", LARDER_MAX_PRE_DOWNLOAD="1")


@pytest.mark.parametrize("arm", ["imagefolder_rclone_mount", "remote_one_sample", "webdataset", "litdata_streaming"])
def test_an_arm_without_its_bucket(make_settings: MakeSettings, arm: str) -> None:
    with (
        pytest.raises(ConfigurationError, match=f"S3_BUCKET is not set .*{arm} reads") as caught,
        open_arm(arm, make_settings(), Reporter("bench")),
    ):
        pass
    assert caught.value.next_step == SET_STORE


def test_every_fault_is_named_and_the_arms_listed(make_settings: MakeSettings) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make_settings("--arm", "nope", "--batch-size", "0", LARDER_WORKERS="many")
    message = str(caught.value)
    assert "--arm='nope': unknown arm; must be one of: dali" in message
    assert "--batch-size='0'" in message
    assert "LARDER_WORKERS (environment)='many'" in message


@pytest.mark.parametrize("name", arms.arm_names())
def test_every_arm_has_a_line_for_help_and_opens_a_feed(name: str) -> None:
    assert arms.about_arm(name) and not arms.about_arm(name).endswith(".")
    assert callable(import_arm(name))


def test_every_module_of_an_arm_is_registered() -> None:
    assert sorted(module.name for module in pkgutil.iter_modules(arms.__path__)) == arms.arm_names()


def test_torch_is_not_imported_before_there_is_data(tmp_path: Path) -> None:
    code = f"""
import sys
from services.bench.bench import bench
from services.bench.settings import BenchSettings
from larder.errors import InputError
from larder.progress import Reporter
settings = BenchSettings.load("bench", ["--data-dir", {str(tmp_path)!r}, "--results", {str(tmp_path / "r")!r}], {{}})
try:
    bench(settings, Reporter("bench"))
except InputError:
    sys.exit("torch" in sys.modules)
sys.exit("no error")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
