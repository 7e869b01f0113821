"""The volume script on loop devices: what is formatted, what is refused, what resumes, what grows."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.openstack.disks import GIB, MIB, Machine, digest, missing

MOUNT = "/mnt/block"


def test_blank_disk_is_formatted_once_and_mounted_by_uuid(machine: Machine) -> None:
    device = machine.disk()
    assert machine.look(device)["state"] == "blank"
    first = machine.volume("mount", device, "--gib", "1", "--blank")
    assert first.code == 0, first.stderr
    machine.run("sh", "-c", f"echo kept >{MOUNT}/workspace/note")
    before = machine.run("blkid", f"{device}p1")
    again = machine.volume("mount", device, "--gib", "1", "--blank")
    assert again.code == 0
    assert not [line for line in again.stdout.splitlines() if not line.startswith("found")]
    assert machine.run("blkid", f"{device}p1") == before
    assert machine.run("cat", f"{MOUNT}/workspace/note") == "kept\n"
    seen = machine.look(device)
    assert (seen["state"], seen["mounted_at"], seen["filesystem"]) == ("mounted", MOUNT, "ext4")
    uuid = machine.run("blkid", "-s", "UUID", "-o", "value", f"{device}p1").strip()
    assert f"UUID={uuid} {MOUNT} ext4 defaults,nofail" in (machine.root / "etc/fstab").read_text()
    unit = machine.root / "etc/systemd/system/docker.service.d/larder-mnt-block.conf"
    assert unit.read_text() == f"[Unit]\nRequiresMountsFor={MOUNT}\n"


def test_unmount_undoes_what_mount_did(machine: Machine) -> None:
    device = machine.disk()
    fstab = (machine.root / "etc/fstab").read_text()
    assert machine.volume("mount", device, "--blank").code == 0
    for _ in range(2):
        assert machine.volume("unmount", device).code == 0
        assert machine.look(device)["state"] == "ready"
        assert (machine.root / "etc/fstab").read_text() == fstab
        assert not list((machine.root / "etc/systemd/system/docker.service.d").iterdir())


def test_folders_of_a_new_file_system_get_their_owner_once(machine: Machine) -> None:
    device = machine.disk()
    machine.volume("mount", device, "--blank")
    folders = [f"{MOUNT}/workspace", f"{MOUNT}/docker-volumes"]
    assert machine.run("stat", "-c", "%u:%g", *folders).split() == ["1000:1000"] * 2
    machine.run("chown", "999:999", *folders)
    machine.volume("unmount", device)
    assert machine.volume("mount", device, "--blank").code == 0
    assert machine.run("stat", "-c", "%u:%g", *folders).split() == ["999:999"] * 2


def test_formatting_needs_the_caller_s_consent(machine: Machine) -> None:
    device = machine.disk()
    before = digest(device)
    ended = machine.volume("mount", device, "--gib", "1")
    assert (ended.code, digest(device)) == (3, before)
    assert "is blank, but formatting it wasn't permitted" in ended.stderr


def file_system(machine: Machine, device: str) -> str:
    machine.run("mkfs.ext4", "-q", "-L", "theirs", device)
    return "ext4, label 'theirs'"


def foreign_partition(machine: Machine, device: str) -> str:
    machine.partition(device, "label: gpt\nname=larder\n")
    machine.run("mkfs.vfat", f"{device}p1")
    return "vfat"


def empty_partition(machine: Machine, device: str) -> str:
    machine.partition(device, "label: gpt\nname=theirs\n")
    return "the partition isn't of our making"


def two_partitions(machine: Machine, device: str) -> str:
    machine.partition(device, "label: gpt\nsize=100M\nsize=100M\n")
    return "a partition table (gpt) with 2 partitions"


def no_partitions(machine: Machine, device: str) -> str:
    machine.partition(device, "label: dos\n")
    return "a partition table (dos) with 0 partitions"


def lvm(machine: Machine, device: str) -> str:
    machine.run("pvcreate", "--quiet", "--devices", device, "--config", "global{locking_type=0}", device)
    return "LVM2_member"


def luks(machine: Machine, device: str) -> str:
    header = machine.root / "luks"
    with header.open("wb") as stream:
        stream.truncate(32 * MIB)
    argv = ("luksFormat", "--batch-mode", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "/luks", "-")
    machine.run("cryptsetup", *argv, stdin="secret")
    machine.run("dd", "if=/luks", f"of={device}", "bs=1M", "status=none")
    header.unlink()
    return "crypto_LUKS"


def swap(machine: Machine, device: str) -> str:
    machine.run("mkswap", device)
    return "swap"


def raw_at(offset: int) -> Callable[[Machine, str], str]:
    def write(machine: Machine, device: str) -> str:
        with open(device, "r+b") as stream:
            stream.seek(offset)
            stream.write(b"\x07" * 16)
        return f"data without a signature, at byte {offset}"

    write.__name__ = f"raw_at_{offset}"
    return write


def raw_in_our_partition(machine: Machine, device: str) -> str:
    machine.partition(device, "label: gpt\nname=larder\n")
    with open(f"{device}p1", "r+b") as stream:
        stream.write(b"somebody's data")
    return "p1: data without a signature, at byte 0"


THEIRS = [
    file_system,
    foreign_partition,
    empty_partition,
    two_partitions,
    no_partitions,
    lvm,
    luks,
    swap,
    raw_at(0),
    raw_at(700_000),
    raw_at(GIB // 2 - 8 * MIB),
    raw_at(GIB - 16),
    raw_in_our_partition,
]


@pytest.mark.parametrize("make", THEIRS, ids=lambda make: make.__name__)
def test_foreign_data_is_refused_with_the_evidence_and_left_untouched(
    machine: Machine, make: Callable[[Machine, str], str]
) -> None:
    device = machine.disk()
    evidence = make(machine, device)
    before = digest(device)
    ended = machine.volume("mount", device, "--gib", "1", "--blank")
    assert ended.code == 3
    assert evidence in ended.stderr
    assert "nothing was changed" in ended.stderr and "next step:" in ended.stderr
    assert digest(device) == before
    assert machine.run("findmnt", "--raw", "--noheadings", "-o", "TARGET").find(MOUNT) == -1


def test_file_system_made_by_hand_is_mounted_as_it_is(machine: Machine) -> None:
    device = machine.disk()
    machine.run("mkfs.ext4", "-q", "-L", "theirs", device)
    ended = machine.volume("mount", device, "--gib", "1")
    assert ended.code == 0, ended.stderr
    assert machine.run("ls", MOUNT) == "lost+found\n"


def test_disk_of_another_size_is_refused_with_both_sizes(machine: Machine) -> None:
    device = machine.disk()
    before = digest(device)
    ended = machine.volume("mount", device, "--gib", "2", "--blank")
    assert (ended.code, digest(device)) == (3, before)
    assert f"{GIB} bytes (1.0GiB), declared are 2 GiB" in ended.stderr


def test_half_made_partition_is_completed(machine: Machine) -> None:
    device = machine.disk()
    machine.partition(device, "label: gpt\ntype=linux, name=larder\n")
    assert machine.look(device)["state"] == "half-made"
    refused = machine.volume("mount", device)
    assert refused.code == 3 and "formatting it wasn't permitted" in refused.stderr
    ended = machine.volume("mount", device, "--blank")
    assert ended.code == 0, ended.stderr
    assert machine.look(device)["state"] == "mounted"


SECTOR, LIST = 512, 16384
TABLE = [(GIB - SECTOR - LIST, LIST), (GIB - SECTOR, SECTOR), (2 * SECTOR, LIST), (SECTOR, SECTOR), (0, SECTOR)]
"""Place and length of what a partition table consists of, in the order in which sfdisk writes it."""


def write_partly(machine: Machine, device: str, pieces: int, name: str = "larder") -> None:
    """What stands on a disk when partitioning was killed after so many pieces."""
    machine.partition(device, f"label: gpt\ntype=linux, name={name}\n")
    with open(device, "r+b", buffering=0) as disk:
        for place, length in TABLE[pieces:]:
            os.pwrite(disk.fileno(), bytes(length), place)
        os.fsync(disk.fileno())
    subprocess.run(["partx", "--delete", device], check=True)


@pytest.mark.parametrize("pieces", range(len(TABLE)))
def test_half_written_partition_table_is_rewritten(machine: Machine, pieces: int) -> None:
    device = machine.disk()
    write_partly(machine, device, pieces)
    assert machine.look(device)["state"] == ("half-made" if pieces else "blank")
    refused = machine.volume("mount", device)
    assert refused.code == 3 and "formatting it wasn't permitted" in refused.stderr
    ended = machine.volume("mount", device, "--blank")
    assert ended.code == 0, ended.stderr
    assert machine.look(device)["state"] == "mounted"


BEFORE_LIST, BEHIND_LIST = GIB - SECTOR - LIST - SECTOR, 2 * SECTOR + LIST
"""The sectors beside the two lists, on the side of the data."""


@pytest.mark.parametrize("pieces", range(1, len(TABLE)))
def test_half_written_foreign_partition_table_is_refused(machine: Machine, pieces: int) -> None:
    theirs, *ours = (machine.disk() for _ in range(4))
    write_partly(machine, theirs, pieces, name="theirs")
    for device, place in zip(ours, (GIB // 2 - 8 * MIB, BEHIND_LIST, BEFORE_LIST), strict=True):
        write_partly(machine, device, pieces)
        with open(device, "r+b", buffering=0) as disk:
            os.pwrite(disk.fileno(), b"data", place)
    for device in (theirs, *ours):
        before = digest(device)
        ended = machine.volume("mount", device, "--blank")
        assert (ended.code, digest(device)) == (3, before)
        assert "nothing was changed" in ended.stderr


UNREADABLE = """#!/usr/bin/python3 -I
import os, runpy, sys
read = os.pread
def pread(file, length, at):
    if length > 16384:
        raise OSError(5, "Input/output error")
    return read(file, length, at)
os.pread = pread
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""In place of a disk that fails while samples of it are read, which loop devices don't."""


@pytest.mark.parametrize("pieces", [0, 1], ids=["blank", "half written"])
def test_disk_that_can_t_be_read_is_not_taken_for_empty(machine: Machine, pieces: int) -> None:
    device, python = machine.disk(), machine.root / "usr/local/bin/python3"
    write_partly(machine, device, pieces)
    before = digest(device)
    python.write_text(UNREADABLE)
    python.chmod(0o755)
    try:
        ended = machine.volume("mount", device, "--blank")
    finally:
        python.unlink()
    assert (ended.code, digest(device)) == (3, before)
    assert f"{device} can't be read" in ended.stderr


def test_killed_at_random_moments_it_resumes_or_refuses_and_ends_mounted(machine: Machine) -> None:
    """SIGKILL to script and children; a second run then completes what the first one began.

    Where that was mkfs at work, its data have no signature yet: they are refused until the disk is wiped by hand.
    """
    moments = random.Random(0)
    for _ in range(12):
        device = machine.disk(256 * MIB)
        argv = machine.command("/provision/host/volume.py", "mount", "--device", device, "--blank")
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            process.wait(moments.uniform(0.1, 0.9))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        ended = machine.volume("mount", device, "--blank")
        if ended.code == 3 and f"{device}p1: data without a signature" in ended.stderr:
            machine.run("wipefs", "--all", "--quiet", device)
            machine.run("blkdiscard", device)
            ended = machine.volume("mount", device, "--blank")
        assert ended.code == 0, ended.stderr
        assert machine.run("ls", MOUNT).split() == ["docker-volumes", "lost+found", "workspace"]
        assert machine.volume("unmount", device).code == 0


def size_of_file_system(machine: Machine, device: str) -> int:
    fields = dict(
        line.split(":", 1) for line in machine.run("dumpe2fs", "-h", f"{device}p1").splitlines() if ":" in line
    )
    return int(fields["Block count"]) * int(fields["Block size"])


# Growing while it is mounted needs CAP_SYS_RESOURCE, which not every machine gives: the guest does that.
def test_growing_extends_partition_and_file_system_and_keeps_the_data(machine: Machine) -> None:
    device = machine.disk()
    machine.volume("mount", device, "--blank")
    machine.run("sh", "-c", f"head -c 50000000 /dev/urandom >{MOUNT}/workspace/data")
    before = machine.run("sha256sum", f"{MOUNT}/workspace/data")
    machine.volume("unmount", device)
    machine.grow_disk(device, 2 * GIB)
    ended = machine.volume("grow", device, "--gib", "2")
    assert ended.code == 0, ended.stderr
    again = machine.volume("grow", device, "--gib", "2")
    assert again.code == 0 and "found the partition as large as the disk" in again.stdout
    assert size_of_file_system(machine, device) > 2 * GIB - 4 * MIB
    assert machine.volume("mount", device, "--gib", "2").code == 0
    assert machine.run("sha256sum", f"{MOUNT}/workspace/data") == before
    machine.volume("unmount", device)
    machine.run("e2fsck", "-f", "-n", f"{device}p1")
    machine.run("sfdisk", "--verify", device)


def test_growing_goes_on_after_only_the_partition_grew(machine: Machine) -> None:
    device = machine.disk()
    machine.volume("mount", device, "--blank")
    machine.volume("unmount", device)
    machine.grow_disk(device, 2 * GIB)
    machine.run("sfdisk", "--quiet", "--no-reread", "-N", "1", device, stdin=", +\n")
    ended = machine.volume("grow", device, "--gib", "2")
    assert ended.code == 0, ended.stderr
    assert size_of_file_system(machine, device) > 2 * GIB - 4 * MIB


def test_growing_before_the_cloud_grew_the_volume_names_both_sizes(machine: Machine) -> None:
    device = machine.disk()
    machine.volume("mount", device, "--blank")
    ended = machine.volume("grow", device, "--gib", "2", "--wait", "1")
    assert ended.code == 3
    assert "(1.0GiB), declared are 2 GiB" in ended.stderr


def test_unmounting_what_is_in_use_names_the_process(machine: Machine) -> None:
    device = machine.disk()
    machine.volume("mount", device, "--blank")
    argv = machine.command("sh", "-c", f"exec 3>{MOUNT}/workspace/open; echo open; read -r _")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "open\n"
        ended = machine.volume("unmount", device)
        assert ended.code == 3
        assert f"{MOUNT} is in use by process {process.pid} (sh)" in ended.stderr
        assert machine.look(device)["users"] == [f"process {process.pid} (sh)"]
        process.communicate("\n")
    assert machine.volume("unmount", device).code == 0


def test_unmounting_what_is_mounted_twice_names_the_other_place(machine: Machine) -> None:
    device = machine.disk()
    machine.volume("mount", device, "--blank")
    machine.run("mkdir", "/mnt/by hand")
    machine.run("mount", "--bind", f"{MOUNT}/workspace", "/mnt/by hand")
    ended = machine.volume("unmount", device)
    assert ended.code == 3 and f"{device}p1 is still mounted at /mnt/by hand" in ended.stderr
    assert machine.look(device)["mounted_at"] == "/mnt/by hand"
    ended = machine.volume("mount", device)
    assert ended.code == 3 and "sudo umount '/mnt/by hand'" in ended.stderr
    machine.run("umount", "/mnt/by hand")
    assert machine.volume("unmount", device).code == 0


def test_disk_with_more_mount_points_than_a_pipe_holds_works_like_any_other(machine: Machine) -> None:
    device, places = machine.disk(), f"/mnt/{'x' * 240}"
    machine.volume("mount", device, "--blank")
    each = f"for at in $(seq 400); do %s {places}$at; done"
    machine.run("sh", "-c", f"{each % f'mkdir -p {places}$at; mount --bind {MOUNT}/workspace'}")
    assert machine.look(device)["mounted_at"] == MOUNT
    ended = machine.volume("unmount", device)
    assert ended.code == 3 and f"{device}p1 is still mounted at {places}" in ended.stderr
    machine.run("sh", "-c", each % "umount")
    assert machine.volume("unmount", device).code == 0


def test_another_mount_point_takes_the_place_of_the_one_before(machine: Machine) -> None:
    device, fstab = machine.disk(), machine.root / "etc/fstab"
    before = fstab.read_text()
    assert machine.volume("mount", device, "--blank", "--mount", "/mnt/old").code == 0
    machine.run("umount", "/mnt/old")
    assert machine.volume("mount", device).code == 0
    assert [line.split()[1] for line in fstab.read_text().splitlines() if "x-larder" in line] == [MOUNT]
    assert machine.volume("unmount", device).code == 0
    assert fstab.read_text() == before


def test_what_was_mounted_at_another_mount_point_is_unmounted_there(machine: Machine) -> None:
    device, fstab = machine.disk(), machine.root / "etc/fstab"
    before = fstab.read_text()
    assert machine.volume("mount", device, "--blank", "--mount", "/mnt/old").code == 0
    for says in ("unmounted /mnt/old", f"found it not mounted at {MOUNT}"):
        ended = machine.volume("unmount", device)
        assert ended.code == 0 and says in ended.stdout, ended
        assert machine.look(device)["state"] == "ready" and fstab.read_text() == before
        assert not list((machine.root / "etc/systemd/system/docker.service.d").iterdir())


def test_uses_of_a_disk_are_named_whoever_made_them(machine: Machine) -> None:
    device = machine.disk()
    machine.partition(device, "label: gpt\nsize=300M\nsize=300M\n")
    assert machine.uses(device) == []
    machine.run("mkfs.ext2", "-q", f"{device}p1")
    machine.run("mkfs.ext4", "-q", f"{device}p2")
    before = digest(device)
    assert machine.uses(device) == []
    machine.run("mkdir", "/mnt/by hand", "/mnt/twice")
    machine.run("mount", "-o", "ro", f"{device}p1", "/mnt/by hand")
    machine.run("mount", "-o", "ro,noload", f"{device}p2", "/mnt/twice")
    machine.run("mount", "--bind", "/mnt/twice/lost+found", "/srv")
    assert machine.uses(device) == ["mounted at /mnt/by hand", "mounted at /mnt/twice", "mounted at /srv"]
    machine.run("umount", "/srv", "/mnt/twice", "/mnt/by hand")
    assert (machine.uses(device), digest(device)) == ([], before)


def test_disk_that_only_another_namespace_mounts_is_in_use(machine: Machine) -> None:
    device = machine.disk()
    machine.run("mkfs.ext4", "-q", device)
    machine.run("mkdir", "/mnt/other")
    enter = f"mount {device} /mnt/other && echo mounted && read -r _"
    argv = machine.command("unshare", "--mount", "sh", "-c", enter)
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "mounted\n"
        assert machine.uses(device) == [f"mounted by process {process.pid} (sh), in a namespace of its own"]
        process.communicate("\n")
    assert machine.uses(device) == []


def test_lvm_group_counts_as_use_and_so_does_a_disk_that_the_kernel_holds(machine: Machine) -> None:
    device, other = machine.disk(), machine.disk()
    lvm(machine, device)
    assert machine.uses(device) == []
    machine.run("vgcreate", "--quiet", "--config", "global{locking_type=0}", f"lab{os.getpid()}", device)
    assert machine.uses(device) == [f"part of LVM's volume group lab{os.getpid()}"]
    held = os.open(other, os.O_RDONLY | os.O_EXCL)
    assert machine.uses(other) == ["in use, but lsblk doesn't show by what"]
    os.close(held)
    assert machine.uses(other) == []


def test_mount_point_with_files_of_the_root_disk_is_refused(machine: Machine) -> None:
    device = machine.disk()
    (machine.root / "mnt/block").mkdir()
    (machine.root / "mnt/block/theirs").write_text("")
    ended = machine.volume("mount", device, "--blank")
    assert ended.code == 3
    assert "holds files of another disk, which mounting would hide: theirs" in ended.stderr


def test_mount_point_of_another_disk_is_refused(machine: Machine) -> None:
    first, second = machine.disk(), machine.disk()
    assert machine.volume("mount", first, "--blank").code == 0
    ended = machine.volume("mount", second, "--blank")
    assert ended.code == 3 and f"{first}p1 is mounted at {MOUNT} already" in ended.stderr
    elsewhere = machine.volume("mount", first, "--blank", "--mount", "/mnt/other")
    assert elsewhere.code == 3 and f"{first}p1 is mounted at {MOUNT}" in elsewhere.stderr


@pytest.mark.parametrize(
    "line",
    [
        f"UUID=0000 {MOUNT} ext4 defaults 0 2",
        f"/dev/sdz {MOUNT}/ ext4 defaults 0 2",
        "UUID={uuid} /srv ext4 ro 0 0",
        "LABEL=larder /srv ext4 ro 0 0",
        "{device}p1 /srv ext4 ro 0 0",
    ],
    ids=["point", "point with a slash", "UUID", "label", "path"],
)
def test_foreign_line_in_fstab_is_named_and_kept(machine: Machine, line: str) -> None:
    device, fstab = machine.disk(), machine.root / "etc/fstab"
    assert machine.volume("prepare", device, "--blank").code == 0
    uuid = machine.run("blkid", "-s", "UUID", "-o", "value", f"{device}p1").strip()
    theirs = line.format(uuid=uuid, device=device) + "\n"
    fstab.write_text(theirs)
    ended = machine.volume("mount", device)
    assert ended.code == 3 and "/etc/fstab has a line of somebody else" in ended.stderr
    assert theirs.split()[1] in ended.stderr
    assert machine.volume("unmount", device).code == 0
    assert fstab.read_text() == theirs


def test_later_foreign_line_in_fstab_stays_when_ours_goes(machine: Machine) -> None:
    device, fstab = machine.disk(), machine.root / "etc/fstab"
    fstab.chmod(0o640)
    machine.volume("mount", device, "--blank")
    theirs = f"# mine\nUUID=0000 {MOUNT} ext4 noauto 0 2\n"
    fstab.write_text(fstab.read_text() + theirs)
    assert machine.volume("unmount", device).code == 0
    assert (fstab.read_text(), fstab.stat().st_mode & 0o777) == ("# nothing yet\n" + theirs, 0o640)


def test_disk_is_known_by_a_link_too(machine: Machine) -> None:
    device = machine.disk()
    machine.run("ln", "-s", device, "/mnt/by-id")
    for _ in range(2):
        ended = machine.volume("mount", "/mnt/by-id", "--blank")
        assert ended.code == 0, ended.stderr
    assert machine.look("/mnt/by-id")["state"] == "mounted"
    assert machine.uses("/mnt/by-id") == [f"mounted at {MOUNT}"]
    assert machine.volume("unmount", "/mnt/by-id").code == 0
    assert machine.uses(device) == []


def test_docker_s_unit_is_named_as_systemd_names_mount_points(machine: Machine) -> None:
    device, unit = machine.disk(), machine.root / "etc/systemd/system/docker.service.d/larder-mnt-my\\x2ddisk.conf"
    assert machine.volume("mount", device, "--blank", "--mount", "/mnt/my-disk").code == 0
    assert unit.read_text() == "[Unit]\nRequiresMountsFor=/mnt/my-disk\n"
    assert machine.volume("unmount", device, "--mount", "/mnt/my-disk").code == 0
    assert not unit.exists()


@pytest.mark.parametrize("mount", ["/mnt/link", "/mnt/link/block"])
def test_mount_point_below_a_link_is_refused_before_anything_is_changed(machine: Machine, mount: str) -> None:
    device = machine.disk()
    machine.run("mkdir", "/mnt/real")
    machine.run("ln", "-s", "real", "/mnt/link")
    before, fstab = digest(device), (machine.root / "etc/fstab").read_text()
    ended = machine.volume("mount", device, "--blank", "--mount", mount)
    assert (ended.code, digest(device), (machine.root / "etc/fstab").read_text()) == (2, before, fstab)
    assert f"next step: give --mount {mount.replace('link', 'real')}\n" in ended.stderr


SYSTEMCTL = """#!/bin/sh
units=/etc/systemd/system/docker.service.d
case $1 in
daemon-reload)
    cat $units/larder-*.conf 2>&1 | sed -n 's/^RequiresMountsFor=//p' | grep -v "$(cat /mnt/ignored)" >/mnt/required ;;
show) printf 'LoadState=%s\nRequiresMountsFor=/mnt/block-2 %s\n' "$(cat /mnt/docker)" "$(cat /mnt/required)" ;;
esac
exit 0
"""
"""In place of a systemd that has Docker's unit and, for some mounts, ignores what it requires."""


@pytest.fixture
def systemctl(machine: Machine) -> Iterator[None]:
    program = machine.root / "usr/local/bin/systemctl"
    machine.run("mkdir", "-p", "/run/systemd/system")
    for name, text in (("required", ""), ("ignored", "none"), ("docker", "loaded")):
        (machine.root / "mnt" / name).write_text(text)
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    yield
    program.unlink()


def test_mount_that_docker_doesn_t_require_is_reported(machine: Machine, systemctl: None) -> None:
    device = machine.disk()
    (machine.root / "mnt/ignored").write_text(MOUNT)
    for _ in range(2):
        ended = machine.volume("mount", device, "--blank")
        assert ended.code == 3 and f"Docker's unit doesn't require {MOUNT}" in ended.stderr, ended
    (machine.root / "mnt/docker").write_text("not-found")
    assert machine.volume("mount", device).code == 0
    assert machine.volume("unmount", device).code == 0


def test_systemd_reads_docker_s_unit_even_if_a_killed_run_didn_t_have_it_do_so(
    machine: Machine, systemctl: None
) -> None:
    device, required = machine.disk(), machine.root / "mnt/required"
    assert machine.volume("mount", device, "--blank").code == 0
    assert required.read_text() == f"{MOUNT}\n"
    required.write_text("")
    assert machine.volume("mount", device).code == 0
    assert required.read_text() == f"{MOUNT}\n"
    for _ in range(2):
        assert machine.volume("unmount", device).code == 0
        assert required.read_text() == ""
        required.write_text(f"{MOUNT}\n")


def test_volume_that_was_mounted_by_its_serial_is_forgotten_by_its_device_too(machine: Machine) -> None:
    device, fstab = machine.disk(), machine.root / "etc/fstab"
    assert machine.volume("mount", device, "--blank").code == 0
    fstab.write_text(fstab.read_text().replace("x-larder=by-hand", "x-larder=0b5a7c1e-0000-4000-8000-000000000000"))
    ended = machine.volume("unmount", device)
    assert ended.code == 0 and fstab.read_text() == "# nothing yet\n", ended
    assert not list((machine.root / "etc/systemd/system/docker.service.d").iterdir())


OLDEST = """#!/bin/sh
export LD_LIBRARY_PATH=/mnt/python/lib
exec /mnt/python/bin/python3.9 "$@"
"""


def test_the_oldest_python_does_all_of_it(machine: Machine) -> None:
    """An interpreter of this machine, seen by the small Debian, too."""
    found = sorted(Path.home().glob(".pyenv/versions/3.9*"))
    if not found:
        missing("there is no Python 3.9 here: pyenv install 3.9")
    device, folder, python = machine.disk(), machine.root / "mnt/python", machine.root / "usr/local/bin/python3"
    folder.mkdir()
    machine.bind(found[0], folder)
    python.write_text(OLDEST)
    python.chmod(0o755)
    try:
        assert machine.run("python3", "--version").startswith("Python 3.9.")
        assert machine.volume("mount", device, "--blank").code == 0
        assert machine.uses(device) == [f"mounted at {MOUNT}"]
        machine.run("sh", "-c", f"echo kept >{MOUNT}/workspace/note")
        seen = machine.look(device)
        assert (seen["state"], seen["mounted_at"], seen["users"]) == ("mounted", MOUNT, [])
        assert machine.volume("unmount", device).code == 0
        machine.grow_disk(device, 2 * GIB)
        assert machine.volume("grow", device, "--gib", "2").code == 0
        assert machine.volume("mount", device, "--gib", "2").code == 0
        assert machine.run("cat", f"{MOUNT}/workspace/note") == "kept\n"
        assert machine.volume("unmount", device).code == 0
        with open(device := machine.disk(), "r+b") as stream:
            stream.write(b"theirs")
        ended = machine.volume("mount", device, "--blank")
        assert ended.code == 3 and "data without a signature, at byte 0" in ended.stderr
        assert machine.volume("mount", device, "--blank", "--mount", "/mnt/../z").code == 2
    finally:
        python.unlink()
        machine.unbind(folder)


def test_lock_is_root_s_alone(machine: Machine) -> None:
    machine.look(machine.disk())
    assert machine.run("stat", "-c", "%U %a", "/run/larder-volume.lock") == "root 600\n"


def test_missing_disk_is_reported_with_the_disks_that_exist(machine: Machine) -> None:
    begin = time.monotonic()
    argv = ["/provision/host/volume.py", "mount", "--serial", "0b5a7c1e-0000-4000-8000-000000000000", "--wait", "2"]
    ended = subprocess.run(machine.command(*argv), capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert "after 2 s there is no disk with the serial 0b5a7c1e-0000-4000-8; disks here: " in ended.stderr
    assert time.monotonic() - begin >= 1


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ([], "no command"),
        (["melt", "--device", "x"], "melt"),
        (["look"], "neither --serial nor --device"),
        (["look", "--serial", "vdb"], "shorter than 20"),
        (["look", "--device"], "--device lacks its value"),
        (["look", "--device", "/dev/loop0", "--gib", "1.5"], "whole"),
        (["look", "--devise", "x"], "unknown option"),
        (["mount", "--device", "/dev/loop0", "--mount", "/mnt/a b"], "plain letters"),
        (["mount", "--device", "/dev/loop0", "--mount", "/mnt/q/../z"], "the name . or .."),
        (["unmount", "--device", "/dev/loop0", "--mount", "/mnt/./z"], "the name . or .."),
        (["mount", "--device", "/dev/loop0", "--mount", "/mnt/z\n"], "plain letters"),
        (["mount", "--device", "/dev/loop0", "--serial", "0b5a7c1e-0000-4000-8000-000000000000"], "both"),
        (["mount", "--device", "/dev/loop0", "--wait", "-1"], "no number of seconds"),
        (["mount", "--device", "/dev/loop0", "--owner", "cc"], "UID:GID"),
    ],
)
def test_wrong_usage_is_told(machine: Machine, options: list[str], fault: str) -> None:
    argv = machine.command("/provision/host/volume.py", *options)
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert fault in ended.stderr and "next step: volume.py --help" in ended.stderr
