"""The script for NVIDIA's driver and container toolkit, without a GPU.

Sysfs is a folder, and the programs that touch packages, the kernel and containers have stand-ins. The script runs in a
small Debian of its own.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.openstack.disks import Ended, Machine

SAY = 'echo "$(basename $0) $*" >>/gpu/log\n'
A100 = "NVIDIA A100-SXM4-80GB, 570.86.15\n"
PROGRAMS = {
    "nvidia-smi": """
[ -e /gpu/installed ] && [ -e /gpu/loaded ] || { echo "NVIDIA-SMI has failed"; exit 9; }
cat /gpu/shown
""",
    "apt-get": """
case "$*" in
*update*) [ ! -e /gpu/no-network ] ;;
*nvidia-container-toolkit*) cp /gpu/toolkit /gpu/bin/nvidia-ctk ;;
*install*nvidia-driver*) touch /gpu/installed ;;
esac
""",
    "apt-cache": 'echo "  Candidate: $(cat /gpu/candidate)"',
    "dpkg-query": """
case "$*" in
*nvidia-headless*) [ ! -e /gpu/installed ] || echo installed nvidia-headless-no-dkms-570-server-open
    echo not-installed nvidia-headless-no-dkms-999 ;;
esac
""",
    "dpkg": '[ "$1" = --configure ] || echo amd64',
    "ubuntu-drivers": "[ -e /gpu/unknown ] || touch /gpu/installed",
    "modprobe": """
[ -e /gpu/loads ] || { echo "modprobe: ERROR: could not insert 'nvidia': Key was rejected by service"; exit 1; }
touch /gpu/loaded
""",
    "curl": '[ ! -e /gpu/no-key ] && while [ $# -gt 0 ]; do [ "$1" != --output ] || echo key >"$2"; shift; done',
    "systemctl": "[ ! -e /gpu/configured ] || touch /gpu/gives-gpus",
    "docker": """
case $1 in
image) [ -e /gpu/image ] ;;
pull) [ ! -e /gpu/no-network ] && touch /gpu/image ;;
ps) cat /gpu/containers ;;
run) [ -e /gpu/gives-gpus ] || { echo 'could not select device driver "" with capabilities: [[gpu]]' >&2; exit 125; }
     cat /gpu/shown-in-container ;;
esac
""",
    "dockerd": "",
}
TOOLKIT = """
case $1 in
--version) echo "NVIDIA Container Toolkit CLI version 1.17.8" ;;
*) [ ! -e /gpu/broken-json ] || { echo "invalid character in daemon.json"; exit 1; }; touch /gpu/configured ;;
esac
"""


class GpuMachine:
    """The small Debian with a fake GPU; files in its folder /gpu say what its programs do."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.folder = machine.root / "gpu"
        (self.folder / "bin").mkdir(parents=True)
        for name, text in PROGRAMS.items():
            self.program(f"bin/{name}", text)
        self.program("toolkit", TOOLKIT)
        self.set(shown=A100, **{"shown-in-container": A100, "candidate": "570.86.15-1", "loads": "", "containers": ""})
        self.device("3b:00.0", "0x030200")

    def program(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{SAY}{text}")
        path.chmod(0o755)

    def set(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / name).write_text(text)

    def remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def device(self, address: str, kind: str, vendor: str = "0x10de") -> None:
        folder = self.folder / f"sys/bus/pci/devices/0000:{address}"
        folder.mkdir(parents=True)
        (folder / "vendor").write_text(f"{vendor}\n")
        (folder / "class").write_text(f"{kind}\n")

    def system(self, name: str) -> None:
        """Make it a Debian, an Ubuntu or something else."""
        path = self._machine.root / "etc/os-release"
        path.unlink()
        path.write_text(f"ID={name}\n")

    @property
    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def run(self, *options: str) -> Ended:
        path = "PATH=/gpu/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        argv = ["env", path, "bash", "/provision/host/nvidia.sh", "--sysfs", "/gpu/sys", *options]
        ended = subprocess.run(self._machine.command(*argv), capture_output=True, text=True, check=False, timeout=120)
        return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def gpu(machine: Machine) -> Iterator[GpuMachine]:
    root, release = machine.root, machine.root / "etc/os-release"
    before = os.readlink(release)
    yield GpuMachine(machine)
    machine.run(
        "rm", "-rf", "/gpu", "/var/lib/larder-nvidia-boot", "/etc/apt/sources.list.d/nvidia-container-toolkit.list"
    )
    if not release.is_symlink():
        release.unlink()
        release.symlink_to(before)
    assert Path(root, "etc/os-release").exists()


def test_without_a_gpu_nothing_is_done(gpu: GpuMachine, machine: Machine) -> None:
    machine.run("rm", "-rf", "/gpu/sys")
    assert gpu.run() == (0, "found no NVIDIA GPU: nothing to install\n", "")
    gpu.device("01:00.0", "0x030000", vendor="0x1002")
    gpu.device("3b:00.1", "0x040300")  # the sound of an NVIDIA card that serves another machine
    assert gpu.run() == (0, "found no NVIDIA GPU: nothing to install\n", "") and gpu.log == []


@pytest.mark.parametrize(
    ("system", "installs"),
    [
        ("debian", ["apt-get -qq -o Acquire::Retries=3 install --yes --no-install-recommends linux-headers-amd64 "
                    "nvidia-driver nvidia-smi"]),
        ("ubuntu", ["ubuntu-drivers install --gpgpu",
                    "apt-get -qq -o Acquire::Retries=3 install --yes --no-install-recommends nvidia-utils-570-server"]),
    ],
)  # fmt: skip
def test_driver_and_toolkit_are_installed_once(gpu: GpuMachine, system: str, installs: list[str]) -> None:
    gpu.system(system)
    ended = gpu.run()
    assert ended.code == 0, ended
    assert [line for line in gpu.log if line in installs] == installs
    assert "loaded the driver: 1 x NVIDIA A100-SXM4-80GB, 570.86.15" in ended.stdout
    assert "configured Docker for the GPUs\nfound in a container: 1 x NVIDIA A100" in ended.stdout
    repository = gpu.folder.parent / "etc/apt/sources.list.d/nvidia-container-toolkit.list"
    assert "stable/deb/amd64 /" in repository.read_text() and "signed-by" in repository.read_text()
    assert any(line.startswith("docker run --rm --gpus all debian:bookworm-slim nvidia-smi") for line in gpu.log)

    gpu.remove("log")
    again = gpu.run()
    assert again.code == 0 and all(line.startswith("found ") for line in again.stdout.splitlines()), again
    assert not [line for line in gpu.log if line.startswith(("apt-get", "ubuntu-drivers", "systemctl", "modprobe"))]


def test_a_driver_of_the_image_stays(gpu: GpuMachine) -> None:
    gpu.set(installed="", loaded="", shown=2 * A100, **{"shown-in-container": 2 * A100})
    gpu.device("5e:00.0", "0x030200")
    gpu.device("07:00.0", "0x068000")
    ended = gpu.run("--image", "ubuntu:24.04")
    assert ended.code == 0 and "found the driver: 2 x NVIDIA A100" in ended.stdout, ended
    assert "found NVSwitch: CUDA also needs nvidia-fabricmanager" in ended.stdout
    assert not [line for line in gpu.log if "nvidia-driver" in line] and any("ubuntu:24.04" in line for line in gpu.log)


def test_a_reboot_is_asked_for_once(gpu: GpuMachine) -> None:
    gpu.remove("loads")
    for _ in range(2):  # the second time, nothing is installed again
        ended = gpu.run()
        assert ended.code == 4 and "works only after a reboot" in ended.stderr, ended
        assert "Key was rejected" in ended.stderr and "sudo reboot" in ended.stderr
    assert len([line for line in gpu.log if line.endswith("nvidia-driver nvidia-smi")]) == 1
    asked = gpu.folder.parent / "var/lib/larder-nvidia-boot"
    asked.write_text("another boot\n")
    ended = gpu.run()
    assert ended.code == 3 and "even after a reboot" in ended.stderr and "Secure Boot" in ended.stderr, ended

    asked.write_text("another boot\n")
    gpu.set(loads="")
    ended = gpu.run()
    assert ended.code == 0 and "loaded the driver" in ended.stdout and not asked.exists(), ended


@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        ({"candidate": "(none)"}, 2, "non-free packages, which have NVIDIA's driver, aren't enabled"),
        ({"no-network": ""}, 5, "apt-get update failed"),
        ({"installed": "", "loaded": "", "no-key": ""}, 5, "no key for the container toolkit"),
        ({"installed": "", "loaded": "", "containers": "4711\n"}, 3, "must be restarted to give GPUs to containers"),
        ({"installed": "", "loaded": "", "broken-json": ""}, 3, "invalid character in daemon.json"),
        ({"installed": "", "loaded": "", "shown": A100, "second": ""}, 3, "works with 1 x NVIDIA A100-SXM4-80GB"),
        ({"installed": "", "loaded": "", "shown": 2 * A100, "second": ""}, 3, "a container gets 1 x NVIDIA A100"),
    ],
    ids=["non-free", "network", "key", "containers", "daemon.json", "one GPU broken", "one GPU missing"],
)
def test_what_goes_wrong_is_named(gpu: GpuMachine, files: dict[str, str], code: int, says: str) -> None:
    gpu.set(**files)
    if "second" in files:
        gpu.device("5e:00.0", "0x030200")
    ended = gpu.run()
    assert ended.code == code and says in ended.stderr and "next step: " in ended.stderr, ended


def test_an_image_that_cannot_be_pulled(gpu: GpuMachine) -> None:
    gpu.set(installed="", loaded="")
    assert gpu.run().code == 0
    gpu.remove("image")
    gpu.set(**{"no-network": ""})
    ended = gpu.run()
    assert ended.code == 5 and "debian:bookworm-slim" in ended.stderr, ended


def test_a_container_without_gpus(gpu: GpuMachine) -> None:
    gpu.program("bin/systemctl", "")
    ended = gpu.run()
    assert ended.code == 3 and "could not select device driver" in ended.stderr, ended


def test_other_systems_and_gpus_without_a_driver(gpu: GpuMachine) -> None:
    gpu.system("fedora")
    ended = gpu.run()
    assert ended.code == 2 and "neither Debian nor Ubuntu" in ended.stderr
    gpu.system("ubuntu")
    gpu.set(unknown="")
    ended = gpu.run()
    assert ended.code == 3 and "knows no driver for this GPU" in ended.stderr and "CUDA" in ended.stderr


def test_without_docker_the_driver_alone_is_installed(gpu: GpuMachine) -> None:
    gpu.remove("bin/dockerd")
    ended = gpu.run()
    assert ended.code == 0 and ended.stdout.endswith("found no Docker: no container toolkit is installed\n"), ended


@pytest.mark.parametrize("words", [["--image"], ["--gpus", "all"]])
def test_wrong_options(gpu: GpuMachine, words: list[str]) -> None:
    ended = gpu.run(*words)
    assert ended.code == 2 and "--help" in ended.stderr
