"""Setting up a server over SSH: sends `provision/host/*.sh`, runs them, reads what they print.

Every script may run again after any interruption: it finds what is done and goes on. Their exit codes say whose fault
it is: 2 wrong usage, 3 a disk or a folder that isn't what it should be, 5 something remote.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from larder.errors import ConfigurationError, LarderError, ServiceError, StorageError
from larder.progress import Reporter
from provision import answers
from provision.ssh import Ssh

SCRIPTS = Path(__file__).with_name("host")
APPEAR_SECONDS = 60
"""How long an attached disk may take to appear, and a grown one to show its size."""
INSTALL_SECONDS = 3600
"""Among them up to 20 minutes for a fresh image that is still busy with itself."""
DISK_SECONDS = 900
GROW_SECONDS = 4 * 3600
"""A file system that grows must not be cut: how long it is waited for, not how long it may take."""
ERRORS: dict[int, type[LarderError]] = {2: ConfigurationError, 3: StorageError}

# The scripts arrive as one archive: when the connection is lost on the way, none of them runs. Among them lies the
# script's own input. Hardened systems execute nothing that lies in /tmp, so bash reads the script.
RECEIVE = """
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -xzf - -C "$folder"
script=$folder/$1
shift
bash "$script" "$@" <"$folder/input"
"""


@dataclass(frozen=True)
class Disk:
    """A volume as the server is to have it."""

    serial: str
    """The volume's id, of which a virtio disk shows the first 20 characters."""
    gib: int
    mount: str
    """Where it is mounted: /mnt/block."""
    blank: bool
    """Made blank by us and not formatted yet: only then may it be formatted."""

    def __post_init__(self) -> None:
        answers.identifier(self.serial, "the id of a volume")


@dataclass(frozen=True)
class HostSetup:
    """What a server is to have."""

    docker: bool
    rclone: bool
    tools: tuple[str, ...]
    """Debian packages: nload, htop."""
    repository: str | None
    """Address of a git repository to clone into the user's home; the token of https://user:token@… isn't kept there."""
    revision: str | None
    """Branch, tag or commit; None is the repository's default branch."""


def set_up(
    ssh: Ssh,
    wanted: HostSetup,
    disks: Sequence[Disk],
    formatted: Callable[[Disk], None],
    reporter: Reporter | None = None,
) -> None:
    """Bring the server to what is wanted; running it again changes nothing.

    `formatted(disk)` is called as soon as a disk that was `blank` has its file system, before anything is put on it,
    also when an interrupted run had formatted it: mark the volume then. Raises ServiceError when the connection is
    lost or a step fails (running again goes on), StorageError when a disk isn't what it should be.
    """
    for disk in disks:  # before Docker, whose unit waits for them
        mount(ssh, disk, formatted, reporter)
    if wanted.docker:
        _tell(_run_script(ssh, "docker.sh", "--user", ssh.address.user, root=True, seconds=INSTALL_SECONDS), reporter)
    if wanted.rclone:
        _tell(_run_script(ssh, "rclone.sh", root=True, seconds=INSTALL_SECONDS), reporter)
    tools = [*wanted.tools, *(["git", "ca-certificates"] if wanted.repository else [])]
    if tools:
        _tell(_run_script(ssh, "tools.sh", *dict.fromkeys(tools), root=True, seconds=INSTALL_SECONDS), reporter)
    if wanted.repository:
        revision = ["--revision", wanted.revision] if wanted.revision else []
        # not in the words of a command, which everybody there may read: it may hold a token
        address = wanted.repository.encode()
        told = _run_script(ssh, "repository.sh", "--url", "-", *revision, stdin=address, seconds=INSTALL_SECONDS)
        _tell(told, reporter)


def mount(ssh: Ssh, disk: Disk, formatted: Callable[[Disk], None], reporter: Reporter | None = None) -> None:
    """Prepare the disk if it is blank, and mount it, now and after each boot."""
    if disk.blank:
        _tell(_volume(ssh, "prepare", disk, "--gib", str(disk.gib), "--blank", seconds=APPEAR_SECONDS), reporter)
        formatted(disk)
    _tell(_volume(ssh, "mount", disk, "--gib", str(disk.gib), seconds=APPEAR_SECONDS), reporter)


def unmount(ssh: Ssh, disk: Disk, reporter: Reporter | None = None) -> None:
    """Unmount the disk and let Docker start without it; StorageError names who uses it."""
    _tell(_volume(ssh, "unmount", disk, seconds=0), reporter)


def grow(ssh: Ssh, disk: Disk, reporter: Reporter | None = None) -> None:
    """Extend partition and file system to the disk's size, `disk.gib`; it may stay mounted and in use."""
    _tell(_volume(ssh, "grow", disk, "--gib", str(disk.gib), seconds=APPEAR_SECONDS), reporter)


def users(ssh: Ssh, serial: str) -> list[str]:
    """What the server does with a disk, whoever made it do so: "mounted at /srv", "part of LVM's volume group data".

    Empty when the disk is free; that it isn't there is said, too. Reads only. Detaching a disk that is in use loses
    what isn't written yet.
    """
    answers.identifier(serial, "the id of a volume")
    answer = _run_script(ssh, "volume.sh", "uses", "--serial", serial, root=True, seconds=DISK_SECONDS)
    try:
        return [str(use) for use in json.loads(answer)]
    except (ValueError, TypeError):
        raise ServiceError(
            f"{ssh}: volume.sh uses answered something else than expected: {answer[:200]!r}",
            next_step="log in and run it by hand (provision/host/README.md)",
        ) from None


def _volume(ssh: Ssh, command: str, disk: Disk, *options: str, seconds: int) -> str:
    grows = command == "grow"
    return _run_script(
        ssh, "volume.sh", command, "--serial", disk.serial, "--mount", disk.mount, "--wait", str(seconds), *options,
        root=True, seconds=GROW_SECONDS if grows else DISK_SECONDS, cut=not grows,
    )  # fmt: skip


def _run_script(
    ssh: Ssh, name: str, *arguments: str, stdin: bytes = b"", root: bool = False, seconds: float, cut: bool = True
) -> str:
    """Send the scripts and run one of them; returns its stdout, raises what it told as its error."""
    command = ["bash", "-c", RECEIVE, "larder", name, *arguments]
    called = " ".join([name, *arguments])
    ended = ssh.run(command, called=called, stdin=_archive(stdin), seconds=seconds, root=root, cut=cut)
    if ended.code:
        raise _error(ssh, name, ended.code, ended.stdout, ended.stderr)
    return ended.stdout


def _archive(stdin: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for script in sorted(SCRIPTS.glob("*.sh")):
            archive.add(script, script.name)
        entry = tarfile.TarInfo("input")
        entry.size, entry.mode = len(stdin), 0o600
        archive.addfile(entry, io.BytesIO(stdin))
    return stream.getvalue()


def _error(ssh: Ssh, name: str, code: int, stdout: str, stderr: str) -> LarderError:
    if "sudo:" in stderr and "password" in stderr:
        return ConfigurationError(
            f"{ssh}: sudo asks for a password there",
            next_step=f"give {ssh.address.user} sudo without one, as cloud images do",
        )
    told = re.search(r"^error: (.*)\n  next step: (.*)", stderr, re.MULTILINE)
    if told is None:
        last = "; ".join((stdout + stderr).strip().splitlines()[-3:])
        return ServiceError(
            f"{ssh}: {name} ended with code {code}: {last}",
            next_step="run the same command again: its steps may be repeated; if it stays so, run the script by hand",
        )
    before = "; ".join(line for line in stderr[: told.start()].strip().splitlines())
    what = f"{ssh.address.host}: {told[1]}" + (f" ({before})" if before else "")
    return ERRORS.get(code, ServiceError)(what, next_step=told[2])


def _tell(stdout: str, reporter: Reporter | None) -> None:
    """What a script did and found is for people, so it goes to stderr."""
    reporter = reporter or Reporter("provision", "json" if os.environ.get("LARDER_LOG") == "json" else "auto")
    for line in stdout.splitlines():
        reporter.event("host", line)
