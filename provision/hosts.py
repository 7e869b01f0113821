"""Setting up a server over SSH: sends `provision/host/*.sh`, runs them, reads what they print."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from provision.ssh import Ssh


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


@dataclass(frozen=True)
class HostSetup:
    """What a server is to have."""

    docker: bool
    rclone: bool
    tools: tuple[str, ...]
    """Debian packages: nload, htop."""
    repository: str | None
    """Address of a git repository to clone into the user's home."""
    revision: str | None
    """Branch, tag or commit; None is the repository's default branch."""


@dataclass(frozen=True)
class Look:
    """What stands on a disk."""

    state: str
    """absent: no such disk is there · blank · half-made: an interrupted formatting of ours · ready: a file system
    that can be mounted · mounted · foreign: data that we neither mount nor touch."""
    device: str
    """/dev/vdb; empty when absent."""
    size_bytes: int
    filesystem: str
    """ext4, or empty."""
    mounted_at: str
    used_bytes: int
    """Of the file system; 0 unless mounted."""
    users: tuple[str, ...]
    """Processes and containers that use it: "container jupyter", "process 4711 (bash)"."""
    evidence: tuple[str, ...]
    """What was found where, in words."""


def set_up(ssh: Ssh, wanted: HostSetup, disks: Sequence[Disk], formatted: Callable[[Disk], None]) -> None:
    """Bring the server to what is wanted; running it again changes nothing.

    `formatted(disk)` is called as soon as a disk that was `blank` has its file system, before anything is put on it,
    also when an interrupted run had formatted it: mark the volume then. Raises ServiceError when the connection is
    lost or a step fails (running again goes on), StorageError when a disk isn't what it should be.
    """
    raise NotImplementedError


def mount(ssh: Ssh, disk: Disk, formatted: Callable[[Disk], None]) -> None:
    """Prepare the disk if it is blank, and mount it, now and after each boot."""
    raise NotImplementedError


def unmount(ssh: Ssh, disk: Disk) -> None:
    """Unmount the disk and let Docker start without it; StorageError names who uses it."""
    raise NotImplementedError


def grow(ssh: Ssh, disk: Disk) -> None:
    """Extend partition and file system to the disk's size, `disk.gib`, while it is mounted."""
    raise NotImplementedError


def looks(ssh: Ssh, disk: Disk) -> Look:
    """What stands on the disk; reads only."""
    raise NotImplementedError
