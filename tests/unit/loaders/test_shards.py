"""Samples of tar streams, and streams that aren't shards."""

from __future__ import annotations

import io
import tarfile

import pytest

from larder.errors import InputError
from larder.loaders.shard_dataset import read_shard_samples

URI = "s3://bucket/shard-000000.tar"


def archive(*members: tuple[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def samples(content: bytes) -> list[tuple[str, bytes, int]]:
    read = read_shard_samples(io.BytesIO(content), len(content), URI, classes=10)
    return [(sample.name, sample.image, sample.label) for sample in read]


def test_members_with_one_key_are_a_sample() -> None:
    long = "class_00/" + 200 * "x"
    content = archive(
        ("class_00/1.jpg", b"one"),
        ("class_00/1.cls", b"0"),
        ("class_01/1.cls", b"1"),
        ("class_01/1.jpg", b"two"),
        (f"{long}.jpeg", b"three"),
        (f"{long}.cls", b"2"),
        format=tarfile.PAX_FORMAT,
    )
    assert samples(content) == [
        (f"{URI}, class_00/1.jpg", b"one", 0),
        (f"{URI}, class_01/1.jpg", b"two", 1),
        (f"{URI}, {long}.jpeg", b"three", 2),
    ]


def test_members_with_other_extensions_are_skipped() -> None:
    content = archive(("1.json", b"{}"), ("1.JPG", b"one"), ("1.cls", b"3"), ("notes.txt", b"!"))
    read = read_shard_samples(io.BytesIO(content), len(content), URI, 10, {"jpg", "cls"})
    assert [(sample.image, sample.label) for sample in read] == [(b"one", 3)]


def test_an_archive_without_padding_to_records() -> None:
    content = archive(("1.jpg", b"one"), ("1.cls", b"0"))
    assert len(samples(content[: 4 * 512 + 1024])) == 1
    assert samples(archive()) == []


@pytest.mark.parametrize(
    ("members", "has"),
    [
        pytest.param([("1.jpg", b"one"), ("2.cls", b"0")], "'1' .* has jpg:", id="no-label"),
        pytest.param([("1.cls", b"0")], "'1' .* has cls:", id="no-image"),
        pytest.param([("1.jpg", b""), ("1.png", b""), ("1.cls", b"0")], "has jpg, png, cls:", id="two-images"),
        pytest.param([("1.jpg", b""), ("1.cls", b"bread")], "'1' .* has jpg, cls:", id="a-name-for-a-label"),
        pytest.param([("1.jpg", b""), ("1.cls", b"10")], "class 10, and the manifest names 10", id="too-large-a-class"),
    ],
)
def test_what_makes_no_sample(members: list[tuple[str, bytes]], has: str) -> None:
    with pytest.raises(InputError, match=has):
        samples(archive(*members))


@pytest.mark.parametrize("harm", [bytes(512), b"x" * 512], ids=["zeros", "nonsense"])
def test_an_invalid_header_is_not_taken_for_the_end(harm: bytes) -> None:
    content = bytearray(archive(*((f"{number}.{kind}", b"7") for number in range(40) for kind in ("jpg", "cls"))))
    content[20 * 1024 : 20 * 1024 + 512] = harm
    with pytest.raises(InputError, match="damaged: no tar header at byte 20,480"):
        samples(bytes(content))


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100], ids=["empty", "text"])
def test_what_is_no_archive(content: bytes) -> None:
    with pytest.raises(tarfile.TarError):
        samples(content)
