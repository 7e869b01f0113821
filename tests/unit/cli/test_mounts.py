"""The kernel's table of mounts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from larder.cli.mounts import Mount, is_served_by_host, mount_of

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:30 / /run rw - tmpfs tmpfs rw
31 22 8:2 / /home rw shared:2 master:1 - ext4 /dev/sda2 rw
32 31 8:3 / /home/a\\040b rw master:7 - ext4 /dev/sda3 rw
33 31 8:3 / /home/a rw - ext4 /dev/sda3 rw
34 33 8:4 / /home/a rw shared:9 propagate_from:2 - ext4 /dev/sda4 rw
35 22 8:4 / /tab\\011\\134 rw unbindable - ext4 /dev/sda4 rw
"""


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("/", Mount("/", True, False)),
        ("/etc/x", Mount("/", True, False)),
        ("/running", Mount("/", True, False)),
        ("/run", Mount("/run", False, False)),
        ("/run/user/1", Mount("/run", False, False)),
        ("/home/b", Mount("/home", True, True)),
        ("/home/a b/c", Mount("/home/a b", False, True)),
        ("/home/a/c", Mount("/home/a", True, False)),  # of two on one point, the later one
        ("/tab\t\\/x", Mount("/tab\t\\", False, False)),
    ],
)
def test_on_which_mount_a_folder_lies(folder: str, expected: Mount) -> None:
    assert mount_of(Path(folder), TABLE) == expected


def test_this_machine(tmp_path: Path) -> None:
    mount = mount_of(tmp_path)
    assert mount is None or str(tmp_path).startswith(mount.point)


@pytest.mark.parametrize(
    ("note", "expected"),
    [
        (json.dumps({"pids": os.readlink("/proc/self/ns/pid")}), True),
        ('{"pids": "pid:[1]"}', False),
        ('{"pids": 7}', False),
        ("[]", False),
        ("{", False),
        ("", False),
    ],
)
def test_who_serves_a_mount(tmp_path: Path, note: str, expected: bool) -> None:
    assert not is_served_by_host(tmp_path)
    (tmp_path / ".mount.json").write_text(note)
    assert is_served_by_host(tmp_path) is expected
