"""A place for the volume script: loop devices, and a small Debian of its own in a mount namespace, so that nothing of
this machine's /etc is changed and nothing is left mounted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPE = ROOT / "tests/openstack/guest"
MIB = 1 << 20
GIB = 1 << 30
BLOCK = 4096

# The namespace's own view of the small Debian; the script waits on stdin, so that it ends with the test.
ENTER = """
set -e
mount --bind "$1" "$1"; mount --rbind /dev "$1/dev"; mount --rbind /sys "$1/sys"; mount -t proc proc "$1/proc"
mount -t tmpfs run "$1/run"; mkdir "$1/run/lock"; mkdir -p "$1/provision"; mount --bind "$2" "$1/provision"
echo ready
read -r _
"""


class Ended(NamedTuple):
    """How the script ended."""

    code: int
    stdout: str
    stderr: str


def missing(why: str) -> None:
    """Leave a test out, or fail it when every tier was asked for."""
    pytest.fail(why) if os.environ.get("REQUIRE") == "all" else pytest.skip(why)


def build_image(tag: str, target: str = "") -> str:
    """Build a stage of the guest's recipe; Docker remembers it."""
    command = ["docker", "build", "--quiet", *(["--target", target] if target else []), "--tag", tag, str(RECIPE)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        missing(f"the image {tag} can't be built: {built.stderr.strip()[-500:]}")
    return tag


def unpack_debian(folder: Path) -> Path:
    """The file tree of the recipe's stage with the tools for disks."""
    folder.mkdir()
    image = build_image("larder-test-disks", "disks")
    container = subprocess.check_output(["docker", "create", image, "true"], text=True).strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            subprocess.run(["tar", "-x", "--exclude=dev/*", "-C", str(folder)], stdin=export.stdout, check=True)
    finally:
        subprocess.run(["docker", "rm", container], check=True, stdout=subprocess.DEVNULL)
    return folder


class Machine:
    """A small Debian whose disks are loop devices over files."""

    def __init__(self, debian: Path, folder: Path) -> None:
        self.folder = folder
        self.root = debian
        self._devices: list[str] = []
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", ENTER, "sh", str(debian), str(ROOT / "provision")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "the small Debian could not be set up"
        (debian / "etc/fstab").write_text("# nothing yet\n")
        shutil.rmtree(debian / "etc/systemd/system/docker.service.d", ignore_errors=True)
        shutil.rmtree(debian / "mnt", ignore_errors=True)
        (debian / "mnt").mkdir()

    def command(self, *argv: str) -> list[str]:
        """A command line that runs `argv` there."""
        return ["nsenter", "--mount", "--target", str(self._holder.pid), "chroot", str(self.root), *argv]

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run a command there, which must succeed; returns its stdout."""
        return subprocess.run(
            self.command(*argv), input=stdin, check=True, stdout=subprocess.PIPE, text=True, timeout=120
        ).stdout

    def bind(self, folder: Path, place: Path) -> None:
        """Show a folder of this machine there."""
        self._in_namespace("mount", "--bind", "--read-only", str(folder), str(place))

    def unbind(self, place: Path) -> None:
        """Undo `bind`."""
        self._in_namespace("umount", str(place))

    def _in_namespace(self, *argv: str) -> None:
        subprocess.run(["nsenter", "--mount", "--target", str(self._holder.pid), *argv], check=True)

    def volume(self, command: str, device: str, *options: str) -> Ended:
        """Run volume.py on a device."""
        argv = self.command("/provision/host/volume.py", command, "--device", device, "--owner", "1000:1000", *options)
        ended = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=120)
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def look(self, device: str) -> dict[str, Any]:
        """What volume.py sees on a device."""
        ended = self.volume("look", device)
        assert ended.code == 0, ended.stderr
        seen: dict[str, Any] = json.loads(ended.stdout)
        return seen

    def uses(self, device: str) -> list[str]:
        """What volume.py says that the machine does with a device."""
        ended = self.volume("uses", device)
        assert ended.code == 0, ended.stderr
        seen: list[str] = json.loads(ended.stdout)
        return seen

    def disk(self, size_bytes: int = GIB, *options: str) -> str:
        """A new blank disk, with options of losetup; returns its device."""
        file = self.folder / f"disk-{len(self._devices)}"
        with file.open("wb") as stream:
            stream.truncate(size_bytes)
        argv = ["losetup", "--find", "--partscan", "--show", *options, str(file)]
        device = subprocess.check_output(argv, text=True).strip()
        self._devices.append(device)
        subprocess.run(["blockdev", "--setrw", device], check=True)  # a loop device keeps what it was before
        return device

    def partition(self, device: str, script: str) -> None:
        """Write a partition table, and have the kernel read it."""
        self.run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device, stdin=script)
        subprocess.run(["partx", "--update", device], check=False, capture_output=True)  # fails without partitions

    def grow_disk(self, device: str, size_bytes: int) -> None:
        """What a cloud does when a volume is extended."""
        file = self.folder / f"disk-{self._devices.index(device)}"
        os.truncate(file, size_bytes)
        subprocess.run(["losetup", "--set-capacity", device], check=True)

    def close(self) -> None:
        """Let go of everything."""
        self._holder.communicate("\n")
        subprocess.run(["losetup", "--detach", *self._devices], check=True) if self._devices else None


def digest(device: str) -> str:
    """Of all that stands on a loop device; its file is sparse, and only what was written is read."""
    subprocess.run(["blockdev", "--flushbufs", device], check=True)
    file = subprocess.check_output(["losetup", "--noheadings", "--output", "BACK-FILE", device], text=True).strip()
    total, offset = hashlib.sha256(), 0
    with open(file, "rb") as stream:
        os.fsync(stream.fileno())
        while (offset := next_data(stream.fileno(), offset)) >= 0:
            end = os.lseek(stream.fileno(), offset, os.SEEK_HOLE)
            for at in range(offset // BLOCK * BLOCK, end, BLOCK):
                block = os.pread(stream.fileno(), BLOCK, at)
                total.update(f"{at} ".encode() + block if block.strip(b"\0") else b"")
            offset = end
    return total.hexdigest()


def next_data(file: int, offset: int) -> int:
    """Where the next written bytes of a sparse file begin, or -1."""
    try:
        return os.lseek(file, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return -1
