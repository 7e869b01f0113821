"""How a mount begins and ends."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Store
from tests.integration.mount.conftest import Mount, arguments, held_open, mounted

ROOT = Path(__file__).resolve().parents[3]
CONTENTS = {"Food-11__big": os.urandom(9_000_001)}


@pytest.fixture
def store(s3: Store) -> Any:
    """One kind of store is enough here."""
    return s3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_unmounts(mount: Mount, number: int) -> None:
    process = mount.start()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "is unmounted" in stderr
    assert not mount.mounted()
    assert mount.litter() == []


def test_a_signal_unmounts_although_files_are_open(mount: Mount) -> None:
    mount.put(**CONTENTS)
    process = mount.start()
    with held_open(mount.point / "Food-11/big") as file:
        assert os.read(file, 1000) == CONTENTS["Food-11__big"][:1000]
        process.terminate()
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr
        assert "are open" in stderr
        assert "they stay open" in stderr
        assert not mount.mounted()
        with pytest.raises(OSError, match=r"not connected|aborted"):
            os.pread(file, 1000, 8_000_000)
    assert mount.litter() == []


def test_who_closes_in_time_loses_nothing(mount: Mount) -> None:
    mount.put(**CONTENTS)
    process = mount.start()
    assert process.stderr
    with (mount.point / "Food-11/big").open("rb") as file:
        process.terminate()
        while "are open" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGSTOP)  # so that its five seconds don't end while a busy machine reads
        assert file.read() == CONTENTS["Food-11__big"]
    process.send_signal(signal.SIGCONT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "they stay open" not in stderr


def test_it_goes_on_in_the_background(mount: Mount) -> None:
    mount.put(photo=b"pixels")
    server = mount.detach()
    assert os.getsid(server) == server  # a closed terminal doesn't end it
    assert (mount.point / "photo").read_bytes() == b"pixels"
    for again in (mount.run("--detach"), mount.run()):
        assert (again.code, again.stdout) == (0, f"{mount.point}\n")
        assert "up to date" in again.stderr
    assert mount.server() == server
    ended = mount.run("--unmount")
    assert ended.code == 0
    assert not mount.mounted()
    assert arguments(server) == ""
    again = mount.run("--unmount")
    assert again.code == 0
    assert "nothing is left mounted" in again.stderr


def test_many_at_once_make_one_mount(mount: Mount) -> None:
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: mount.run("--detach"), range(4)))
    assert [(result.code, result.stdout) for result in results] == [(0, f"{mount.point}\n")] * 4
    assert mounted(mount.folder) == [str(mount.point)]
    mount.rclone()


def test_other_settings_and_other_buckets_are_not_up_to_date(mount: Mount) -> None:
    mount.detach()
    other = mount.run("--detach", LARDER_DIR_CACHE_SECONDS="77")
    assert other.code == 2
    assert "LARDER_DIR_CACHE_SECONDS=10" in other.stderr
    other = mount.run("--detach", S3_BUCKET="another")
    assert other.code == 2
    assert f"s3://{mount.bucket} is mounted" in other.stderr


def test_unmounting_needs_neither_bucket_nor_keys(mount: Mount) -> None:
    mount.detach()
    assert mount.run("--unmount", S3_BUCKET="", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="").code == 0
    assert not mount.mounted()


def test_somebody_else_may_unmount_it(mount: Mount) -> None:
    process = mount.start()
    subprocess.run(["fusermount3", "-u", str(mount.point)], check=True)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "by somebody else" in stderr
    assert mount.litter() == []


@pytest.mark.parametrize("what", ["a file in it", "a file", "a mount"])
def test_a_mount_point_in_use_is_left_alone(mount: Mount, what: str) -> None:
    mount.folder.mkdir()
    if what == "a file":
        mount.point.write_text("mine")
    else:
        mount.point.mkdir()
    if what == "a mount":
        subprocess.run(["mount", "-t", "tmpfs", "larder-tests", str(mount.point)], check=True)
    if what == "a file in it":
        (mount.point / "file").write_text("mine")
    result = mount.run()
    assert result.code == 3
    assert str(mount.point) in result.stderr
    assert mount.mounted() == (what == "a mount")
    assert mount.point.exists()


def test_health_is_what_a_listing_says(mount: Mount) -> None:
    def health() -> Any:
        return mount.stage("mount.health", env={"LARDER_MOUNT_DIR": str(mount.folder)})

    mount.folder.mkdir()
    assert health().code == 1
    process = mount.start()
    assert health().code == 0
    os.kill(mount.rclone(), signal.SIGSTOP)
    hangs = health()
    assert hangs.code == 1
    assert "no answer" in hangs.stderr
    process.terminate()
    process.communicate(timeout=60)
    assert not mount.mounted()


def test_make_mounts_and_unmounts_without_an_engine(mount: Mount, tmp_path: Path) -> None:
    mount.put(photo=b"pixels")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    env = kept | mount.env | {"DOCKER_HOST": f"unix://{tmp_path}/no-engine.sock", "LARDER_HOME": str(tmp_path)}

    def make(target: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["make", target], cwd=ROOT, env=env, capture_output=True, text=True, check=False)

    for _ in range(2):
        made = make("mount")
        assert (made.returncode, made.stdout) == (0, f"{mount.point}\n"), made.stderr
        assert (mount.point / "photo").read_bytes() == b"pixels"
    for _ in range(2):
        assert make("unmount").returncode == 0
        assert not mount.mounted()
