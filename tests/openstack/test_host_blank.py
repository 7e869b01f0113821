"""The volume script formats nothing but a blank disk, whatever is on it: signatures of every kind at any place that is
read, single bytes, tables that are nearly ours, data that appear late."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.openstack.disks import GIB, MIB, Machine, digest

SIGNATURES = {
    # file systems
    "ext": (0x438, b"\x53\xef"),
    "xfs": (0, b"XFSB"),
    "btrfs": (0x10040, b"_BHRfS_M"),
    "bcachefs": (0x1018, bytes.fromhex("c68573f6 66ce 90a9 d96a 60cf803df7ef")),
    "ntfs": (3, b"NTFS    "),
    "exfat": (3, b"EXFAT   "),
    "fat16": (0x36, b"FAT16   "),
    "fat32": (0x52, b"FAT32   "),
    "iso9660": (0x8001, b"CD001"),
    "udf": (0x8801, b"NSR02"),
    "hfs": (0x400, b"BD"),
    "hfsplus": (0x400, b"H+"),
    "apfs": (32, b"NXSB"),
    "jfs": (0x8000, b"JFS1"),
    "reiserfs": (0x10034, b"ReIsEr2Fs"),
    "minix": (0x410, b"\x7f\x13"),
    "ufs": (0x255C, bytes.fromhex("54190100")),
    "f2fs": (0x400, bytes.fromhex("1020f5f2")),
    "nilfs2": (0x406, b"\x34\x34"),
    "squashfs": (0, b"hsqs"),
    "cramfs": (0, bytes.fromhex("453dcd28")),
    "erofs": (0x400, bytes.fromhex("e2e1f5e0")),
    "hpfs": (0x2000, bytes.fromhex("49e895f9")),
    "ocfs2": (0x2000, b"OCFSV2"),
    "gfs2": (0x10000, bytes.fromhex("01161970")),
    "vmfs": (0x200000, bytes.fromhex("5ef1ab2f")),
    # ZFS has two labels at either end; blkid wants many of these, so one alone is only seen by reading
    "zfs, first label": (0x20000, bytes.fromhex("0cb1ba0000000000")),
    "zfs, last label": (-0x20000, bytes.fromhex("0cb1ba0000000000")),
    # RAID, LVM, encryption, caches
    "md 0.90": (-0x10000, bytes.fromhex("fc4e2ba9")),
    "md 1.0": (-0x2000, bytes.fromhex("fc4e2ba901000000")),
    "md 1.1": (0, bytes.fromhex("fc4e2ba901000000")),
    "md 1.2": (0x1000, bytes.fromhex("fc4e2ba901000000")),
    "ddf": (-512, bytes.fromhex("de11de11")),
    "imsm": (-1024, b"Intel Raid ISM Cfg Sig. "),
    "drbd": (-4096 + 60, bytes.fromhex("8374026b")),
    "lvm2": (0x200, b"LABELONE\x01" + bytes(15) + b"LVM2 001"),
    "lvm1": (0, b"HM\x01\x00"),
    "snapshot": (0, b"SnAp"),
    "luks": (0, b"LUKS\xba\xbe\x00\x02"),
    "luks, second header": (0x4000, b"SKUL\xba\xbe\x00\x02"),
    "bitlocker": (3, b"-FVE-FS-"),
    "bcache": (0x1018, bytes.fromhex("c68573f6 4e1a 45ca 8265 f57f48ba6d81")),
    "stratis": (0x200, b"!Stra0tis\x86\xff\x02^\x41rh"),
    "vdo": (0, b"dmvdo001"),
    "verity": (0, b"verity\0\0"),
    "bluestore": (0, b"bluestore block device\n"),
    "oracle asm": (32, b"ORCLDISK"),
    "swap": (4096 - 10, b"SWAPSPACE2"),
    "hibernation": (4096 - 10, b"S1SUSPEND"),
    # partition tables
    "gpt": (512, b"EFI PART"),
    "gpt, second header": (-512, b"EFI PART"),
    "dos": (0x1FE, b"\x55\xaa"),
    "sun": (0x1FC, b"\xda\xbe"),
    "sgi": (0, bytes.fromhex("0be5a941")),
    "mac": (0, b"ER"),
    "bsd": (512, bytes.fromhex("57455682")),
}
"""Where the formats have their magic numbers; places below zero count from the disk's end."""

SIZES = {"48 MiB": 48 * MIB, "1 GiB": GIB, "3 GiB and a sector": 3 * GIB + 512, "100 GiB": 100 * GIB}


class Write(NamedTuple):
    """Bytes at a place of a disk."""

    at: int
    data: bytes


def places_read(size: int) -> list[tuple[int, int]]:
    """First byte and length of what provision/host/README.md says is read of a disk on which nothing is recognized."""
    samples = [((size - 16 * MIB) * number // 512, 64 << 10) for number in range(1, 512)]
    return [(0, 16 * MIB), (size - 16 * MIB, 16 * MIB), *samples]


@st.composite
def somewhere_read(draw: st.DrawFn, size: int, length: int) -> int:
    """A place from which on some bytes are read."""
    first, span = draw(st.sampled_from(places_read(size)))
    anywhere = st.integers(0, span - length)
    return first + draw(st.one_of(st.just(0), st.just(span - length), anywhere))


@st.composite
def contents(draw: st.DrawFn, size: int) -> list[Write]:
    """What may be on a disk that isn't blank: one to three things."""
    writes = []
    for _ in range(draw(st.integers(1, 3))):
        usual, magic = SIGNATURES[draw(st.sampled_from(sorted(SIGNATURES)))]
        byte = st.integers(1, 255).map(lambda value: bytes([value]))
        data = draw(st.one_of(st.just(magic), byte, st.binary(min_size=1, max_size=4096).filter(any)))
        own_place = st.just(usual % size)
        at = draw(own_place | somewhere_read(size, len(data)) if data == magic else somewhere_read(size, len(data)))
        writes.append(Write(at, data))
    return writes


@contextmanager
def on_disk(device: str, writes: list[Write]) -> Iterator[None]:
    """A disk with these bytes, and blank again afterwards."""
    with open(device, "r+b", buffering=0) as disk:
        for write in writes:
            os.pwrite(disk.fileno(), write.data, write.at)
        os.fsync(disk.fileno())
    yield
    subprocess.run(["blkdiscard", device], check=True)
    subprocess.run(["partx", "--delete", device], check=False, capture_output=True)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_nothing_but_a_blank_disk_is_formatted(machine: Machine, size: int) -> None:
    device = machine.disk(size)
    blank = digest(device)

    @settings(max_examples=75, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(writes=contents(size))
    def check(writes: list[Write]) -> None:
        with on_disk(device, writes):
            before = digest(device)
            assert before != blank
            ended = machine.volume("prepare", device, "--blank")
            assert (ended.code, digest(device)) == (3, before), (writes, ended)
            assert "nothing was changed" in ended.stderr, ended

    check()
    assert machine.look(device)["state"] == "blank"
    ended = machine.volume("prepare", device, "--blank")
    assert ended.code == 0 and "made ext4" in ended.stdout, ended


@pytest.mark.parametrize("kind", sorted(SIGNATURES))
def test_signature_alone_is_enough_to_refuse(machine: Machine, kind: str) -> None:
    place, magic = SIGNATURES[kind]
    device = machine.disk()
    with on_disk(device, [Write(place % GIB, magic)]):
        before = digest(device)
        ended = machine.volume("prepare", device, "--blank")
        assert (ended.code, digest(device)) == (3, before), ended


def test_every_range_that_is_read_counts_from_its_first_to_its_last_byte(machine: Machine) -> None:
    device = machine.disk()
    ranges = places_read(GIB)
    for first, length in [*ranges[:2], *ranges[2::170]]:
        for at in (first, first + length - 1):
            with on_disk(device, [Write(at, b"\x80")]):
                ended = machine.volume("prepare", device, "--blank")
                assert ended.code == 3 and f"{device}: data without a signature, at byte {at}" in ended.stderr, ended


@pytest.mark.parametrize(
    "make",
    [
        ["mkfs.ext2", "-q"],
        ["mkfs.ext3", "-q"],
        ["mkfs.minix"],
        ["mkfs.minix", "-3"],
        ["mkfs.bfs"],
        ["mkfs.vfat", "-F", "32"],
        ["mkswap"],
        ["pvcreate", "--quiet", "--config", "global{locking_type=0}"],
        ["sh", "-c", 'echo "label: dos" | sfdisk --quiet "$1"', "sh"],
        ["sh", "-c", 'echo "label: gpt" | sfdisk --quiet "$1"', "sh"],
        ["sh", "-c", 'echo "label: sgi" | sfdisk --quiet "$1"', "sh"],
        ["sh", "-c", 'echo "label: sun" | sfdisk --quiet "$1"', "sh"],
        ["sh", "-c", 'mkfs.ext4 -q "$1" && mkswap --force "$1"', "sh"],
        ["sh", "-c", 'mkfs.ext4 -q "$1" && wipefs --all --quiet "$1"', "sh"],
        ["sh", "-c", 'mkfs.ext4 -q "$1" && head -c 4M /dev/zero >"$1"', "sh"],
        ["sh", "-c", 'mkfs.vfat "$1" && head -c 512 /dev/zero >"$1"', "sh"],
    ],
    ids=lambda make: " ".join(make[:2]) if make[0] != "sh" else make[2].split(" >")[0],
)
def test_what_other_programs_make_and_leave_is_refused(machine: Machine, make: list[str]) -> None:
    device = machine.disk(256 * MIB)
    machine.run(*make, device)
    before = digest(device)
    ended = machine.volume("prepare", device, "--blank")
    assert (ended.code, digest(device)) == (3, before), ended


LIST = 16384
NOT_CHECKED = [(0x200 + 8, 84), (GIB - 512 + 8, 84), (0x400 + 16, 32), (GIB - 512 - LIST + 16, 32)]
"""First byte and length of what each run of sfdisk changes in a table of ours: checksums, identifiers, places."""


def test_unfinished_table_of_ours_with_one_more_byte_is_refused(machine: Machine) -> None:
    """As a killed sfdisk leaves it: all but the first sector."""
    device = machine.disk()
    machine.partition(device, "label: gpt\ntype=linux, name=larder\n")
    subprocess.run(["partx", "--delete", device], check=True)
    table = {at: read_at(device, at, length) for at, length in ((512, 512 + LIST), (GIB - 512 - LIST, LIST + 512))}
    places = st.one_of(
        st.integers(0, 1 * MIB),
        st.integers(GIB - MIB, GIB - 1),
        st.integers(512, 2048),
        st.integers(GIB - 1024, GIB - 1),
    ).filter(lambda at: not any(first <= at < first + length for first, length in NOT_CHECKED))

    @settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(at=places, flip=st.integers(1, 255))
    def check(at: int, flip: int) -> None:
        pieces = [Write(place, data) for place, data in table.items()]
        with on_disk(device, pieces), on_disk_too(device, at, flip):
            before = digest(device)
            ended = machine.volume("prepare", device, "--blank")
            assert (ended.code, digest(device)) == (3, before), (at, flip, ended)

    subprocess.run(["blkdiscard", device], check=True)
    check()
    with on_disk(device, [Write(place, data) for place, data in table.items()]):
        assert machine.look(device)["state"] == "half-made"


def read_at(device: str, at: int, length: int) -> bytes:
    with open(device, "rb", buffering=0) as disk:
        return os.pread(disk.fileno(), length, at)


@contextmanager
def on_disk_too(device: str, at: int, flip: int) -> Iterator[None]:
    """One byte that differs."""
    changed = bytes([read_at(device, at, 1)[0] ^ flip])
    with open(device, "r+b", buffering=0) as disk:
        os.pwrite(disk.fileno(), changed, at)
        os.fsync(disk.fileno())
    yield


def test_data_behind_the_cache_are_seen(machine: Machine) -> None:
    """The server has read zeros, and keeps them while the disk is open; somebody else writes to the disk itself."""
    device = machine.disk()
    with open(device, "rb", buffering=0) as held:
        assert not any(held.read(MIB))
        file = machine.folder / "disk-0"
        with file.open("r+b") as stream:
            stream.seek(4096)
            stream.write(b"theirs")
        assert not any(read_at(device, 4096, 6)), "the cache knows already: this shows nothing"
        ended = machine.volume("prepare", device, "--blank")
    assert ended.code == 3 and f"{device}: data without a signature, at byte 4096" in ended.stderr, ended


def test_blank_disk_that_somebody_holds_is_refused(machine: Machine) -> None:
    device = machine.disk()
    holder = os.open(device, os.O_RDONLY | os.O_EXCL)
    ended = machine.volume("prepare", device, "--blank")
    assert ended.code == 3 and f"{device}: no signature, but it is in use" in ended.stderr, ended
    os.close(holder)
    assert machine.volume("prepare", device, "--blank").code == 0


def test_partition_is_not_formatted_in_place_of_a_disk(machine: Machine) -> None:
    device = machine.disk()
    machine.partition(device, "label: gpt\nname=theirs\n")
    before = digest(device)
    ended = machine.volume("prepare", f"{device}p1", "--blank")
    assert (ended.code, digest(device)) == (3, before)
    assert f"{device}p1: no signature, but it is a partition: only a whole disk is formatted" in ended.stderr


def test_table_with_a_partition_that_the_kernel_doesn_t_know_is_not_ours(machine: Machine) -> None:
    """Somebody added a partition to a disk that was left half-made, and the kernel hasn't read the table since."""
    device, ours = machine.disk(), "label: gpt\nsize=300M, type=linux, name=larder\n"
    machine.partition(device, ours)
    assert machine.look(device)["state"] == "half-made"
    machine.run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", device, stdin=f"{ours}size=100M\n")
    before = digest(device)
    ended = machine.volume("prepare", device, "--blank")
    assert (ended.code, digest(device)) == (3, before), ended
    assert f"{device}p1: no signature, but the table on the disk has other partitions" in ended.stderr


APT = """#!/bin/sh
case $* in *install*)
    mv /usr/sbin/hidden /usr/sbin/sfdisk
    if [ -e /mnt/write ]; then printf theirs | dd of="$(cat /mnt/write)" conv=fsync,notrunc status=none; fi ;;
esac
"""


@pytest.fixture
def without_sfdisk(machine: Machine) -> Iterator[None]:
    """A minimal system, and a stand-in for apt that installs the program; at the same time, somebody may write."""
    sfdisk, hidden = machine.root / "usr/sbin/sfdisk", machine.root / "usr/sbin/hidden"
    stand_ins = {"apt-get": APT, "dpkg-query": "#!/bin/sh\n", "dpkg": "#!/bin/sh\n"}
    sfdisk.rename(hidden)
    for name, text in stand_ins.items():
        (machine.root / "usr/local/bin" / name).write_text(text)
        (machine.root / "usr/local/bin" / name).chmod(0o755)
    yield
    for name in stand_ins:
        (machine.root / "usr/local/bin" / name).unlink()
    if hidden.exists():
        hidden.rename(sfdisk)


def test_missing_program_is_installed_and_only_then_the_disk_is_formatted(
    machine: Machine, without_sfdisk: None
) -> None:
    device = machine.disk()
    ended = machine.volume("prepare", device, "--blank")
    assert ended.code == 0, ended
    assert "installed fdisk" in ended.stdout and "made ext4" in ended.stdout


def test_data_that_appear_while_packages_are_installed_are_seen(machine: Machine, without_sfdisk: None) -> None:
    device = machine.disk()
    (machine.root / "mnt/write").write_text(device)
    ended = machine.volume("prepare", device, "--blank")
    assert ended.code == 3 and f"{device}: data without a signature, at byte 0" in ended.stderr, ended
    assert read_at(device, 0, 7) == b"theirs\0"


def test_missing_program_without_an_installer_is_named(machine: Machine, without_sfdisk: None, tmp_path: Path) -> None:
    device = machine.disk()
    (machine.root / "mnt/volume.py").write_bytes((Path(__file__).parents[2] / "provision/host/volume.py").read_bytes())
    argv = machine.command("python3", "/mnt/volume.py", "prepare", "--device", device, "--blank")
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 5 and "error: sfdisk is missing here\n  next step: install fdisk" in ended.stderr


@pytest.mark.parametrize("content", ["blank", "half-made"])
def test_read_only_disk_is_refused_with_the_reason(machine: Machine, content: str) -> None:
    device = machine.disk()
    if content == "half-made":
        machine.partition(device, "label: gpt\ntype=linux, name=larder\n")
    before = digest(device)
    machine.run("blockdev", "--setro", device)
    for command in ("prepare", "mount"):
        ended = machine.volume(command, device, "--blank")
        assert (ended.code, digest(device)) == (3, before)
        assert f"error: {device} is blank, but read-only, so it can't be formatted; nothing was changed" in ended.stderr
        assert "next step: attach the volume so that the server may write to it" in ended.stderr
    machine.run("blockdev", "--setrw", device)
    assert machine.volume("prepare", device, "--blank").code == 0


def test_read_only_disk_does_not_grow(machine: Machine) -> None:
    device = machine.disk()
    assert machine.volume("prepare", device, "--blank").code == 0
    machine.grow_disk(device, 2 * GIB)
    machine.run("blockdev", "--setro", device)
    before = digest(device)
    ended = machine.volume("grow", device, "--gib", "2")
    assert (ended.code, digest(device)) == (3, before)
    assert "is read-only, so it can't grow" in ended.stderr
    machine.run("blockdev", "--setrw", device)


def test_disk_of_larger_sectors_is_formatted_and_its_half_written_table_is_known(machine: Machine) -> None:
    device = machine.disk(GIB, "--sector-size", "4096")
    machine.partition(device, "label: gpt\ntype=linux, name=larder\n")
    subprocess.run(["partx", "--delete", device], check=True)
    with open(device, "r+b", buffering=0) as disk:
        os.pwrite(disk.fileno(), bytes(4096), 0)
        os.fsync(disk.fileno())
    assert machine.look(device)["state"] == "half-made"
    ended = machine.volume("mount", device, "--blank")
    assert ended.code == 0, ended
    assert machine.volume("unmount", device).code == 0
