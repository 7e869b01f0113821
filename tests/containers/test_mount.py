"""The mount in a container, as this machine and other containers see it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from larder import __version__
from tests.conftest import Store

Run = Callable[..., "subprocess.CompletedProcess[str]"]
COMPOSE = ("docker", "compose", "-f", "compose/mount.yaml")
PIXELS = os.urandom(300_000)


def mounted(folder: Path) -> list[str]:
    """The mount points in `folder`."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in points if point.startswith(f"{folder}/")]


class Mount:
    """A bucket, the folder in which it appears, and commands with the settings of both."""

    def __init__(self, run: Run, folder: Path, settings: dict[str, str]) -> None:
        self._run, self.folder, self.settings = run, folder, settings
        self.point = folder / settings["S3_BUCKET"]

    def run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        ended = self._run(*command, **(self.settings | settings))
        assert self.settings["AWS_SECRET_ACCESS_KEY"] not in ended.stdout + ended.stderr
        return ended

    def up(self, **settings: str) -> subprocess.CompletedProcess[str]:
        return self.run(*COMPOSE, "up", "-d", "--wait", "mount", **settings)

    def kill(self) -> None:
        container = self.run(*COMPOSE, "ps", "-q", "mount").stdout.strip()
        subprocess.run(["docker", "kill", "--signal", "KILL", container], check=True, capture_output=True)


@pytest.fixture
def mount(run: Run, shared_folder: Path, minio: dict[str, Any], minio_server: Store) -> Iterator[Mount]:
    """A bucket with one object, in a project and a folder for one test. All of it is removed at the end."""
    name = f"larder-test-{uuid.uuid4().hex[:12]}"
    folder = shared_folder / name
    folder.mkdir()
    os.chown(folder, 1000, 1000)  # as that of a user of this machine
    minio_server.client.create_bucket(Bucket=name)
    minio_server.client.put_object(Bucket=name, Key="Food-11/training/class_00/0_0.jpg", Body=PIXELS)
    it = Mount(
        run,
        folder,
        {
            "S3_BUCKET": name,
            "S3_ENDPOINT_URL": minio["published"],
            "AWS_ACCESS_KEY_ID": minio["key"],
            "AWS_SECRET_ACCESS_KEY": minio["secret"],
            "LARDER_MOUNT_DIR": str(folder),
            "COMPOSE_PROJECT_NAME": name,
            "RUNNER": "compose",
        },
    )
    try:
        yield it
    finally:
        it.run(*COMPOSE, "down", "--timeout", "1")
        for point in reversed(mounted(folder)):
            subprocess.run(["umount", "--lazy", point], check=False)


def test_others_read_it_and_down_leaves_nothing(mount: Mount) -> None:
    up = mount.up()
    assert up.returncode == 0, up.stderr
    assert (mount.point / "Food-11/training/class_00/0_0.jpg").read_bytes() == PIXELS
    reader = subprocess.run(
        ["docker", "run", "--rm", "--user", "1000:1000", "--cap-drop", "ALL", "--network", "none",
         "--mount", f"type=bind,src={mount.point},dst=/data,readonly", "--entrypoint", "cat",
         f"larder-extract:{__version__}", "/data/Food-11/training/class_00/0_0.jpg"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert reader.stdout == PIXELS, reader.stderr
    down = mount.run(*COMPOSE, "down")
    assert down.returncode == 0
    assert mounted(mount.folder) == []
    assert os.listdir(mount.folder) == []


def test_a_container_that_runs_sees_a_later_mount_and_its_metrics(mount: Mount) -> None:
    sleeping = subprocess.check_output(
        ["docker", "run", "--rm", "--detach", "--user", "1000:1000", "--cap-drop", "ALL", "--network", "none",
         "--mount", f"type=bind,src={mount.folder},dst=/data,readonly,bind-propagation=rslave",
         "--entrypoint", "sleep", f"larder-extract:{__version__}", "600"], text=True,
    ).strip()  # fmt: skip
    try:
        assert mount.up().returncode == 0
        ask = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/data/.rclone.sock'); print('connected')"
        path = f"/data/{mount.point.name}/Food-11/training/class_00/0_0.jpg"
        read = subprocess.run(["docker", "exec", sleeping, "cat", path], capture_output=True, check=False)
        assert read.stdout == PIXELS, read.stderr
        asked = subprocess.run(["docker", "exec", sleeping, "python", "-c", ask], capture_output=True, check=False)
        assert asked.stdout == b"connected\n", asked.stderr
    finally:
        subprocess.run(["docker", "rm", "--force", sleeping], check=True, capture_output=True)


@pytest.mark.parametrize("owner", [1000, 0], ids=["a user's folder", "root's folder"])
def test_a_compromised_rclone_has_no_root_rights(mount: Mount, owner: int, tmp_path: Path) -> None:
    os.chown(mount.folder, owner, owner)
    hostile = tmp_path / "rclone"
    hostile.write_text(Path(__file__).with_name("hostile_rclone.py").read_text())
    hostile.chmod(0o755)
    ended = mount.run(
        *COMPOSE, "run", "--rm", "--volume", f"{hostile}:/opt/venv/bin/rclone:ro", "mount", LARDER_LOG="line"
    )
    assert ended.returncode == 5, ended.stderr
    probe = next(line for line in ended.stderr.splitlines() if "PROBE" in line)
    report = json.JSONDecoder().raw_decode(probe[probe.index("PROBE") + len("PROBE") :])[0]
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(report[kind], 16) == 0, kind
    assert report["NoNewPrivs"] == "1" and report["Seccomp"] == "2"
    assert report["Uid"].split() == [str(owner)] * 4
    assert report["devices"] == []
    # If root owns the folder, rclone is root without capabilities: it may still send signals to root's processes.
    by_name = {"become root", "become root's group", "end the mounter"} if owner == 0 else set()
    done = {name for name, reply in report["tries"].items() if reply == "done"}
    assert done == by_name, report["tries"]
    assert mounted(mount.folder) == []


def test_stage_and_rclone_run_unprivileged_and_the_user_owns_the_files(mount: Mount) -> None:
    assert mount.up().returncode == 0
    container = mount.run(*COMPOSE, "ps", "-q", "mount").stdout.strip()
    listed = subprocess.check_output(["docker", "top", container, "-o", "pid,uid,args"], text=True).splitlines()[1:]
    rights = {}
    for pid, uid, words in (line.split(None, 2) for line in listed):
        status = Path(f"/proc/{pid}/status").read_text()
        rights["mounter" if "services.mount.mounter" in words else Path(words.split()[0]).name] = (
            uid,
            re.findall(r"^CapEff:\t(\w+)$", status, re.MULTILINE)[0],
        )
    assert rights == {"python": ("1000", "0" * 16), "rclone": ("1000", "0" * 16), "mounter": ("0", "0000000000200002")}
    assert {path.lstat().st_uid for path in mount.folder.iterdir() if path != mount.point} == {1000}
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    options = next(line.split()[5] for line in table if line.split()[4] == str(mount.point)).split(",")
    assert {"ro", "nosuid", "nodev"} <= set(options)


def test_a_folder_that_is_closed_to_others_is_served(mount: Mount) -> None:
    mount.folder.chmod(0o700)
    up = mount.up(LARDER_VFS_CACHE="full")
    assert up.returncode == 0, up.stderr
    assert (mount.point / "Food-11/training/class_00/0_0.jpg").read_bytes() == PIXELS
    assert mount.run(*COMPOSE, "down").returncode == 0
    assert mounted(mount.folder) == []


def test_missing_rights_are_named(mount: Mount, tmp_path: Path) -> None:
    without = tmp_path / "without.yaml"
    without.write_text('services: {mount: {cap_add: !override ["SYS_ADMIN"]}}\n')
    ended = mount.run(*COMPOSE, "-f", str(without), "run", "--rm", "mount")
    assert ended.returncode == 2
    assert "SETUID" in ended.stderr and "Traceback" not in ended.stderr


def test_down_leaves_nothing_although_a_file_is_open(mount: Mount) -> None:
    assert mount.up().returncode == 0
    handle = os.open(mount.point / "Food-11/training/class_00/0_0.jpg", os.O_RDONLY)
    try:
        assert mount.run(*COMPOSE, "down").returncode == 0
        assert mounted(mount.folder) == []
    finally:
        with suppress(OSError):  # its mount is gone
            os.close(handle)


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "not-the-secret"}, "AWS_SECRET_ACCESS_KEY"),
        ({"S3_BUCKET": "larder-no-such-bucket"}, "no such bucket"),
        ({"S3_BUCKET": ""}, "S3_BUCKET is not set"),
    ],
    ids=["secret", "bucket", "unset"],
)
def test_what_can_not_work_fails_and_the_log_says_why(mount: Mount, settings: dict[str, str], words: str) -> None:
    assert mount.up(**settings).returncode != 0
    assert words in mount.run(*COMPOSE, "logs", "mount").stdout
    assert mounted(mount.folder) == []
    made = mount.run("make", "mount", **settings)
    assert made.returncode != 0
    assert words in made.stderr
    assert made.stdout == ""
    left = mount.run(*COMPOSE, "ps", "--all", "-q").stdout
    assert bool(left) == (not settings.get("S3_BUCKET", "set")), "without a bucket, a mount that works is left alone"


@pytest.mark.one_in(2)
@pytest.mark.parametrize("remedy", ["mount", "unmount"])
def test_make_clears_a_dead_mount(mount: Mount, remedy: str) -> None:
    made = mount.run("make", "mount")
    assert made.returncode == 0, made.stderr
    assert made.stdout == f"{mount.point}\n"
    handle = os.open(mount.point / "Food-11/training/class_00/0_0.jpg", os.O_RDONLY)  # so that nothing can unmount it
    try:
        mount.kill()
        assert mounted(mount.folder) == [str(mount.point)]
        with pytest.raises(OSError, match=r"not connected|aborted"):
            os.listdir(mount.point)
        cleared = mount.run("make", remedy)
        assert cleared.returncode == 0, cleared.stderr
    finally:
        with suppress(OSError):
            os.close(handle)
    if remedy == "mount":
        assert (mount.point / "Food-11/training/class_00/0_0.jpg").read_bytes() == PIXELS
        assert mounted(mount.folder) == [str(mount.point)]
        assert mount.run("make", "unmount").returncode == 0
    assert mounted(mount.folder) == []
    assert os.listdir(mount.folder) == []
    assert mount.run("make", "unmount").returncode == 0


def test_unmount_ends_a_mount_of_the_host_runner(mount: Mount) -> None:
    made = mount.run("make", "mount", RUNNER="host")
    assert made.returncode == 0, made.stderr
    assert (mount.point / "Food-11/training/class_00/0_0.jpg").read_bytes() == PIXELS
    ended = mount.run("make", "unmount")
    assert ended.returncode == 0, ended.stderr
    assert mounted(mount.folder) == []
    assert os.listdir(mount.folder) == [".mount.log"]


def test_a_folder_that_is_not_shared_is_an_error_with_a_remedy(mount: Mount) -> None:
    private = mount.folder / "private"
    private.mkdir()
    subprocess.run(["mount", "--bind", private, private], check=True)
    subprocess.run(["mount", "--make-private", private], check=True)
    made = mount.run("make", "mount", LARDER_MOUNT_DIR=str(private))
    assert made.returncode != 0
    assert f"mount --make-rshared {private}" in made.stderr
