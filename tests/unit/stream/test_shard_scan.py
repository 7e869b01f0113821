"""Anybody's shards: what is in them besides images and labels, and what happens when they can't be read."""

import io
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from larder.errors import ConfigurationError, InputError
from larder.stream.array_stream import ArrayStream
from larder.stream.ordered_threads import map_in_threads
from larder.stream.shard_folders import LocalShards
from larder.stream.shard_scan import split_key
from tests.unit.stream.conftest import MakeShards, jpeg, tar_of
from tests.unit.stream.streams import CROP, ROOT, pixels_of, stream_of


def labels_of(folder: Path, **options: Any) -> tuple[list[int], ArrayStream]:
    usual: dict[str, Any] = {"transform": CROP, "mode": "thread", "shuffle": False, "on_damage": "skip"}
    stream = ArrayStream(folder, **(usual | options))
    return [label for _, labels in stream for label in labels.tolist()], stream


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a/0001.seg.png", ("a/0001", "seg.png")),
        ("a.b/0001.jpg", ("a.b/0001", "jpg")),
        ("0001.", ("0001", "")),
        ("__a.jpg", ("__a", "jpg")),
        ("__a__.jpg", ("__a__", "jpg")),
        ("a/__b__/0.jpg", ("a/__b__/0", "jpg")),
        ("README", None),
        ("a.b/README", None),
        (".gitignore", None),
        ("a/.b.jpg", None),
        ("__info__", None),
        ("__info__/0.jpg", None),
    ],
)
def test_keys_are_those_of_webdataset(path: str, parts: tuple[str, str] | None) -> None:
    assert split_key(path) == parts


def test_files_that_belong_to_no_sample(tmp_path: Path) -> None:
    members = {
        "README": b"read me",
        "__info__/a.txt": b"of the shard",
        "0.jpg": jpeg(0),
        "LICENSE": b"x",
        "0.cls": b"7",
    }
    (tmp_path / "a.tar").write_bytes(tar_of(members | {"1.jpg": jpeg(1), ".hidden": b"h", "1.cls": b"8"}))
    [(images, labels)] = ArrayStream(tmp_path, transform=CROP, shuffle=False, mode="thread")
    assert [image.tobytes() for image in images] == [pixels_of(jpeg(number)).tobytes() for number in range(2)]
    assert labels.tolist() == [7, 8]
    samples = list(ArrayStream(tmp_path, shuffle=False).samples())
    assert samples == [
        {"jpg": jpeg(0), "cls": b"7", "__key__": "0"},
        {"jpg": jpeg(1), "cls": b"8", "__key__": "1"},
    ]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE], ids=["symbolic", "hard"])
def test_a_link_is_no_empty_image(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in {"0.jpg": jpeg(0), "0.cls": b"3", "1.jpg": b"", "1.cls": b"4", "2.cls": b"5"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if not content:
                info.type, info.linkname = kind, "0.jpg"
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(InputError, match=r"a\.tar: '1\.jpg' is a link, and links aren't followed"):
        ArrayStream(tmp_path)
    labels, stream = labels_of(tmp_path)
    assert labels == [3]
    assert [reason for _, _, reason in stream.skipped] == [
        "the shard: '1.jpg' is a link, and links aren't followed",
        "it has no image",
    ]


@pytest.mark.parametrize("mode", ["thread", "process"])
def test_samples_that_cannot_be_used_are_skipped_on_request(tmp_path: Path, mode: str) -> None:
    members = {
        "0.jpg": jpeg(0), "0.cls": b"cat",
        "1.jpg": jpeg(1), "1.cls": b"1",
        "2.jpg": jpeg(2),
        "3.cls": b"3",
        "4.jpg": jpeg(4), "4.JPG": jpeg(5), "4.cls": b"4",
        "5.jpg": jpeg(5), "5.cls": b"5",
    }  # fmt: skip
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    labels, stream = labels_of(tmp_path, mode=mode)
    stream.close()
    assert labels == [1, 5]
    assert stream.skipped_count == 4
    assert sorted(reason for _, _, reason in stream.skipped) == [
        "it has no image",
        "it has no label",
        "the shard: '0.cls' is b'cat', and a label is a decimal number",
        "the shard: '4.JPG' is in the sample twice",
    ]
    _, again = labels_of(tmp_path)
    assert len(list(again.samples())) == 4, "what lacks an image or a label is a sample, too"


@pytest.mark.parametrize(
    ("spoil", "labels", "reason"),
    [
        (lambda content: content[:-1024], [0, 1], "it has no end-of-archive block, so it was cut off"),
        (lambda content: content[: len(content) // 2], [0], "it has no end-of-archive block, so it was cut off"),
        (lambda content: b"x" * len(content), [], "there is no header at byte 0"),
        (lambda content: b"", [], "it has no end-of-archive block, so it was cut off"),
    ],
    ids=["end", "middle", "all", "empty"],
)
def test_a_damaged_shard_is_skipped_on_request(
    tmp_path: Path, spoil: Callable[[bytes], bytes], labels: list[int], reason: str
) -> None:
    """Its last sample may be incomplete."""
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for number in range(3):
            for name, content in ((f"{number}.jpg", jpeg(number)), (f"{number}.cls", b"%d" % number)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        blocks = archive.offset
    content = (tmp_path / "a.tar").read_bytes()[:blocks] + bytes(1024)
    (tmp_path / "a.tar").write_bytes(spoil(content))
    (tmp_path / "b.tar").write_bytes(tar_of({"9.jpg": jpeg(9), "9.cls": b"9"}))
    with pytest.raises(InputError, match=reason):
        ArrayStream(tmp_path)
    found, stream = labels_of(tmp_path)
    assert found == [*labels, 9]
    [(shard, _, why)] = stream.skipped
    assert (shard, why) == ("a.tar", f"the shard is damaged: {reason}")


def test_images_among_which_one_must_choose_are_never_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of({"a.jpg": jpeg(1), "a.png": jpeg(2, kind="PNG"), "a.cls": b"1"}))
    with pytest.raises(InputError, match="has several images: jpg, png"):
        ArrayStream(tmp_path, on_damage="skip")


def test_shards_without_a_good_sample_say_why(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of({"a.jpg": jpeg(1), "a.cls": b"cat"}))
    with pytest.raises(ConfigurationError, match=r"has 0 samples for 1 ranks; the first one .*a\.tar, .* is b'cat'"):
        labels_of(tmp_path)


def spoilt(header: bytes) -> bytes:
    """A header whose name ends before its field does, with other bytes behind it."""
    header = header[:60] + b"rest" + header[64:]
    checksum = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    return header[:148] + b"%06o\0 " % checksum + header[156:]


def test_a_name_ends_where_its_field_says(tmp_path: Path) -> None:
    content = tar_of({"0.jpg": jpeg(0), "0.cls": b"7"})
    (tmp_path / "a.tar").write_bytes(spoilt(content[:512]) + content[512:])
    [sample] = ArrayStream(tmp_path).samples()
    assert sample == {"jpg": jpeg(0), "cls": b"7", "__key__": "0"}


@pytest.mark.parametrize("folder", ["x//y/", "x/./y/", "./x/y/", "x/y/"])
def test_keys_are_normalized(tmp_path: Path, folder: str) -> None:
    """Whether a name is ASCII or not."""
    (tmp_path / "a.tar").write_bytes(tar_of({f"{folder}0.txt": b"0", f"{folder}ü.txt": b"1"}))
    samples = list(ArrayStream(tmp_path, shuffle=False).samples())
    assert [sample["__key__"] for sample in samples] == ["x/y/0", "x/y/ü"]


@pytest.mark.parametrize("at", [3, 130, 156, 260])
def test_a_damaged_header_is_no_other_sample(make_shards: MakeShards, at: int) -> None:
    """With an index, headers are read only here."""
    packed = make_shards(6, 1)
    shard = packed.folder / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[at] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"shard-000000\.tar, byte 512.* there is no header at byte 0"):
        list(stream_of(packed).samples())
    assert len(list(stream_of(packed, on_damage="skip").samples())) == 5


def test_shards_on_a_disk_are_in_the_order_of_a_bucket(tmp_path: Path) -> None:
    names = ["a-b/0.tar", "a/0.tar", "a.tar", "a/B.tar"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert list(LocalShards(tmp_path).list("")) == sorted(names)


def test_results_have_the_order_of_the_arguments() -> None:
    first_is_done = threading.Event()

    def job(number: int, stop: threading.Event) -> int:
        if number == 1:
            first_is_done.wait(60)
        if number == 2:
            first_is_done.set()
        return number * number

    assert list(map_in_threads(job, range(50), 4)) == [number * number for number in range(50)]
    assert list(map_in_threads(job, [], 4)) == []


def test_jobs_stop_when_one_fails_or_the_loop_is_left() -> None:
    before, ended = set(threading.enumerate()), list[int]()

    def job(number: int, stop: threading.Event) -> int:
        if number == 1:
            raise ValueError("one")
        if number > 1:
            assert stop.wait(60)
            ended.append(number)
        return number

    results = map_in_threads(job, range(100), 4)
    assert next(results) == 0
    with pytest.raises(ValueError, match="one"):
        next(results)
    assert len(ended) <= 4, "no further job begins"
    assert set(threading.enumerate()) <= before
    results = map_in_threads(job, [0, 2, 3], 3)
    assert next(results) == 0
    del results
    assert set(threading.enumerate()) <= before


STALLED = """
import os, sys, threading
from larder.stream.array_stream import ArrayStream
from larder.stream.shard_folders import LocalShards

def never(self, *arguments):
    os.write(1, b"reading\\n")  # in one piece, since other threads write, too
    threading.Event().wait()

LocalShards.read = never
ArrayStream(sys.argv[1])
"""


def test_ctrl_c_while_headers_are_read(make_shards: MakeShards) -> None:
    packed = make_shards(4, 2, indexed=False)
    command = [sys.executable, "-c", STALLED, str(packed.folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "reading\n"
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode in (-signal.SIGINT, 130)
    assert said.strip().endswith("KeyboardInterrupt")
