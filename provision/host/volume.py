#!/usr/bin/env python3
"""Inspect, prepare, mount, unmount and grow a block volume on this server. Never format a disk that may hold data.

One file for Python 3.9 and newer, standard library only: it is sent over SSH, and works by hand. `decide` has the rules
by which a disk counts as blank, ours, mountable or somebody else's; it is a pure function of what `collect` found.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

USAGE = """\
volume.py COMMAND (--serial ID | --device PATH) [options]

  look      print as JSON what is on the disk; changes nothing
  uses      print as JSON how this server uses the disk, as a list (empty if unused); changes nothing
  prepare   give a blank disk a partition and ext4; leave a disk with a file system unchanged
  mount     prepare, then mount by UUID, now and at each boot (fstab, nofail); Docker then requires the mount
  unmount   undo `mount`: unmount, remove the line in fstab and Docker's requirement; refused while in use
  grow      extend partition and file system to the disk's size, also while it is mounted and in use

  --serial ID       the volume's id; disks show at least its first 20 characters as serial
  --device PATH     the disk by name
  --gib N           the size that the disk must have
  --mount DIR       default /mnt/block
  --blank           the volume was created blank and never formatted: allows formatting, if the disk is blank
  --owner UID:GID   owner of the folders workspace and docker-volumes in a new file system; default: the user of sudo
  --wait SECONDS    how long to wait for the disk or its new size; default 60 (look, uses and unmount: 0)
"""

OUR_NAME = "larder"  # name of the partition and label of the file system that this script creates
SERIAL_LETTERS = 20  # a virtio disk shows so many of its serial
GIB = 1 << 30
ENDS_BYTES = 16 << 20
SAMPLES = 512
SAMPLE_BYTES = 1 << 16
READ_BYTES = 1 << 20
ZEROS = bytes(READ_BYTES)

BLANK, HALF_MADE, READY, FOREIGN, UNREAD = "blank", "half-made", "ready", "foreign", "unread"
CHECK_DISK = "check the disk (dmesg), then run this again"

FSTAB = Path("/etc/fstab")
LOCK = Path("/run/larder-volume.lock")
LOCK_SECONDS = 300
SYSTEMD = Path("/run/systemd/system")


class VolumeError(Exception):
    """An error with its next step and exit code: 2 wrong usage, 3 an unexpected disk or folder, 5 a missing program."""

    def __init__(self, code: int, what: str, next_step: str) -> None:
        super().__init__(what)
        self.code, self.what, self.next_step = code, what, next_step


def fail(what: str, next_step: str) -> NoReturn:
    """Raise the error for a disk or folder in an unexpected state."""
    raise VolumeError(3, what, next_step)


def wrong_usage(what: str) -> NoReturn:
    """Raise the error for a wrong command line."""
    raise VolumeError(2, what, f"{os.path.basename(sys.argv[0])} --help lists commands and options")


def printable(text: str) -> str:
    """Return a text with control characters and the like escaped: labels on a disk are anybody's."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def say(line: str) -> None:
    """Print what was done. If the reader has gone, work that has begun goes on."""
    try:
        print(printable(line), flush=True)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


# --- the command line -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """The command line."""

    command: str
    serial: str = ""
    device: str = ""
    gib: int | None = None
    mount: str = "/mnt/block"
    blank: bool = False
    owner: tuple[int, int] = (0, 0)
    seconds: int = 0

    @property
    def short_serial(self) -> str:
        """The part of the serial that every disk shows."""
        return self.serial[:SERIAL_LETTERS]

    @property
    def fstab_mark(self) -> str:
        """What marks our line in /etc/fstab."""
        return self.serial or "by-hand"


def parse_options(words: Sequence[str], environment: dict[str, str]) -> Options:
    """Return the options. Raises VolumeError if a word or value is wrong."""
    if not words:
        wrong_usage("no command")
    command, *rest = words
    given = read_words(rest, ("--serial", "--device", "--gib", "--mount", "--owner", "--wait"), flags=("--blank",))
    if command not in COMMANDS:
        wrong_usage(f"unknown command '{command}'")
    owner = given.get("--owner", f"{environment.get('SUDO_UID', 0)}:{environment.get('SUDO_GID', 0)}")
    seconds = given.get("--wait", "0" if command in ("look", "uses", "unmount") else "60")
    check_values(given, owner, seconds)
    user, group = owner.split(":")
    return Options(
        command,
        serial=given.get("--serial", ""),
        device=given.get("--device", ""),
        gib=int(given["--gib"]) if "--gib" in given else None,
        mount=given.get("--mount", Options.mount),
        blank="--blank" in given,
        owner=(int(user), int(group)),
        seconds=int(seconds),
    )


def read_words(words: Sequence[str], options: Sequence[str], flags: Sequence[str] = ()) -> dict[str, str]:
    """Return the options with their values; a flag's is "yes"."""
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in flags:
            given[word] = "yes"
        elif word not in options:
            wrong_usage(f"unknown option {word}")
        elif not rest:
            wrong_usage(f"{word} lacks its value")
        else:
            given[word] = rest.pop(0)
    return given


def check_values(given: dict[str, str], owner: str, seconds: str) -> None:
    """Raise VolumeError if a value is wrong."""
    serial, device = given.get("--serial"), given.get("--device")
    gib, mount = given.get("--gib", "1"), given.get("--mount", Options.mount)
    if not serial and not device:
        wrong_usage("neither --serial nor --device")
    if serial and device:
        wrong_usage("both --serial and --device")
    if serial and len(serial) < SERIAL_LETTERS:
        wrong_usage(f"--serial {serial} is shorter than {SERIAL_LETTERS} characters")
    if not re.fullmatch(r"[1-9][0-9]*", gib):
        wrong_usage(f"--gib {gib} is no whole number of GiB")
    if not re.fullmatch(r"[0-9]+", seconds):
        wrong_usage(f"--wait {seconds} is no number of seconds")
    if not re.fullmatch(r"[0-9]+:[0-9]+", owner):
        wrong_usage(f"--owner {owner} is not UID:GID in numbers")
    check_path(mount)


def check_path(mount: str) -> None:
    """Raise VolumeError if a mount point isn't a folder's own path."""
    if not re.fullmatch(r"(/[A-Za-z0-9._-]+)+", mount):
        wrong_usage(f"--mount {mount} is no absolute path of plain letters")
    # systemd ignores a RequiresMountsFor= with such a path: Docker would start without the volume
    if {".", ".."} & set(mount.split("/")):
        wrong_usage(f"--mount {mount} has the name . or .. in it: give the folder's own path")


# --- programs, and their output ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """Its last words, in one line."""
        return "; ".join((self.stdout + self.stderr).strip().splitlines()[-5:])


def run(*argv: str, stdin: str = "") -> Ended:
    """Run a program.

    If this script is killed, the program goes on undisturbed: its input and output are files, which nobody closes. It
    inherits the lock, so that the next script waits until mkfs or sfdisk have ended, too.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(stdin.encode())
        given.seek(0)
        try:
            code = subprocess.call(argv, stdin=given, stdout=out, stderr=err, close_fds=False)
        except FileNotFoundError:
            install = "install util-linux and e2fsprogs, then run this again"
            raise VolumeError(5, f"{argv[0]} is missing here", install) from None
        out.seek(0)
        err.seek(0)
        return Ended(code, os.fsdecode(out.read()), os.fsdecode(err.read()))


def require(*argv: str, stdin: str = "", next_step: str = CHECK_DISK) -> str:
    """Run a program that must succeed, and return its output."""
    ended = run(*argv, stdin=stdin)
    if ended.code:
        fail(f"`{' '.join(argv)}` failed: {ended.said or f'exit code {ended.code}'}", next_step)
    return ended.stdout


def parse_json(text: str) -> dict[str, Any]:
    """Return a program's JSON; some print nothing if they have nothing to list."""
    try:
        parsed = json.loads(text) if text.strip() else {}
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        fail(f"something else than JSON was printed: {text.strip()[:200]!r}", "update util-linux, or do it by hand")
    return parsed


def flatten(nodes: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of lsblk's and findmnt's trees, parents first."""
    for node in nodes:
        yield node
        yield from flatten(node.get("children") or ())


@dataclass(frozen=True)
class Disk:
    """A block device as lsblk shows it."""

    path: str
    serial: str
    size: int
    """In bytes."""
    sector: int
    """In bytes."""
    read_only: bool
    kind: str
    """disk, part, loop, …"""

    def __str__(self) -> str:
        return f"{self.path} (serial {self.serial or '-'}, {words(self.size)})"


DISK_COLUMNS = "PATH,SERIAL,SIZE,LOG-SEC,RO,TYPE"


def parse_disks(text: str) -> list[Disk]:
    """Return lsblk's devices. Older releases print numbers and truth values as strings."""
    return [
        Disk(
            path=str(node["path"]),
            serial=str(node["serial"] or "").strip(),
            size=int(node["size"]),
            sector=int(node["log-sec"]),
            read_only=node["ro"] in (True, 1, "1"),
            kind=str(node["type"]),
        )
        for node in parse_json(text).get("blockdevices", ())
    ]


@dataclass(frozen=True)
class Probe:
    """What blkid and wipefs recognize on a device; each tool misses some. "" if there is none."""

    table: str = ""
    """The kind of partition table: gpt, dos, …"""
    type: str = ""
    """The kind of file system, RAID, …; ambivalent if there are several."""
    uuid: str = ""
    label: str = ""
    name: str = ""
    """The partition's name."""
    signatures: tuple[str, ...] = ()
    """Each with its place: "ext4 at byte 1080"."""

    @property
    def is_empty(self) -> bool:
        """Return whether nothing was recognized."""
        return not (self.table or self.type or self.signatures)


def parse_probe(fields: str, code: int, signatures: str) -> Probe:
    """Return what blkid (its fields as NAME=value and its exit code) and wipefs (JSON) recognized."""
    found = dict(line.split("=", 1) for line in fields.splitlines() if "=" in line)
    places = [(str(item["type"]), int(item["offset"], 16)) for item in parse_json(signatures).get("signatures", ())]
    tables = [kind for kind, _ in places if kind in ("gpt", "dos")]
    return Probe(
        table=found.get("PTTYPE") or next(iter(tables), ""),
        type="ambivalent" if code == AMBIVALENT else found.get("TYPE", ""),
        uuid=found.get("UUID", ""),
        label=re.sub(r"\\(.)", r"\1", found.get("LABEL", "")),
        name=found.get("PART_ENTRY_NAME", ""),
        signatures=tuple(f"{kind} at byte {offset}" for kind, offset in places),
    )


NOTHING_FOUND, AMBIVALENT = 2, 8
"""Exit codes of blkid. blkid itself prints no JSON: of all its formats, `export` is the one for programs."""


def probe(device: str) -> Probe:
    """Return what blkid and wipefs recognize on a device."""
    fields = run("blkid", "--probe", "--output", "export", device)
    signatures = run("wipefs", "--json", "--output", "TYPE,OFFSET", device)
    for ended, allowed in ((fields, (0, NOTHING_FOUND, AMBIVALENT)), (signatures, (0,))):
        if ended.code not in allowed:
            fail(f"{device} can't be read: {ended.said}", CHECK_DISK)
    return parse_probe(fields.stdout, fields.code, signatures.stdout)


@dataclass(frozen=True)
class Partition:
    """A partition, as the kernel knows it or as the table on the disk has it."""

    path: str
    start: int
    """In bytes."""
    size: int
    """In bytes."""


def parse_table(text: str) -> tuple[Partition, ...]:
    """Return the partitions in sfdisk's JSON."""
    table = parse_json(text).get("partitiontable", {})
    sector = int(table.get("sectorsize", 512))  # older releases only know this size
    return tuple(
        Partition(str(item["node"]), int(item["start"]) * sector, int(item["size"]) * sector)
        for item in table.get("partitions", ())
    )


def written_partitions(device: str) -> tuple[Partition, ...] | None:
    """Return the partitions in the table on the disk, or None where sfdisk isn't installed."""
    if not shutil.which("sfdisk"):
        return None
    ended = run("sfdisk", "--json", device)
    return parse_table(ended.stdout) if ended.code == 0 else ()


def words(size: int) -> str:
    """Return a size for people, rounded up: "1.0GiB", "100GiB"."""
    power = min(max(size.bit_length() - 1, 0) // 10, 6)
    tenths = -(-size * 10 // 1024**power)
    number = f"{tenths / 10:.1f}" if power and tenths < 100 else str(-(-tenths // 10))
    return number + ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")[power]


# --- finding the disk -------------------------------------------------------------------------------------------------


def describe(device: str) -> Disk:
    """Return a device's present size and state."""
    return parse_disks(require("lsblk", "--json", "--bytes", "--nodeps", "--output", DISK_COLUMNS, device))[0]


def all_disks() -> list[Disk]:
    """Return the disks of this server."""
    listed = require("lsblk", "--json", "--bytes", "--nodeps", "--output", DISK_COLUMNS)
    return [disk for disk in parse_disks(listed) if disk.kind == "disk"]


def list_disks() -> str:
    """Return the disks of this server in words."""
    return ", ".join(map(str, all_disks())) or "none"


def matches(disk: Disk, serial: str) -> bool:
    """Return whether a disk shows this serial, or at least its beginning."""
    return serial == disk.serial or (len(disk.serial) >= SERIAL_LETTERS and serial.startswith(disk.serial))


def find_disk(options: Options) -> Disk | None:
    """Return the disk, or None if it doesn't appear in time."""
    if options.device:
        if not is_block_device(options.device):
            fail(f"{options.device} is no block device", "lsblk shows what there is")
        return describe(os.path.realpath(options.device))  # /dev/disk/by-id/…
    end = time.monotonic() + options.seconds
    while not (found := [disk for disk in all_disks() if matches(disk, options.serial)]):
        if time.monotonic() >= end:
            return None
        time.sleep(0.5)
    if len(found) > 1:
        fail(
            f"more than one disk has the serial {options.short_serial}: {', '.join(disk.path for disk in found)}",
            "detach the one that doesn't belong here",
        )
    return found[0]


def need_disk(options: Options) -> Disk:
    """Return the disk. Raises VolumeError if it doesn't appear in time."""
    if disk := find_disk(options):
        return disk
    what = f"after {options.seconds} s there is no disk with the serial {options.short_serial}"
    fail(
        f"{what}; disks here: {list_disks()}",
        "check that the volume is attached to this server; detach and attach it again if the cloud says so",
    )


def is_block_device(path: str) -> bool:
    """Return whether a path, or the target of a link, is a block device."""
    try:
        return stat.S_ISBLK(os.stat(path).st_mode)
    except OSError:
        return False


def check_size(disk: Disk, gib: int | None) -> None:
    """Raise VolumeError if the disk hasn't the declared size."""
    if gib is not None and disk.size != gib * GIB:
        fail(
            f"{disk.path} has {disk.size} bytes ({words(disk.size)}), declared are {gib} GiB ({gib * GIB} bytes); "
            "nothing was changed",
            "correct the declared size, or grow the volume in the cloud and here (grow), or check that it is the right "
            "volume",
        )


# --- what is on it: reading -------------------------------------------------------------------------------------------


def ranges_to_read(size: int, edge: int = 0) -> list[tuple[int, int]]:
    """Return the ranges, as first byte and length, that must hold zeros on a blank device of `size` bytes.

    They are the first and last 16 MiB, where file systems, partition tables, LVM, RAID, LUKS and ZFS have what they are
    recognized by, and 511 samples of 64 KiB at equal distances between. `edge` bytes are skipped at either end.
    """
    tail = max(size - ENDS_BYTES, 0)
    wanted = [(0, ENDS_BYTES), (tail, size - tail), *((tail * at // SAMPLES, SAMPLE_BYTES) for at in range(1, SAMPLES))]
    clipped = [(max(first, edge), min(first + length, size - edge)) for first, length in wanted]
    return [(first, end - first) for first, end in clipped if first < end]


def first_data(device: str, edge: int = 0) -> int | None:
    """Return the position of the first byte in `ranges_to_read` that isn't zero, or None."""
    with reading(device) as file:
        for first, length in ranges_to_read(os.lseek(file, 0, os.SEEK_END), edge):
            if (at := first_in_range(file, first, length)) is not None:
                return at
    return None


@contextmanager
def reading(device: str) -> Iterator[int]:
    """Open a device for reading from the disk, not from the cache. One that can't be read must not count as empty."""
    try:
        file = os.open(device, os.O_RDONLY)
        try:
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            yield file
        finally:
            os.close(file)
    except OSError as error:
        fail(f"{device} can't be read: {error.strerror}", CHECK_DISK)


def first_in_range(file: int, first: int, length: int) -> int | None:
    """Return the position of the first byte in a range that isn't zero, or None."""
    for at in range(first, first + length, READ_BYTES):
        block = read_exactly(file, at, min(READ_BYTES, first + length - at))
        if block != ZEROS[: len(block)]:
            return at + len(block) - len(block.lstrip(b"\0"))
    return None


def read_exactly(file: int, at: int, length: int) -> bytes:
    """Return bytes of a device. Raises OSError if it ends before."""
    block = b""
    while len(block) < length:
        piece = os.pread(file, length - len(block), at + len(block))
        if not piece:
            raise OSError(errno.EIO, f"it ends at byte {at + len(block)}, too early")
        block += piece
    return block


LIST_BYTES = 16384
"""Length of each of the two lists of partitions of a GPT."""
LINUX_PARTITION = bytes.fromhex("af3dc60f838472478e793d69d8477de4")


@dataclass(frozen=True)
class TableParts:
    """Where a GPT has its parts (UEFI 2.10, 5.3): the first sector, two headers and two lists of partitions."""

    first_sector: bytes
    headers: tuple[bytes, bytes]
    lists: tuple[bytes, bytes]
    before_last_list: bytes
    """The sector on the data's side of the last list; on the other end, the first list ends with a sector."""


def read_table_parts(disk: Disk) -> TableParts:
    """Read the places of a GPT's parts."""
    size, sector = disk.size, disk.sector
    with reading(disk.path) as file:
        return TableParts(
            read_exactly(file, 0, sector),
            (read_exactly(file, sector, sector), read_exactly(file, size - sector, sector)),
            (read_exactly(file, 2 * sector, LIST_BYTES), read_exactly(file, size - sector - LIST_BYTES, LIST_BYTES)),
            read_exactly(file, size - 2 * sector - LIST_BYTES, sector),
        )


def is_unfinished_table(parts: TableParts) -> bool:
    """Return whether the parts are what a killed `make_partition` leaves.

    Each header and list must be empty or ours. Only the partition has our name, so at least one list must exist. The
    first sector, which is written last, must be empty.
    """
    lists = [part for part in parts.lists if any(part)]
    return (
        bool(lists)
        and all(map(is_our_list, lists))
        and all(is_header(part) for part in parts.headers if any(part))
        and not any(parts.first_sector)
        and not any(parts.before_last_list)
    )


def is_our_list(part: bytes) -> bool:
    """Return whether a list of partitions has one Linux partition, with our name and without flags."""
    kind, flags, name, rest = struct.unpack(f"<16s32x8s72s{LIST_BYTES - 128}s", part)
    return bool(
        kind == LINUX_PARTITION and name == OUR_NAME.encode("utf-16le").ljust(72, b"\0") and not any(flags + rest)
    )


def is_header(part: bytes) -> bool:
    """Return whether a sector has the header of a GPT, and nothing behind it."""
    return part.startswith(b"EFI PART") and not any(part[92:])


# --- what is on it: the decision --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evidence:
    """All that is known about a disk."""

    path: str
    whole: Probe
    """What is recognized on the whole disk."""
    partitions: tuple[Partition, ...] = ()
    """Those that the kernel knows."""
    holders: tuple[str, ...] = ()
    """What the kernel has built on it: LVM, RAID, an encrypted disk."""
    held: bool = False
    """Whether somebody holds it exclusively: a file system, swap, LVM, RAID or another."""
    is_partition: bool = False
    unfinished_table: bool = False
    """Whether it has nothing but what a killed `make_partition` leaves, and zeros in the rest of `ranges_to_read`."""
    part: Probe = Probe()
    """What is recognized on its only partition."""
    written: tuple[Partition, ...] | None = None
    """The partitions in the table on the disk; None if sfdisk isn't there to tell."""
    is_read: bool = False
    """Whether `ranges_to_read` were read, of the only partition or else of the disk."""
    data_at: int | None = None
    """The first byte there that isn't zero."""


@dataclass(frozen=True)
class Verdict:
    """What a disk is, and why."""

    state: str
    """BLANK; HALF_MADE (by an interrupted run of this script); READY (to be mounted); FOREIGN (data that this script
    neither mounts nor changes); UNREAD (nothing was recognized, so the place must be read)."""
    place: str
    """The device with the file system, now or later."""
    found: Probe
    """What is recognized there."""
    reasons: tuple[str, ...]


def decide(evidence: Evidence) -> Verdict:
    """Return what a disk is. Only a BLANK or HALF_MADE one may be formatted."""
    path, whole = evidence.path, evidence.whole
    if evidence.unfinished_table:
        reason = f"{path}: what an interrupted partitioning of ours has left, and zeros elsewhere"
        return Verdict(HALF_MADE, path, whole, (reason,))
    if whole.table:
        return decide_by_partitions(evidence)
    if not whole.is_empty:
        return decide_by_file_system(path, whole)
    parts = [*(partition.path for partition in evidence.partitions), *evidence.holders]
    for is_so, reason in (
        (parts, f"no signature, but the kernel knows parts of it: {' '.join(parts)}"),
        (evidence.held, "no signature, but it is in use"),
        (evidence.is_partition, "no signature, but it is a partition: only a whole disk is formatted"),
    ):
        if is_so:
            return Verdict(FOREIGN, path, whole, (f"{path}: {reason}",))
    return decide_by_content(evidence, BLANK, path, whole, ())


def decide_by_partitions(evidence: Evidence) -> Verdict:
    """Return what a disk with a partition table is."""
    path, table, partitions = evidence.path, evidence.whole.table, evidence.partitions
    if len(partitions) != 1:
        names = "".join(f" {partition.path}" for partition in partitions)
        reason = f"{path}: a partition table ({table}) with {len(partitions)} partitions{':' if names else ''}{names}"
        return Verdict(FOREIGN, path, evidence.whole, (reason,))
    [partition], part = partitions, evidence.part
    reasons: tuple[str, ...] = (f"{path}: a partition table ({table}) with one partition",)
    if part.name:
        reasons += (f"{partition.path}: its name is '{part.name}'",)
    if not part.is_empty:
        verdict = decide_by_file_system(partition.path, part)
        return replace(verdict, reasons=reasons + verdict.reasons)
    for is_so, reason in (
        (part.name != OUR_NAME, "no signature, but the partition isn't of our making"),
        (differs(evidence.written, partitions), "no signature, but the table on the disk has other partitions"),
        (evidence.holders or evidence.held, "no signature, but it is in use"),
    ):
        if is_so:
            return Verdict(FOREIGN, partition.path, part, (*reasons, f"{partition.path}: {reason}"))
    return decide_by_content(evidence, HALF_MADE, partition.path, part, reasons)


def differs(written: tuple[Partition, ...] | None, known: tuple[Partition, ...]) -> bool:
    """Return whether the table on the disk, as far as it can be read, has other partitions than the kernel knows."""
    return written is not None and [(one.start, one.size) for one in written] != [
        (one.start, one.size) for one in known
    ]


def decide_by_file_system(place: str, found: Probe) -> Verdict:
    """Return what a device is on which something was recognized: only one ext4 alone can be mounted."""
    label = f", label '{found.label}'" if found.label else ""
    uuid = f", UUID {found.uuid}" if found.uuid else ""
    reason = f"{place}: {found.type or 'unknown'}{label}{uuid} ({' '.join(found.signatures) or 'no signature'})"
    is_ready = found.type == "ext4" and found.uuid and not found.table
    return Verdict(READY if is_ready else FOREIGN, place, found, (reason,))


def decide_by_content(evidence: Evidence, state: str, place: str, found: Probe, reasons: tuple[str, ...]) -> Verdict:
    """Return what a device is on which nothing was recognized: `state` if it holds zeros where it was read."""
    if not evidence.is_read:
        return Verdict(UNREAD, place, found, reasons)
    if evidence.data_at is not None:
        return Verdict(
            FOREIGN, place, found, (*reasons, f"{place}: data without a signature, at byte {evidence.data_at}")
        )
    zeros = f"{place}: no signature, and zeros in its first and last 16 MiB and in {SAMPLES - 1} samples between"
    return Verdict(state, place, found, (*reasons, zeros))


def inspect(disk: Disk) -> Verdict:
    """Return what a disk is. Only reads, but has the kernel read a partition table that it doesn't know yet."""
    evidence = collect(disk)
    verdict = decide(evidence)
    if verdict.state == UNREAD:
        verdict = decide(replace(evidence, is_read=True, data_at=first_data(verdict.place)))
    return verdict


def collect(disk: Disk) -> Evidence:
    """Return the evidence, without the content of a device on which nothing is recognized."""
    path, whole = disk.path, probe(disk.path)
    evidence = Evidence(
        path, whole, kernel_partitions(path), list_holders(path), is_held(path), (sysfs(path) / "partition").exists()
    )
    if is_half_written(disk, evidence):
        return replace(evidence, unfinished_table=True)
    if whole.table:
        partitions = await_partitions(path)
        part = probe(partitions[0].path) if len(partitions) == 1 else Probe()
        return replace(evidence, partitions=partitions, part=part, written=written_partitions(path))
    return evidence


def is_half_written(disk: Disk, evidence: Evidence) -> bool:
    """Return whether a disk that nobody uses has nothing but an unfinished table of `make_partition`."""
    if evidence.partitions or evidence.holders or evidence.held or evidence.is_partition:
        return False
    table_bytes = 2 * disk.sector + LIST_BYTES
    return (
        disk.size > 2 * (table_bytes + disk.sector)
        and is_unfinished_table(read_table_parts(disk))
        and first_data(disk.path, edge=table_bytes) is None
    )


def sysfs(device: str) -> Path:
    """Return the kernel's folder for a device."""
    return Path("/sys/class/block", device.replace("/dev/", "", 1).replace("/", "!"))


def kernel_partitions(device: str) -> tuple[Partition, ...]:
    """Return the partitions that the kernel knows. sysfs knows them where no udev runs, too."""
    folders = sorted(sysfs(device).glob("*/partition"), key=lambda file: int(file.read_text()))
    return tuple(
        Partition(
            f"/dev/{folder.name.replace('!', '/')}", read_sectors(folder / "start"), read_sectors(folder / "size")
        )
        for folder in (file.parent for file in folders)
    )


def read_sectors(file: Path) -> int:
    """Return a number of sectors in bytes; in sysfs, a sector has 512 bytes on every disk."""
    return int(file.read_text()) * 512


def list_holders(device: str) -> tuple[str, ...]:
    """Return what the kernel has built on a device."""
    try:
        return tuple(sorted(os.listdir(sysfs(device) / "holders")))
    except FileNotFoundError:
        return ()


def is_held(device: str) -> bool:
    """Return whether somebody holds a device exclusively; the kernel lets one do so."""
    try:
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL))
    except OSError as error:
        if error.errno != errno.EBUSY:
            fail(f"{device} can't be opened: {error.strerror}", CHECK_DISK)
        return True
    return False


def await_partitions(device: str) -> tuple[Partition, ...]:
    """Return the partitions that the kernel knows. After an interrupted partitioning, it has to read them first."""
    if not kernel_partitions(device):
        run("partx", "--update", device)  # fails if the table has no partitions
        settle()
    partitions = kernel_partitions(device)
    wait_until(lambda: all(is_block_device(partition.path) for partition in partitions), 5)  # /dev may lag
    return partitions


def wait_until(is_so: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition, and return whether it came true in time."""
    end = time.monotonic() + seconds
    while not (met := is_so()) and time.monotonic() < end:
        time.sleep(0.1)
    return met


def settle() -> None:
    """Wait until udev has made the links and nodes of new devices."""
    if os.path.isdir("/run/udev"):
        run("udevadm", "settle", "--timeout=10")


# --- where it is mounted, and who uses it -----------------------------------------------------------------------------


def list_mounts(*arguments: str) -> list[dict[str, Any]]:
    """Return findmnt's answer; the list is empty if nothing is found."""
    answer = run("findmnt", "--json", "--output", "SOURCE,TARGET,OPTIONS", *arguments)
    return list(flatten(parse_json(answer.stdout).get("filesystems", ())))


def mount_points(place: str) -> list[str]:
    """Return where a device is mounted; Docker mounts folders of it for its volumes."""
    return [str(item["target"]) for item in list_mounts("--source", place)]


def mounted_at(mount: str) -> str:
    """Return what is mounted at a mount point, or ""."""
    return ", ".join(str(item["source"]) for item in list_mounts("--mountpoint", mount))


def is_mounted_at(place: str, mount: str) -> bool:
    """Return whether a device is mounted at a mount point."""
    source = mounted_at(mount)
    return bool(source) and os.path.realpath(source) == os.path.realpath(place)


def processes() -> list[int]:
    """Return the numbers of all processes."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def name_of(process: int) -> str:
    """Return a process in words."""
    try:
        return f"process {process} ({Path(f'/proc/{process}/comm').read_text(errors='replace').strip()})"
    except OSError:  # it has ended
        return f"process {process}"


def sees(process: int, place: str) -> bool:
    """Return whether a process has a device mounted, maybe in a namespace of its own."""
    number = os.stat(place).st_rdev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    try:
        lines = Path(f"/proc/{process}/mountinfo").read_text(errors="replace").splitlines()
    except OSError:  # it has ended
        return False
    return any(line.split()[2] == wanted for line in lines)


def mounted_by(place: str) -> str:
    """Return the first process that has a device mounted, or ""."""
    return next((name_of(process) for process in processes() if sees(process, place)), "")


def list_users(place: str, mount: str) -> list[str]:
    """Return who uses a mounted device: containers first, by the mounts that they see."""
    inside = [f"container {name}" for process, name in containers() if sees(process, place)]
    number = os.stat(mount).st_dev
    return inside + [name_of(process) for process in processes() if has_open(process, number)]


def has_open(process: int, number: int) -> bool:
    """Return whether a process has its folder, its program or an open file on a file system."""
    folder = f"/proc/{process}"
    try:
        links = [
            f"{folder}/{name}" for name in ("cwd", "root", "exe", *(f"fd/{fd}" for fd in os.listdir(f"{folder}/fd")))
        ]
    except OSError:  # it has ended
        return False
    return any(device_of(link) == number for link in links)


def device_of(link: str) -> int | None:
    """Return the number of the file system that a file is on, or None if it is gone."""
    try:
        return os.stat(link).st_dev
    except OSError:
        return None


def containers() -> list[tuple[int, str]]:
    """Return process and name of Docker's running containers. Where no engine runs, no container does."""
    ids = run("docker", "ps", "--quiet").stdout.split() if shutil.which("docker") else []
    if not ids:
        return []
    listed = json.loads(run("docker", "inspect", *ids).stdout or "[]")
    return [(int(item["State"]["Pid"]), str(item["Name"]).lstrip("/")) for item in listed]


def list_uses(disk: Disk) -> list[str]:
    """Return how the server uses a disk, its partitions and everything built on them."""
    # a disk that can't be inspected must not count as unused
    tree = run("lsblk", "--json", "--output", "PATH,TYPE", disk.path)
    if tree.code:
        fail(f"what uses {disk.path} can't be seen: {tree.said}", f"lsblk {disk.path} shows why")
    nodes = flatten(parse_json(tree.stdout).get("blockdevices", ()))
    uses = {use for node in nodes for use in list_uses_of(str(node["path"]), str(node["type"]))}
    if not uses and is_held(disk.path):
        return ["in use, but lsblk doesn't show by what"]
    return sorted(uses)


def list_uses_of(path: str, kind: str) -> list[str]:
    """Return how the server uses one device. lsblk gets these types from sysfs, and has users of a disk below it."""
    uses = describe_holder(path, kind)
    targets = mount_points(path)
    uses += [f"mounted at {target}" for target in targets]
    if not targets and (who := mounted_by(path)):
        uses.append(f"mounted by {who}, in a namespace of its own")
    if os.path.realpath(path) in (line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()):
        uses.append("swap")
    return uses + [f"part of LVM's volume group {group}" for group in volume_groups(path)]


def describe_holder(path: str, kind: str) -> list[str]:
    """Return how a device uses the one below it, by lsblk's type."""
    if kind in ("disk", "part", "loop", "lvm"):
        return []
    if kind.startswith("raid"):
        return [f"part of the RAID {path}"]
    return [f"opened as {path} (dm-crypt)" if kind == "crypt" else f"held by {path} ({kind})"]


def volume_groups(path: str) -> list[str]:
    """Return the LVM group of a device, if it has one. Without LVM's tools, LVM isn't in use."""
    if not shutil.which("pvs"):
        return []
    answer = run("pvs", "--readonly", "--reportformat", "json", "--options", "vg_name", path)
    rows = parse_json(answer.stdout).get("report", [{}])[0].get("pv", ()) if answer.code == 0 else ()
    return [str(row["vg_name"]) for row in rows if row["vg_name"]]


# --- /etc/fstab, and Docker's unit ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FstabLine:
    """A line of /etc/fstab."""

    text: str

    @property
    def fields(self) -> list[str]:
        """Its fields; a comment has none."""
        return [] if self.text.lstrip().startswith("#") else self.text.split()

    @property
    def mark(self) -> str | None:
        """The mark of a line of ours: the volume's serial, or by-hand. None if it isn't ours."""
        options = self.fields[3].split(",") if len(self.fields) > 3 else []
        return next((option.split("=", 1)[1] for option in options if option.startswith("x-larder=")), None)

    def is_at(self, mount: str) -> bool:
        """Return whether it is for a mount point."""
        return len(self.fields) > 1 and self.fields[1].startswith("/") and os.path.normpath(self.fields[1]) == mount

    def is_of(self, uuid: str) -> bool:
        """Return whether it names a file system by this UUID."""
        return bool(uuid) and self.fields[:1] == [f"UUID={uuid}"]


def read_fstab() -> list[FstabLine]:
    """Return the lines of /etc/fstab."""
    text = FSTAB.read_text(encoding="utf-8", errors="surrogateescape")
    return [FstabLine(line) for line in text.split("\n")[: -1 if text.endswith("\n") else None] if text]


def our_line(options: Options, uuid: str) -> str:
    """Return our line. 90 s: a busy server may find its disks late, and Docker doesn't start without the volume."""
    mark = f"x-larder={options.fstab_mark}"
    return f"UUID={uuid} {options.mount} ext4 defaults,nofail,x-systemd.device-timeout=90s,{mark} 0 2"


def without_ours(lines: Iterable[FstabLine], mount: str, uuid: str) -> list[FstabLine]:
    """Return the lines but those of ours for a mount point or a file system.

    A line of ours for a former mount point would prevent Docker from starting after the volume is removed.
    """
    return [line for line in lines if line.mark is None or not (line.is_at(mount) or line.is_of(uuid))]


def replace_fstab(lines: Iterable[FstabLine]) -> None:
    """Replace /etc/fstab atomically, with owner and mode."""
    new = FSTAB.with_name("fstab.larder")
    shutil.copy2(FSTAB, new)
    os.chown(new, FSTAB.stat().st_uid, FSTAB.stat().st_gid)
    with new.open("w", encoding="utf-8", errors="surrogateescape") as file:
        file.writelines(f"{line.text}\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    new.replace(FSTAB)
    reload_systemd()


def write_fstab(options: Options, place: str, uuid: str) -> None:
    """Put our line into /etc/fstab, unless somebody else's is for this device or mount point."""
    lines, ours = read_fstab(), our_line(options, uuid)
    # findmnt resolves UUID=, LABEL= and links
    of_device = [" ".join(map(str, item.values())) for item in list_mounts("--fstab", "--evaluate", "--source", place)]
    of_mount = [line.text for line in lines if line.is_at(options.mount)]
    for text in (*of_device, *of_mount):
        if "x-larder=" not in text:
            fail(
                f"/etc/fstab has a line of somebody else for {place} or {options.mount}: {text}",
                "remove that line, or choose another mount point",
            )
    if ours in [line.text for line in lines]:
        say("found it in /etc/fstab")
        return
    replace_fstab([*without_ours(lines, options.mount, uuid), FstabLine(ours)])
    say("wrote it to /etc/fstab")


def reload_systemd() -> None:
    """Have systemd read /etc/fstab and its units again."""
    if SYSTEMD.is_dir():
        require("systemctl", "daemon-reload")


def escape_path(path: str) -> str:
    """Return a path as systemd names its units (systemd-escape --path)."""
    name = "".join(
        letter if letter.isalnum() or letter in "/:_." else f"\\x{ord(letter):02x}" for letter in path.strip("/")
    )
    return re.sub(r"^\.", r"\\x2e", name).replace("/", "-")


def docker_unit(mount: str) -> Path:
    """Return the file that has Docker require a mount point."""
    return Path(f"/etc/systemd/system/docker.service.d/larder-{escape_path(mount)}.conf")


def write_docker_unit(mount: str) -> None:
    """Have Docker require the mount: else it starts without the volume, and containers write to the root disk."""
    path, text = docker_unit(mount), f"[Unit]\nRequiresMountsFor={mount}\n"
    if path.exists() and path.read_text() == text:
        say("found Docker's unit requiring it")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        reload_systemd()
        say("had Docker's unit require it")
    check_docker_unit(mount)


def check_docker_unit(mount: str) -> None:
    """Raise VolumeError if systemd runs Docker and doesn't know of the mount that it requires."""
    if docker_requires(mount) is False:
        reload_systemd()  # a run that was killed may not have come to this
    if docker_requires(mount) is False:
        fail(
            f"Docker's unit doesn't require {mount}, though {docker_unit(mount)} says so",
            "systemctl cat docker shows what counts; until it does, stop Docker before you detach the volume",
        )


def docker_requires(mount: str) -> bool | None:
    """Return whether Docker's unit requires a mount, according to systemd; None if systemd runs no Docker."""
    if not SYSTEMD.is_dir():
        return None
    shown = require("systemctl", "show", "docker.service", "--property=LoadState,RequiresMountsFor")
    fields = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    return mount in fields.get("RequiresMountsFor", "").split() if fields.get("LoadState") == "loaded" else None


# --- commands ---------------------------------------------------------------------------------------------------------


def look(options: Options) -> None:
    """Print what is on the disk. States: absent, mounted, and those of Verdict.

    "users" and "used_bytes" are only set if it is mounted.
    """
    disk = find_disk(options)
    if disk is None:
        print_look("absent", "", 0, "", "", 0, [], [f"disks here: {list_disks()}"])
        return
    verdict = inspect(disk)
    points = mount_points(verdict.place)
    target = options.mount if is_mounted_at(verdict.place, options.mount) else next(iter(points), "")
    used, users = 0, []
    if target:
        figures = os.statvfs(target)
        used = (figures.f_blocks - figures.f_bfree) * figures.f_frsize
        users = list_users(verdict.place, target)
    state = "mounted" if target and verdict.state == READY else verdict.state
    print_look(state, disk.path, disk.size, verdict.found.type, target, used, users, list(verdict.reasons))


def print_look(
    state: str, device: str, size: int, kind: str, target: str, used: int, users: list[str], evidence: list[str]
) -> None:
    """Print what `look` found."""
    fields = {
        "state": state,
        "device": device,
        "size_bytes": size,
        "filesystem": kind,
        "mounted_at": target,
        "used_bytes": used,
        "users": users,
        "evidence": evidence,
    }
    say(json.dumps(fields))


def uses(options: Options) -> None:
    """Print how the server uses the disk."""
    disk = find_disk(options)
    missing = [f"not to be found on this server by its serial {options.short_serial}"]
    say(json.dumps(list_uses(disk) if disk else missing))


def prepare(options: Options) -> Verdict:
    """Give a blank disk its file system. Return the verdict on a disk that is ready to be mounted."""
    disk = need_disk(options)
    check_size(disk, options.gib)
    verdict = inspect(disk)
    if verdict.state == READY:
        check_keeping(options, disk, verdict)
        say(f"found ext4 on {verdict.place}, and left it as it is")
        return verdict
    require_formattable(options, disk, verdict)
    if install_programs():  # which takes minutes
        verdict = inspect(disk)
        require_formattable(options, disk, verdict)
    place = verdict.place if verdict.place != disk.path else make_partition(disk)
    make_file_system(place, options.owner)
    return Verdict(READY, place, probe(place), ())


def check_keeping(options: Options, disk: Disk, verdict: Verdict) -> None:
    """Raise VolumeError if a disk that was declared blank has a file system that isn't ours."""
    if options.blank and verdict.found.label != OUR_NAME:
        refuse(
            options, disk, verdict, "was declared blank, but somebody made a file system on it",
            "if the data are yours, mount it as it is, without --blank (openstack volume set --property "
            f"larder:blank=no {options.serial or 'ID'})",
        )  # fmt: skip


def require_formattable(options: Options, disk: Disk, verdict: Verdict) -> None:
    """Raise VolumeError unless a disk may be formatted: blank or left half-made by us, permitted, and writable."""
    if verdict.state not in (BLANK, HALF_MADE):
        refuse(
            options, disk, verdict, "can't be mounted by this script",
            "mount it by hand if the data are yours, or choose another volume; if nothing on it counts, as when "
            "formatting was cut short or it is to be given up, make the volume again, or wipe it by hand (wipefs, "
            "blkdiscard)",
        )  # fmt: skip
    if verdict.state == HALF_MADE:
        say(f"found what an interrupted run has left on {disk.path}")
    if not options.blank:
        refuse(
            options, disk, verdict, "is blank, but formatting it wasn't permitted",
            "check that it is the right volume; if so, give --blank",
        )  # fmt: skip
    if is_read_only(disk, verdict.place):
        refuse(options, disk, verdict, "is blank, but read-only, so it can't be formatted", MAKE_WRITABLE)


MAKE_WRITABLE = (
    "attach the volume so that the server may write to it (openstack volume set --read-write ID, then detach and "
    "attach it), or blockdev --setrw if it was made read-only here; then run this again"
)


def is_read_only(disk: Disk, place: str) -> bool:
    """Return whether the disk, or the device with the file system, can't be written."""
    return disk.read_only or describe(place).read_only


def refuse(options: Options, disk: Disk, verdict: Verdict, what: str, next_step: str) -> NoReturn:
    """Print the evidence, and raise the error that leaves a disk as it is."""
    for reason in verdict.reasons:
        print(f"found {printable(reason)}", file=sys.stderr)
    serial = f" (serial {options.short_serial})" if options.serial else ""
    fail(f"{disk.path}{serial} {what}; nothing was changed", next_step)


def install_programs() -> bool:
    """Install what minimal systems lack, with tools.sh beside this file. Return whether anything was missing."""
    return install({"sfdisk": "fdisk", "mkfs.ext4": "e2fsprogs", "resize2fs": "e2fsprogs"})


def install(needed: dict[str, str]) -> bool:
    """Install missing programs, given with their packages. Return whether anything was missing."""
    missing = {program: package for program, package in needed.items() if not shutil.which(program)}
    if not missing:
        return False
    installer = Path(__file__).with_name("tools.sh")
    packages = sorted(set(missing.values()))
    if not (installer.exists() and shutil.which("apt-get")):
        raise VolumeError(
            5, f"{', '.join(missing)} is missing here", f"install {' '.join(packages)}, then run this again"
        )
    # without the lock: a package may start servers. It prints its own error.
    code = subprocess.call(["bash", str(installer), *packages], stdin=subprocess.DEVNULL)
    if code:
        raise SystemExit(code)
    return True


def make_partition(disk: Disk) -> str:
    """Give a blank disk a GPT with one partition, and return that."""
    table = f"label: gpt\ntype=linux, name={OUR_NAME}\n"
    require("sfdisk", "--quiet", "--wipe", "never", "--wipe-partitions", "never", disk.path, stdin=table)
    settle()
    partitions = await_partitions(disk.path)
    if len(partitions) != 1 or not is_block_device(partitions[0].path):
        fail(f"the new partition of {disk.path} doesn't appear", "run this again")
    say(f"made one partition on {disk.path}")
    return partitions[0].path


def make_file_system(place: str, owner: tuple[int, int]) -> None:
    """Make ext4 with our two folders.

    mkfs writes the folders, too, and the superblock last: so the file system is complete or absent.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in ("workspace", "docker-volumes"):
            path = os.path.join(folder, name)
            os.mkdir(path)
            os.chown(path, *owner)
            os.chmod(path, 0o755)
        os.chmod(folder, 0o755)
        require("mkfs.ext4", "-q", "-L", OUR_NAME, "-m", "1", "-d", folder, place)
    settle()
    say(f"made ext4 on {place}, with the folders workspace and docker-volumes")


def mount_volume(options: Options) -> None:
    """Prepare the disk, and mount it now and at each boot."""
    check_own_path(options.mount)
    verdict = prepare(options)
    place, uuid = verdict.place, verdict.found.uuid
    if is_mounted_at(place, options.mount):
        say(f"found it mounted at {options.mount}")
        write_fstab(options, place, uuid)
    else:
        check_mount_point(options.mount, place, uuid)
        write_fstab(options, place, uuid)
        os.makedirs(options.mount, exist_ok=True)
        require("mount", options.mount)
        if not is_mounted_at(place, options.mount):
            fail(
                f"{options.mount} isn't {place} after mounting it",
                f"findmnt {options.mount} and /etc/fstab show what it is",
            )
        say(f"mounted {place} at {options.mount}")
    write_docker_unit(options.mount)


def check_own_path(mount: str) -> None:
    """Raise VolumeError if a mount point is below a link: systemd mounts only at a folder's own path."""
    if (own := os.path.realpath(mount)) != mount:
        raise VolumeError(2, f"--mount {mount} is a link, or below one: it leads to {own}", f"give --mount {own}")


def check_mount_point(mount: str, place: str, uuid: str) -> None:
    """Raise VolumeError if mounting would hide something, or might mount another disk."""
    if other := mounted_at(mount):
        fail(f"{other} is mounted at {mount} already", "unmount it, or choose another mount point")
    if points := mount_points(place):
        fail(f"{place} is mounted at {points[0]}", f"unmount it there first: sudo umount '{points[0]}'")
    listed = parse_json(require("lsblk", "--json", "--output", "PATH,UUID")).get("blockdevices", ())
    twins = {node["path"] for node in flatten(listed) if node["uuid"] == uuid}  # empty if lsblk lacks udev
    if len(twins) > 1:
        fail(
            f"{len(twins)} disks here have the UUID {uuid}, one is a copy of the other: {', '.join(sorted(twins))}",
            "detach one of them",
        )
    check_empty(mount)


def check_empty(mount: str) -> None:
    """Raise VolumeError if a mount point holds files."""
    if os.path.lexists(mount) and (names := sorted(os.listdir(mount))):
        fail(
            f"{mount} holds files of another disk, which mounting would hide: {', '.join(names[:3])}",
            "move them away, or choose another mount point",
        )


def unmount_volume(options: Options) -> None:
    """Unmount the disk, and undo what `mount` did."""
    disk = find_disk(options)
    if disk is None:
        unmount_remains(options)
        forget_volume(options, "")
        return
    verdict = inspect(disk)
    place, uuid = verdict.place, verdict.found.uuid
    former = next(
        (line.fields[1] for line in read_fstab() if line.mark is not None and line.is_of(uuid)), options.mount
    )
    options = replace(options, mount=former)  # the declared one may have changed
    if is_mounted_at(place, options.mount):
        unmount_unused(place, options.mount)
    else:
        say(f"found it not mounted at {options.mount}")
    check_let_go(place)
    forget_volume(options, uuid)


def unmount_unused(place: str, mount: str) -> None:
    """Unmount a disk. Raises VolumeError with its users if there are any."""
    if users := list_users(place, mount):
        fail(f"{mount} is in use by {', '.join(users)}", "stop them, then run this again")
    if run("umount", mount).code:
        fail(f"{mount} is in use", f"lsof +f -- {mount} may show by whom; stop that, then run this again")
    say(f"unmounted {mount}")


def unmount_remains(options: Options) -> None:
    """Unmount what is left of a disk that was detached while mounted: nothing can be written to it any more."""
    source = mounted_at(options.mount)
    if source and (not source.startswith("/dev/") or is_block_device(source)):
        fail(
            f"{source} is mounted at {options.mount}, and isn't the disk with the serial {options.short_serial}",
            "check which volume is meant: volume.py look --serial ID, lsblk -o PATH,SERIAL,MOUNTPOINTS",
        )
    if source:
        require("umount", "--lazy", options.mount)
    remains = ", and unmounted what was left of it" if source else ""
    say(f"found no disk with the serial {options.short_serial}{remains}")


def check_let_go(place: str) -> None:
    """Raise VolumeError if the disk is still mounted, at another place or in a container's own namespace."""
    if points := mount_points(place):
        fail(f"{place} is still mounted at {points[0]}", f"sudo umount '{points[0]}', then run this again")
    if who := mounted_by(place):
        fail(f"the {who} still has {place} mounted", "stop it, then run this again")


def forget_volume(options: Options, uuid: str) -> None:
    """Remove our line and, if no other line has this mount point, Docker's requirement."""
    lines = read_fstab()
    ours = [line for line in lines if line.is_at(options.mount) and is_for(line, options.fstab_mark, uuid)]
    if ours:
        lines = without_ours(lines, options.mount, uuid)
        replace_fstab(lines)
        say("took it out of /etc/fstab")
    if any(line.is_at(options.mount) for line in lines):
        return
    unit = docker_unit(options.mount)
    if unit.exists():
        unit.unlink()
        reload_systemd()
        say("Docker starts without it")
    elif docker_requires(options.mount):
        reload_systemd()  # a run that was killed hasn't come to this


def is_for(line: FstabLine, mark: str, uuid: str) -> bool:
    """Return whether a line is ours, and for this volume."""
    return line.mark is not None and (line.mark == mark or line.is_of(uuid))


def grow(options: Options) -> None:
    """Extend partition and file system to the disk's size."""
    disk = await_size(need_disk(options), options)
    verdict = inspect(disk)
    if verdict.state != READY:
        refuse(options, disk, verdict, "has no file system that can grow", "look shows what stands on it")
    if is_read_only(disk, verdict.place):
        refuse(options, disk, verdict, "is read-only, so it can't grow", MAKE_WRITABLE)
    if verdict.place != disk.path:
        grow_partition(disk, verdict.place)
    if not mount_points(verdict.place):
        check_file_system(verdict.place)
    require("resize2fs", verdict.place)
    say(f"the file system fills {verdict.place}, {words(describe(verdict.place).size)}")


def await_size(disk: Disk, options: Options) -> Disk:
    """Return the disk with its declared size. The kernel notices it a moment after the cloud has grown the volume."""
    rescan = sysfs(disk.path) / "device/rescan"  # SCSI disks need it

    def has_size() -> bool:
        if options.gib is None or describe(disk.path).size == options.gib * GIB:
            return True
        if os.access(rescan, os.W_OK):
            rescan.write_text("1")
        return False

    wait_until(has_size, options.seconds)
    disk = describe(disk.path)
    check_size(disk, options.gib)
    return disk


def check_file_system(place: str) -> None:
    """Check a file system that isn't mounted, as resize2fs requires."""
    ended = run("e2fsck", "-f", "-p", place)
    if ended.code > 1:  # 1: errors were corrected
        fail(
            f"e2fsck {place} found errors that it can't correct automatically: {ended.said}",
            f"run `e2fsck -f -y {place}` by hand, then this again; a resize2fs that was killed leaves such errors, but "
            "if it wasn't, look at them first (e2fsck -n)",
        )


def grow_partition(disk: Disk, place: str) -> None:
    """Extend the only partition to the end of the disk."""
    install_programs()
    [partition] = kernel_partitions(disk.path)
    number = (sysfs(place) / "partition").read_text().strip()
    if disk.size - partition.start - partition.size <= 2 << 20:  # alignment, and the second copy of the table
        say("found the partition as large as the disk")
        return
    argv = ("--quiet", "--force", "--no-reread", "--no-tell-kernel", "--partno", number, disk.path)
    require("sfdisk", *argv, stdin=", +\n")
    require("partx", "--update", disk.path)
    settle()
    say(f"grew the partition to {words(describe(place).size)}")


COMMANDS: dict[str, Callable[[Options], object]] = {
    "look": look,
    "uses": uses,
    "prepare": prepare,
    "mount": mount_volume,
    "unmount": unmount_volume,
    "grow": grow,
}


def take_turn() -> None:
    """Run one script at a time. After a lost connection, the previous one may still be running."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o600)  # any user who can open a file can lock it
    os.set_inheritable(lock, True)

    def is_ours() -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    if not wait_until(is_ours, LOCK_SECONDS):
        raise VolumeError(
            5, "another volume.py or share.py is still running", "wait for it (ps aux), then run this again"
        )


def main(words: Sequence[str]) -> int:
    """Run a command, and return the exit code."""

    def command() -> None:
        options = parse_options(words, dict(os.environ))
        start()
        COMMANDS[options.command](options)

    return run_to_end(words, USAGE, command)


def start() -> None:
    """Check that we are root, and wait until no other script of ours runs."""
    if os.geteuid() != 0:
        raise VolumeError(2, "only root can do this", f"sudo {' '.join(sys.argv)}")
    os.environ.update(LC_ALL="C.UTF-8", PATH=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin")
    take_turn()


def run_to_end(words: Sequence[str], usage: str, command: Callable[[], object]) -> int:
    """Run a command, print its error, and return the exit code."""
    if "--help" in words:
        print(usage, end="")
        return 0
    try:
        command()
    except VolumeError as error:
        return report(error)
    except OSError as error:
        return report(
            VolumeError(3, str(error), "check the disk (dmesg) and what is free on the root disk, then run this again")
        )
    except KeyboardInterrupt:
        return 130
    return 0


def report(error: VolumeError) -> int:
    """Print an error, and return its exit code."""
    print(f"error: {printable(error.what)}\n  next step: {printable(error.next_step)}", file=sys.stderr)
    return error.code


if __name__ == "__main__":
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(main(sys.argv[1:]))
