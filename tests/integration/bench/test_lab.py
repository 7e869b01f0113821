"""Functions that notebooks call, with a store that may go down: each test has its own MinIO."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from larder.errors import ConfigurationError, ServiceError
from services.jupyter import lab
from tests.conftest import Store
from tests.integration.bench.conftest import Mount, MountBucket


@pytest.fixture(autouse=True)
def front_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the front door to make."""
    monkeypatch.setenv("LARDER_FRONT_DOOR", "make")


@pytest.fixture
def store(small_minio: Store) -> Store:
    return small_minio


@pytest.fixture
def mounted(mount: MountBucket, store: Store, loaded: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Mount:
    mounted_bucket = mount(store.endpoint, loaded, "--low-level-retries=1", "--contimeout=2s")
    for name, value in (loaded | {"LARDER_MOUNT_DIR": str(mounted_bucket.folder)}).items():
        monkeypatch.setenv(name, value)
    return mounted_bucket


def test_files_of_a_mount_and_of_the_disk_are_the_same(mounted: Mount, tree: Path) -> None:
    files = lab.list_files(lab.find_mounted_tree(), 15)
    assert files == lab.list_files(tree, 15)
    assert len(files) == 15


def test_a_store_that_goes_down_under_its_mount(mounted: Mount, store: Store) -> None:
    folder = lab.find_mounted_tree()
    subprocess.run(["docker", "kill", store.container], check=True, capture_output=True)
    with pytest.raises(ServiceError, match=r"can't be read: Input/output error") as caught:
        lab.list_files(folder, 6)
    assert "`make s3-check`" in caught.value.next_step
    assert len(caught.value._render_traceback_()) == 2


def test_a_bucket_that_is_not_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (store.env | {"S3_BUCKET": "not-there"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="s3://not-there: there is no such bucket") as caught:
        lab.open_artifact("shards")
    assert "`make s3-bucket BUCKET=not-there`" in caught.value.next_step
    assert "`make s3-up`; then `make jupyter` again, which keeps the workspace" in caught.value.next_step
