"""Set up a server over SSH: send the scripts of `provision/host/`, run them, and read their output.

Every script can be run again after any interruption, and continues. The exit codes tell the kind of failure: 2 wrong
usage, 3 an unexpected disk or folder, 5 a remote failure.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from larder.errors import ConfigurationError, LarderError, ServiceError, StorageError
from larder.progress import Reporter
from provision import answers
from provision.ssh import SshClient

SCRIPTS = Path(__file__).with_name("host")
APPEAR_SECONDS = 60
"""Time for an attached disk to appear, and for a grown one to show its size."""
NFS_SECONDS = 60
"""Time for an NFS server to answer."""
INSTALL_SECONDS = 3600
"""Includes up to 20 minutes for a fresh image that is still initializing."""
DISK_SECONDS = 900
GROW_SECONDS = 4 * 3600
"""Time to wait for a growing file system. It must not be interrupted, so the command may run longer."""
ERRORS: dict[int, type[LarderError]] = {2: ConfigurationError, 3: StorageError}

# All scripts and the script's input arrive in one archive: if the connection is lost during the transfer, none runs.
# Hardened systems don't execute files in /tmp, so bash or Python reads the script.
RECEIVE = r"""
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -xzf - -C "$folder"
script=$folder/$1
shift
case $script in
*.py)
    command -v python3 >/dev/null || {
        printf 'error: Python is missing\n  next step: install python3 there, then run this again\n' >&2
        exit 2
    }
    set -- python3 -I "$script" "$@"
    ;;
*) set -- bash "$script" "$@" ;;
esac
"$@" <"$folder/input"
"""


@dataclass(frozen=True)
class Disk:
    """A volume as the server should have it."""

    serial: str
    """The volume's id; a virtio disk shows its first 20 characters."""
    gib: int
    mount: str
    """The mount point: /mnt/block."""
    blank: bool
    """Whether we created the volume blank and it isn't formatted yet. Only then may it be formatted."""

    def __post_init__(self) -> None:
        answers.validate_identifier(self.serial, "the id of a volume")


@dataclass(frozen=True)
class Export:
    """A share as the server should mount it."""

    id: str
    """The share's id, by which its line in fstab is found."""
    source: str
    """The NFS server and its path: 10.0.0.7:/shares/photos."""
    mount: str
    """The mount point: /mnt/share."""
    is_new: bool
    """Whether we created the share. Only then the user who logs in gets its top folder, while it is empty."""

    def __post_init__(self) -> None:
        answers.validate_identifier(self.id, "the id of a share")
        answers.validate_export(self.source, "the export of a share")


@dataclass(frozen=True)
class HostSetup:
    """What to install on a server."""

    docker: bool
    rclone: bool
    tools: tuple[str, ...]
    """Debian packages: nload, htop."""
    repository: str | None
    """URL of a git repository to clone into the user's home; the token in https://user:token@… isn't stored there."""
    revision: str | None
    """Branch, tag or commit; None means the default branch."""


def set_up(
    ssh: SshClient,
    setup: HostSetup,
    disks: Sequence[Disk],
    formatted: Callable[[Disk], None],
    reporter: Reporter | None = None,
    exports: Sequence[Export] = (),
) -> None:
    """Set up the server. Running it again changes nothing.

    `formatted(disk)` is called as soon as a `blank` disk has its file system, before anything is written to it, even if
    an interrupted run formatted it; it must mark the volume. Raises ServiceError if the connection is lost or a step
    fails (running again resumes), StorageError if a disk isn't as expected.
    """
    for disk in disks:  # before Docker, whose systemd unit waits for them
        mount(ssh, disk, formatted, reporter)
    for export in exports:
        mount_export(ssh, export, reporter)
    if setup.docker:
        report_output(
            run_script(ssh, "docker.sh", "--user", ssh.address.user, root=True, seconds=INSTALL_SECONDS), reporter
        )
    if setup.rclone:
        report_output(run_script(ssh, "rclone.sh", root=True, seconds=INSTALL_SECONDS), reporter)
    tools = [*setup.tools, *(["git", "ca-certificates"] if setup.repository else [])]
    if tools:
        report_output(run_script(ssh, "tools.sh", *dict.fromkeys(tools), root=True, seconds=INSTALL_SECONDS), reporter)
    if setup.repository:
        revision = ["--revision", setup.revision] if setup.revision else []
        # not as an argument, which every user there could read: it may hold a token
        address = setup.repository.encode()
        report = run_script(ssh, "repository.sh", "--url", "-", *revision, stdin=address, seconds=INSTALL_SECONDS)
        report_output(report, reporter)


def checkout_folder(repository: str) -> str:
    """Return the folder below the user's home into which repository.sh clones a repository."""
    return re.split("[/:]", repository.rstrip("/"))[-1].removesuffix(".git")


def write_keys(
    ssh: SshClient,
    keys: Mapping[str, Mapping[str, str]],
    *,
    repository: str | None,
    remote: str,
    stack: str,
    reporter: Reporter | None = None,
) -> None:
    """Write S3 keys to `.env` in the repository's checkout, if there is one, and to rclone's configuration.

    Args:
        ssh: The server.
        keys: The settings for `.env` as "settings", and those for rclone as "section". They go over standard input.
        repository: The URL of the repository that the server has a clone of.
        remote: Name of the section in rclone's configuration.
        stack: Name of the stack, for the names of copies.
        reporter: Reports what was done.
    """
    env_file = ["--env-file", f"{checkout_folder(repository)}/.env"] if repository else []
    options = ("--remote", remote, "--stack", stack, *env_file)
    text = json.dumps(keys).encode()
    report_output(run_script(ssh, "keys.py", *options, stdin=text, seconds=DISK_SECONDS), reporter)


def mount(ssh: SshClient, disk: Disk, formatted: Callable[[Disk], None], reporter: Reporter | None = None) -> None:
    """Format the disk if it is blank, and mount it, now and after each boot."""
    if disk.blank:
        report_output(
            _volume(ssh, "prepare", disk, "--gib", str(disk.gib), "--blank", seconds=APPEAR_SECONDS), reporter
        )
        formatted(disk)
    report_output(_volume(ssh, "mount", disk, "--gib", str(disk.gib), seconds=APPEAR_SECONDS), reporter)


def unmount(ssh: SshClient, disk: Disk, reporter: Reporter | None = None) -> None:
    """Unmount the disk, and let Docker start without it. Raises StorageError if a process uses it."""
    report_output(_volume(ssh, "unmount", disk, seconds=0), reporter)


def grow(ssh: SshClient, disk: Disk, reporter: Reporter | None = None) -> None:
    """Extend partition and file system to the disk's size, `disk.gib`. The disk may stay mounted and in use."""
    report_output(_volume(ssh, "grow", disk, "--gib", str(disk.gib), seconds=APPEAR_SECONDS), reporter)


def mount_export(ssh: SshClient, export: Export, reporter: Reporter | None = None) -> None:
    """Mount a share, now and after each boot. Raises ServiceError if its NFS server doesn't answer."""
    owner = ["--give-to", ssh.address.user] if export.is_new else []
    words = ("mount", "--export", export.source, "--mount", export.mount, "--id", export.id, *owner, *_wait_for_nfs())
    report_output(run_script(ssh, "share.py", *words, root=True, seconds=INSTALL_SECONDS), reporter)


def unmount_export(ssh: SshClient, id: str, mount: str, reporter: Reporter | None = None) -> None:
    """Unmount a share. Raises StorageError if a process uses it."""
    words = ("unmount", "--mount", mount, "--id", id, *_wait_for_nfs())
    report_output(run_script(ssh, "share.py", *words, root=True, seconds=DISK_SECONDS), reporter)


def _wait_for_nfs() -> tuple[str, str]:
    return "--wait", str(NFS_SECONDS)


def find_disk_users(ssh: SshClient, serial: str) -> list[str]:
    """Return how the server uses a disk: "mounted at /srv", "part of LVM's volume group data".

    The list is empty if the disk is free; a missing disk is reported in it, too. Changes nothing. Detaching a disk that
    is in use loses unwritten data.
    """
    answers.validate_identifier(serial, "the id of a volume")
    answer = run_script(ssh, "volume.py", "uses", "--serial", serial, root=True, seconds=DISK_SECONDS)
    try:
        return [str(use) for use in json.loads(answer)]
    except (ValueError, TypeError):
        raise ServiceError(
            f"{ssh}: volume.py uses answered something else than expected: {answer[:200]!r}",
            next_step="log in and run it by hand (provision/host/README.md)",
        ) from None


def _volume(ssh: SshClient, command: str, disk: Disk, *options: str, seconds: int) -> str:
    grows = command == "grow"
    return run_script(
        ssh,
        "volume.py",
        command,
        "--serial",
        disk.serial,
        "--mount",
        disk.mount,
        "--wait",
        str(seconds),
        *options,
        root=True,
        seconds=GROW_SECONDS if grows else DISK_SECONDS,
        cut=not grows,
    )


def run_script(
    ssh: SshClient,
    name: str,
    *arguments: str,
    stdin: bytes = b"",
    root: bool = False,
    seconds: float,
    cut: bool = True,
    errors: Mapping[int, type[LarderError]] = MappingProxyType({}),
) -> str:
    """Send the scripts, run one and return its stdout.

    Raises the error that the script reports. `errors` has the classes for exit codes that mean something else than in
    the other scripts.
    """
    command = ["bash", "-c", RECEIVE, "larder", name, *arguments]
    label = " ".join([name, *arguments])
    ended = ssh.run(command, label=label, stdin=_archive(stdin), seconds=seconds, root=root, cut=cut)
    if ended.code:
        raise _error(ssh, name, ended.code, ended.stdout, ended.stderr, errors)
    return ended.stdout


def _archive(stdin: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for script in sorted((*SCRIPTS.glob("*.sh"), *SCRIPTS.glob("*.py"))):
            archive.add(script, script.name)
        entry = tarfile.TarInfo("input")
        entry.size, entry.mode = len(stdin), 0o600
        archive.addfile(entry, io.BytesIO(stdin))
    return stream.getvalue()


def _error(
    ssh: SshClient, name: str, code: int, stdout: str, stderr: str, errors: Mapping[int, type[LarderError]]
) -> LarderError:
    if "sudo:" in stderr and "password" in stderr:
        return ConfigurationError(
            f"{ssh}: sudo asks for a password there",
            next_step=f"give {ssh.address.user} sudo without one, as cloud images do",
        )
    report = re.search(r"^error: (.*)\n  next step: (.*)", stderr, re.MULTILINE)
    if report is None:
        last = "; ".join((stdout + stderr).strip().splitlines()[-3:])
        return ServiceError(
            f"{ssh}: {name} ended with code {code}: {last}",
            next_step="run the same command again: its steps may be repeated; if it stays so, run the script by hand",
        )
    before = "; ".join(line for line in stderr[: report.start()].strip().splitlines())
    what = f"{ssh.address.host}: {report[1]}" + (f" ({before})" if before else "")
    return {**ERRORS, **errors}.get(code, ServiceError)(what, next_step=report[2])


def report_output(stdout: str, reporter: Reporter | None) -> None:
    """Report a script's output on stderr, since it is for users."""
    reporter = reporter or Reporter("provision", "json" if os.environ.get("LARDER_LOG") == "json" else "auto")
    for line in stdout.splitlines():
        reporter.event("host", line)
