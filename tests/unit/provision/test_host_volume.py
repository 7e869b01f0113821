"""The volume script's rules, without a disk: what counts as blank, how the output of other programs is read."""

from __future__ import annotations

import ast
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.host import volume
from provision.host.volume import (
    BLANK,
    FOREIGN,
    GIB,
    HALF_MADE,
    READY,
    UNREAD,
    Disk,
    Evidence,
    FstabLine,
    Options,
    Partition,
    Probe,
    TableParts,
    VolumeError,
    decide,
)

SCRIPT = Path(volume.__file__)
MIB = 1 << 20
ONE = Partition("/dev/vdb1", MIB, GIB)
TWO = Partition("/dev/vdb2", GIB + MIB, GIB)
GPT = Probe(table="gpt", signatures=("gpt at byte 512",))
EXT4 = Probe(type="ext4", uuid="77922e7e", label="larder", signatures=("ext4 at byte 1080",))
OURS = Probe(name="larder")
READ = {"is_read": True, "data_at": None}


def on(**found: Any) -> Evidence:
    """What was found on a disk on which nothing else was found."""
    return Evidence("/dev/vdb", **{"whole": Probe(), **found})


def in_one(part: Probe, **found: Any) -> Evidence:
    """What was found in the only partition of a disk."""
    return on(whole=GPT, partitions=(ONE,), part=part, written=(ONE,), **found)


# Every row: what was found, what the disk is, the device in question, a part of the reason.
DECISIONS = {
    "zeros": (on(**READ), BLANK, "vdb", "no signature, and zeros"),
    "not read yet": (on(), UNREAD, "vdb", ""),
    "a byte": (on(is_read=True, data_at=0), FOREIGN, "vdb", "data without a signature, at byte 0"),
    "ext4": (on(whole=EXT4), READY, "vdb", "ext4, label 'larder', UUID 77922e7e"),
    "ext4 without a UUID": (on(whole=replace(EXT4, uuid="")), FOREIGN, "vdb", "ext4"),
    "ext4 and something else": (on(whole=replace(EXT4, type="ambivalent")), FOREIGN, "vdb", "ambivalent"),
    "another file system": (on(whole=Probe(type="xfs", uuid="1")), FOREIGN, "vdb", "xfs"),
    "LVM": (on(whole=Probe(type="LVM2_member")), FOREIGN, "vdb", "LVM2_member"),
    "what only wipefs knows": (on(whole=Probe(signatures=("x at byte 1",))), FOREIGN, "vdb", "unknown (x at byte 1)"),
    "what only wipefs knows, and zeros": (on(whole=Probe(signatures=("x at byte 1",)), **READ), FOREIGN, "vdb", "x at"),
    "partitions in the kernel alone": (on(partitions=(ONE,), **READ), FOREIGN, "vdb", "parts of it: /dev/vdb1"),
    "a holder": (on(holders=("dm-0",), **READ), FOREIGN, "vdb", "parts of it: dm-0"),
    "zeros, in use": (on(held=True, **READ), FOREIGN, "vdb", "in use"),
    "zeros in a partition": (on(is_partition=True, **READ), FOREIGN, "vdb", "only a whole disk is formatted"),
    "ext4 in a partition": (on(whole=EXT4, is_partition=True), READY, "vdb", "ext4"),
    "no partitions": (on(whole=GPT), FOREIGN, "vdb", "(gpt) with 0 partitions"),
    "no partitions, and zeros": (on(whole=GPT, **READ), FOREIGN, "vdb", "(gpt) with 0 partitions"),
    "two partitions": (on(whole=GPT, partitions=(ONE, TWO)), FOREIGN, "vdb", "2 partitions: /dev/vdb1 /dev/vdb2"),
    "a partition with ext4": (in_one(EXT4), READY, "vdb1", "ext4"),
    "a partition with another": (in_one(Probe(type="vfat", name="larder")), FOREIGN, "vdb1", "vfat"),
    "a partition with a table": (in_one(Probe(table="dos", name="larder")), FOREIGN, "vdb1", "unknown"),
    "a table around ext4": (in_one(replace(EXT4, table="dos")), FOREIGN, "vdb1", "ext4"),
    "somebody's partition, zeros": (in_one(Probe(name="theirs"), **READ), FOREIGN, "vdb1", "isn't of our making"),
    "a nameless partition, zeros": (in_one(Probe(), **READ), FOREIGN, "vdb1", "isn't of our making"),
    "our partition": (in_one(OURS), UNREAD, "vdb1", ""),
    "our partition, zeros": (in_one(OURS, **READ), HALF_MADE, "vdb1", "no signature, and zeros"),
    "our partition, a byte": (in_one(OURS, is_read=True, data_at=7), FOREIGN, "vdb1", "at byte 7"),
    "our partition, zeros, in use": (in_one(OURS, held=True, **READ), FOREIGN, "vdb1", "in use"),
    "our partition, zeros, a holder": (in_one(OURS, holders=("md0",), **READ), FOREIGN, "vdb1", "in use"),
    "our partition, another on the disk": (
        replace(in_one(OURS, **READ), written=(ONE, TWO)), FOREIGN, "vdb1", "the table on the disk has other",
    ),
    "our partition, unreadable table": (replace(in_one(OURS, **READ), written=()), FOREIGN, "vdb1", "other partitions"),
    "our partition, zeros, no sfdisk": (replace(in_one(OURS, **READ), written=None), HALF_MADE, "vdb1", "zeros"),
    "an unfinished table of ours": (on(unfinished_table=True), HALF_MADE, "vdb", "an interrupted partitioning of ours"),
}  # fmt: skip


@pytest.mark.parametrize(("evidence", "state", "place", "reason"), DECISIONS.values(), ids=DECISIONS)
def test_decision(evidence: Evidence, state: str, place: str, reason: str) -> None:
    verdict = decide(evidence)
    assert (verdict.state, verdict.place) == (state, f"/dev/{place}"), verdict.reasons
    assert reason in "\n".join(verdict.reasons)


SOMETHING = st.one_of(
    st.just(Probe()),
    st.builds(
        Probe,
        table=st.sampled_from(["", "gpt", "dos"]),
        type=st.sampled_from(["", "ext4", "xfs", "ambivalent"]),
        uuid=st.sampled_from(["", "77922e7e"]),
        name=st.sampled_from(["", "larder", "theirs"]),
        signatures=st.sampled_from([(), ("swap at byte 4086",)]),
    ),
)


@given(
    st.builds(
        Evidence,
        path=st.just("/dev/vdb"),
        whole=SOMETHING,
        partitions=st.sampled_from([(), (ONE,), (ONE, TWO)]),
        holders=st.sampled_from([(), ("dm-0",)]),
        held=st.booleans(),
        is_partition=st.booleans(),
        part=SOMETHING,
        written=st.sampled_from([None, (), (ONE,), (ONE, TWO)]),
        is_read=st.booleans(),
        data_at=st.one_of(st.none(), st.integers(0, GIB)),
    )
)
def test_whatever_was_found_only_zeros_that_were_read_and_nobody_uses_are_formatted(evidence: Evidence) -> None:
    verdict = decide(evidence)
    if verdict.state in (BLANK, HALF_MADE):
        assert evidence.is_read and evidence.data_at is None and not evidence.held and not evidence.holders
        assert verdict.found.is_empty
        assert evidence.whole.is_empty or (evidence.partitions == (ONE,) and evidence.part.name == "larder")


# --- what is read -----------------------------------------------------------------------------------------------------


def test_ends_and_samples_between_are_read() -> None:
    ranges = volume.ranges_to_read(100 * GIB)
    assert ranges[:2] == [(0, 16 * MIB), (100 * GIB - 16 * MIB, 16 * MIB)]
    samples = ranges[2:]
    assert len(samples) == 511 and {length for _, length in samples} == {64 << 10}
    assert {second[0] - first[0] for first, second in itertools.pairwise(samples)} == {(100 * GIB - 16 * MIB) // 512}


@given(size=st.integers(1, 40 * MIB))
def test_small_device_is_read_from_its_first_to_its_last_byte(size: int) -> None:
    ranges = volume.ranges_to_read(size)
    assert min(first for first, _ in ranges) == 0 and max(first + length for first, length in ranges) == size
    if size <= 32 * MIB:
        assert ranges[0][1] + ranges[1][1] >= size


@given(size=st.integers(1 * MIB, 1 << 45), edge=st.sampled_from([0, 17408, 24576]))
def test_ranges_leave_out_the_edges_alone(size: int, edge: int) -> None:
    ranges = volume.ranges_to_read(size, edge)
    assert min(first for first, _ in ranges) == edge
    assert max(first + length for first, length in ranges) == size - edge
    assert all(length > 0 for _, length in ranges)


def test_first_byte_that_isn_t_zero_is_found_and_a_short_device_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "device"
    file.write_bytes(bytes(3 * MIB))
    assert volume.first_data(str(file)) is None
    for at in (0, 1, MIB - 1, MIB, 3 * MIB - 1):
        file.write_bytes(bytes(at) + b"\1" + bytes(3 * MIB - at - 1))
        assert volume.first_data(str(file)) == at
    with file.open("rb") as device, pytest.raises(OSError, match="too early"):
        volume.read_exactly(device.fileno(), 2 * MIB, 2 * MIB)
    with pytest.raises(VolumeError, match="can't be read: No such file"):
        volume.first_data(str(tmp_path / "none"))


def entry(name: str = "larder", kind: bytes = volume.LINUX_PARTITION, flags: int = 0) -> bytes:
    """An entry of a GPT."""
    return struct.pack("<16s16sQQQ72s", kind, b"unique", 2048, 4095, flags, name.encode("utf-16le"))


HEADER = b"EFI PART".ljust(92, b"x") + bytes(420)
LIST = entry() + bytes(16384 - 128)
NONE = bytes(512)
NO_LIST = bytes(16384)
TABLES = {
    "last list": (TableParts(NONE, (NONE, NONE), (NO_LIST, LIST), NONE), True),
    "and last header": (TableParts(NONE, (NONE, HEADER), (NO_LIST, LIST), NONE), True),
    "all but the first sector": (TableParts(NONE, (HEADER, HEADER), (LIST, LIST), NONE), True),
    "all": (TableParts(b"x" * 512, (HEADER, HEADER), (LIST, LIST), NONE), False),
    "nothing": (TableParts(NONE, (NONE, NONE), (NO_LIST, NO_LIST), NONE), False),
    "headers alone": (TableParts(NONE, (HEADER, HEADER), (NO_LIST, NO_LIST), NONE), False),
    "data before the last list": (TableParts(NONE, (NONE, NONE), (NO_LIST, LIST), b"x" * 512), False),
    "a header with data behind it": (TableParts(NONE, (NONE, HEADER[:-1] + b"x"), (NO_LIST, LIST), NONE), False),
    "another header": (TableParts(NONE, (NONE, b"x" * 512), (NO_LIST, LIST), NONE), False),
    "another name": (TableParts(NONE, (NONE, NONE), (NO_LIST, entry("larders") + LIST[128:]), NONE), False),
    "another type": (TableParts(NONE, (NONE, NONE), (NO_LIST, entry(kind=b"x") + LIST[128:]), NONE), False),
    "a flag": (TableParts(NONE, (NONE, NONE), (NO_LIST, entry(flags=4) + LIST[128:]), NONE), False),
    "a second partition": (TableParts(NONE, (NONE, NONE), (NO_LIST, entry() * 2 + LIST[256:]), NONE), False),
    "one list of somebody else": (TableParts(NONE, (NONE, NONE), (b"x" * 16384, LIST), NONE), False),
}


@pytest.mark.parametrize(("parts", "is_ours"), TABLES.values(), ids=TABLES)
def test_unfinished_table_is_known_by_its_parts(parts: TableParts, is_ours: bool) -> None:
    assert volume.is_unfinished_table(parts) is is_ours


# --- the output of other programs -------------------------------------------------------------------------------------

LSBLK = """{"blockdevices": [
  {"path":"/dev/vda", "serial":null, "size":6442450944, "log-sec":512, "ro":false, "type":"disk"},
  {"path":"/dev/vdb", "serial":"0b5a7c1e-0000-4000-8", "size":"1073741824", "log-sec":"4096", "ro":"1", "type":"disk"}
]}"""


def test_lsblk_s_devices_are_read_of_new_and_old_releases() -> None:
    assert volume.parse_disks(LSBLK) == [
        Disk("/dev/vda", "", 6 * GIB, 512, False, "disk"),
        Disk("/dev/vdb", "0b5a7c1e-0000-4000-8", GIB, 4096, True, "disk"),
    ]


@pytest.mark.parametrize(
    ("shown", "serial", "is_it"),
    [
        ("0b5a7c1e-0000-4000-8", "0b5a7c1e-0000-4000-8000-000000000000", True),
        ("0b5a7c1e-0000-4000-8000-000000000000", "0b5a7c1e-0000-4000-8000-000000000000", True),
        ("0b5a7c1e-0000-4000-8000-000000000001", "0b5a7c1e-0000-4000-8000-000000000000", False),
        ("0b5a7c1e-0000-4000", "0b5a7c1e-0000-4000-8000-000000000000", False),
        ("", "0b5a7c1e-0000-4000-8000-000000000000", False),
    ],
    ids=["its beginning", "the whole", "another", "too short", "none"],
)
def test_disk_is_known_by_20_letters_of_its_serial(shown: str, serial: str, is_it: bool) -> None:
    assert volume.matches(Disk("/dev/vdb", shown, GIB, 512, False, "disk"), serial) is is_it


EXPORT = "DEVNAME=/dev/vdb1\nLABEL=my\\ label=x\nUUID=77922e7e\nTYPE=ext4\nUSAGE=filesystem\nPART_ENTRY_NAME=larder\n"
WIPEFS = '{"signatures": [{"type":"ext4", "offset":"0x438"}]}'
WIPEFS_TABLE = '{"signatures": [{"type":"gpt", "offset":"0x200"}, {"type":"PMBR", "offset":"0x1fe"}]}'


def test_blkid_s_and_wipefs_s_findings_are_joined() -> None:
    found = volume.parse_probe(EXPORT, 0, WIPEFS)
    assert found == Probe("", "ext4", "77922e7e", "my label=x", "larder", ("ext4 at byte 1080",))
    assert volume.parse_probe("", 2, '{"signatures": [\n\n]}') == Probe()
    assert volume.parse_probe("", 2, "").is_empty
    assert volume.parse_probe("", 8, "") == Probe(type="ambivalent")
    assert volume.parse_probe("PTTYPE=dos\n", 0, "").table == "dos"
    only_wipefs = volume.parse_probe("", 2, WIPEFS_TABLE)
    assert only_wipefs == Probe(table="gpt", signatures=("gpt at byte 512", "PMBR at byte 510"))


def test_partition_s_name_is_ours_only_if_it_is_written_so() -> None:
    for name in ("larder\\ ", "l\\arder", "Larder", "larder\\x20"):
        assert decide(in_one(volume.parse_probe(f"PART_ENTRY_NAME={name}\n", 2, ""), **READ)).state == FOREIGN


def test_sfdisk_s_partitions_are_read_in_bytes() -> None:
    partition = {"node": "/dev/vdb1", "start": 256, "size": 1024, "type": "0FC6", "name": "larder"}
    table = {"label": "gpt", "unit": "sectors", "sectorsize": 4096, "partitions": [partition]}
    expected = (Partition("/dev/vdb1", 256 * 4096, 1024 * 4096),)
    assert volume.parse_table(json.dumps({"partitiontable": table})) == expected
    del table["sectorsize"]
    assert volume.parse_table(json.dumps({"partitiontable": table}))[0].start == 256 * 512
    assert volume.parse_table('{"partitiontable": {"label": "gpt"}}') == ()


@pytest.mark.parametrize("text", ["lsblk: cannot", '{"blockdevices": [', "[]", "3"])
def test_anything_but_a_json_object_is_an_error(text: str) -> None:
    with pytest.raises(VolumeError, match="something else than JSON") as caught:
        volume.parse_disks(text)
    assert caught.value.next_step


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0B"), (512, "512B"), (1536, "1.5KiB"), (GIB, "1.0GiB"), (GIB + 1, "1.1GiB"), (100 * GIB, "100GiB")],
)
def test_sizes_are_said_as_numfmt_does(size: int, said: str) -> None:
    assert volume.words(size) == said


# --- the command line, fstab, units -----------------------------------------------------------------------------------


def test_options_have_defaults_by_command_and_user() -> None:
    who = {"SUDO_UID": "1000", "SUDO_GID": "1001"}
    assert volume.parse_options(["mount", "--device", "/dev/vdb"], who) == Options(
        "mount", device="/dev/vdb", owner=(1000, 1001), seconds=60
    )
    given = ["look", "--serial", "0b5a7c1e-0000-4000-8000", "--gib", "2", "--mount", "/srv/a-b", "--wait", "3"]
    assert volume.parse_options([*given, "--blank", "--owner", "5:6"], who) == Options(
        "look", "0b5a7c1e-0000-4000-8000", "", 2, "/srv/a-b", True, (5, 6), 3
    )
    assert volume.parse_options(["unmount", "--device", "x"], {}).seconds == 0


@pytest.mark.parametrize(
    "mount", ["/mnt/../z", "/mnt/.", "/..", "/mnt//z", "/mnt/", "mnt", "/", "/mnt/a b", "/m\n", ""]
)
def test_mount_point_that_systemd_would_ignore_is_refused(mount: str) -> None:
    with pytest.raises(VolumeError, match="--mount") as caught:
        volume.parse_options(["mount", "--device", "/dev/vdb", "--mount", mount], {})
    assert caught.value.code == 2


def test_mount_points_with_dots_in_a_name_are_allowed() -> None:
    assert volume.parse_options(["mount", "--device", "x", "--mount", "/mnt/..a/b.."], {}).mount == "/mnt/..a/b.."


OUR_LINE = "UUID=1 /mnt/block ext4 defaults,nofail,x-systemd.device-timeout=90s,x-larder=abc 0 2"
THEIR_LINES = ["# UUID=1 /mnt/block ext4 x-larder=abc", "", "UUID=1 /mnt/block ext4 defaults 0 2", "LABEL=x / ext4"]


def test_our_lines_alone_leave_fstab() -> None:
    ours = [OUR_LINE, OUR_LINE.replace("/mnt/block", "/mnt/old"), OUR_LINE.replace("UUID=1", "UUID=2")]
    other = OUR_LINE.replace("UUID=1", "UUID=3").replace("/mnt/block", "/mnt/other")
    lines = [FstabLine(text) for text in (*THEIR_LINES, *ours, other)]
    assert [line.text for line in volume.without_ours(lines, "/mnt/block", "1")] == [*THEIR_LINES, other]
    assert [line.mark for line in lines] == [None] * 4 + ["abc"] * 4


@pytest.mark.parametrize("field", ["/mnt/block", "/mnt/block/", "/mnt//block", "/mnt/../mnt/block", "/mnt/./block"])
def test_fstab_s_mount_points_are_compared_by_what_they_mean(field: str) -> None:
    assert FstabLine(f"/dev/sdz {field} ext4").is_at("/mnt/block")
    assert not FstabLine(f"/dev/sdz {field}2 ext4").is_at("/mnt/block")


@pytest.mark.parametrize(
    ("path", "name"),
    [("/mnt/block", "mnt-block"), ("/mnt/my-disk", r"mnt-my\x2ddisk"), ("/.a/.b_c", r"\x2ea-.b_c")],
)
def test_units_are_named_as_systemd_escape_does(path: str, name: str) -> None:
    assert volume.escape_path(path) == name


# --- Python 3.9 -------------------------------------------------------------------------------------------------------


def test_python_3_9_and_its_standard_library_suffice() -> None:
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 9))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in imports if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} <= set(sys.stdlib_module_names) and "__future__" in names
    assert not names & {"tomllib"} and "slots=True" not in SCRIPT.read_text()


@pytest.mark.parametrize("python", ["python3.9", "python3.10", "python3.13"])
def test_other_pythons_start_it(python: str) -> None:
    places = [*os.get_exec_path(), *map(str, Path.home().glob(f".pyenv/versions/{python[6:]}*/bin"))]
    interpreter = shutil.which(python, path=os.pathsep.join(reversed(places)))
    if interpreter is None:
        return  # the test before looks for newer syntax and modules
    ended = subprocess.run([interpreter, "-I", SCRIPT, "look"], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: neither --serial nor --device\n  next step: volume.py --help")


def test_foreign_text_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """A label on a disk can't move the cursor, forge a line or turn the text around."""
    assert volume.report(VolumeError(3, "a file system called \x1b[2Jx\nerror: \u202ey", "look at it")) == 3
    volume.say("found \x9b\u2028é")
    out, err = capsys.readouterr()
    assert err == "error: a file system called \\x1b[2Jx\\nerror: \\u202ey\n  next step: look at it\n"
    assert out == "found \\x9b\\u2028é\n"
