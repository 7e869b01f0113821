"""A bucket as a folder: what readers see, and what the store refuses."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.integration.mount.conftest import Mount, Until, arguments

CONTENTS = {"Food-11__training__class_00__0_0.jpg": os.urandom(70_000), "Food-11__big": os.urandom(9_000_001)}


def metrics(folder: Path) -> list[str]:
    """The lines of rclone's metrics, without comments."""

    class Connection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(str(folder / ".rclone.sock"))

    connection = Connection("localhost")
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return [line for line in lines if not line.startswith("#")]


def test_files_are_the_objects(mount: Mount) -> None:
    mount.put(**CONTENTS)
    mount.start()
    for name, content in CONTENTS.items():
        assert (mount.point / name.replace("__", "/")).read_bytes() == content
    assert sorted(path.name for path in mount.point.rglob("*") if path.is_file()) == ["0_0.jpg", "big"]


def test_a_class_without_images_is_a_folder_all_the_same(mount: Mount) -> None:
    """load's placeholder object is enough for torchvision's own ImageFolder."""
    from torchvision.datasets import ImageFolder

    mount.put(**{"validation__class_00__.keep": b"", "validation__class_01__1.jpg": b"pixels"})
    mount.start()
    images = ImageFolder(str(mount.point / "validation"), allow_empty=True)
    assert images.classes == ["class_00", "class_01"]
    assert images.targets == [1]


def test_nobody_may_write(mount: Mount) -> None:
    mount.put(kept=b"x")
    mount.start()
    with pytest.raises(OSError, match="Read-only"):
        (mount.point / "new").write_bytes(b"x")
    with pytest.raises(OSError, match="Read-only"):
        (mount.point / "kept").unlink()


def test_another_user_may_read_and_ask_for_the_metrics(mount: Mount) -> None:
    mount.put(photo=b"pixels")
    mount.start()
    read = mount.as_other("cat", str(mount.point / "photo"))
    assert (read.returncode, read.stdout) == (0, "pixels")
    allowed = mount.as_other("test", "-w", str(mount.folder / ".rclone.sock"))
    assert allowed.returncode == 0


def test_new_objects_appear_after_the_directory_cache_time(mount: Mount, until: Until) -> None:
    mount.put(first=b"1")
    mount.start(LARDER_DIR_CACHE_SECONDS="8")  # long enough for a put and two listings on a busy machine
    assert os.listdir(mount.point) == ["first"]
    mount.put(second=b"2")
    assert os.listdir(mount.point) == ["first"]  # from the cache
    until(lambda: sorted(os.listdir(mount.point)) == ["first", "second"], "the new object appears")


def test_the_metrics_count_bytes_and_requests_and_an_image_costs_one(mount: Mount) -> None:
    mount.put(**{f"folder__{number}": bytes(10_000) for number in range(20)})
    mount.start()
    for path in (mount.point / "folder").iterdir():
        assert len(path.read_bytes()) == 10_000
    lines = metrics(mount.folder)
    assert "rclone_bytes_transferred_total 200000" in lines
    requests = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines if "http_status_code" in line}
    assert sum(requests.values()) <= 20 + 4  # and the listings
    assert not any("HEAD" in name for name in requests)


def test_a_cache_keeps_what_was_read(mount: Mount) -> None:
    mount.put(photo=bytes(50_000))
    mount.start(LARDER_VFS_CACHE="full")
    for _ in range(3):
        assert (mount.point / "photo").read_bytes() == bytes(50_000)
        subprocess.run(["sh", "-c", "sync; echo 3 >/proc/sys/vm/drop_caches"], check=True)  # not the kernel's cache
    assert "rclone_bytes_transferred_total 50000" in metrics(mount.folder)
    assert mount.run("--unmount").code == 0
    assert mount.litter() == []


def test_no_secret_is_in_an_argument_or_a_file(mount: Mount) -> None:
    secret = mount.store.secret_key
    server = mount.detach()
    for pid in (server, mount.rclone()):
        assert arguments(pid)
        assert secret not in arguments(pid)
    for name in (".mount.json", ".mount.log"):
        assert secret not in (mount.folder / name).read_text()
    assert secret not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize("how", ["foreground", "--detach"])
@pytest.mark.parametrize(
    ("env", "code", "words"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "not-the-secret"}, 2, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, 2, "AWS_ACCESS_KEY_ID"),
        ({"S3_BUCKET": "larder-no-such-bucket"}, 2, "no such bucket"),
        ({"S3_ENDPOINT_URL": "http://127.0.0.1:9"}, 5, "doesn't answer"),
        ({"S3_BUCKET": ""}, 2, "S3_BUCKET is not set"),
        ({"S3_BUCKET": ".."}, 2, "S3_BUCKET"),
    ],
    ids=["secret", "key", "bucket", "endpoint", "unset", "dots"],
)
def test_what_can_not_work_ends_at_once_and_leaves_no_mount(
    mount: Mount, how: str, env: dict[str, str], code: int, words: str
) -> None:
    flags = ("--detach",) if how == "--detach" else ()
    result = mount.run(*flags, **env)
    assert result.code == code, result.stderr
    assert result.stdout == ""
    assert words in result.stderr
    assert result.stderr.count("next step") == 1
    assert not mount.folder.exists() or mount.litter() == []
