"""Archives in an archive: one level becomes folders, for every kind of outer and inner archive."""

from __future__ import annotations

import bz2
import gzip
import lzma
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import zstandard

from larder.errors import InputError
from larder.sources import SourceLimits, SourceOptions, TooLargeError, open_local
from larder.sources.inner import InnerArchivesSource
from larder.sources.members import Source
from tests.archives import (
    DEFLATE,
    FILE,
    STORED,
    SYMLINK,
    ZipEntry,
    contents,
    files_in_tar,
    files_in_zip,
    tar_of,
    v7_tar,
    zip_of,
)

TRAIN = {"cat/1.jpg": b"cat" * 700, "dog/2.jpg": b"", "dog/图.jpg": b"2"}
Pack = Callable[[dict[str, bytes]], bytes]
INNER: dict[str, Pack] = {
    "zip": files_in_zip,
    "tar": files_in_tar,
    "tar.gz": lambda files: gzip.compress(files_in_tar(files)),
    "tgz": lambda files: gzip.compress(v7_tar(files)),
    "tar.bz2": lambda files: bz2.compress(files_in_tar(files)),
    "tar.xz": lambda files: lzma.compress(files_in_tar(files), preset=0),
    "tar.zst": lambda files: zstandard.compress(files_in_tar(files)),
    "ZIP": files_in_zip,
}
OUTER: dict[str, Pack] = {
    "deflated zip": files_in_zip,
    "stored zip": partial(files_in_zip, method=STORED),
    "tar": files_in_tar,
    "tar.gz": INNER["tar.gz"],
}


def opened(tmp_path: Path, content: bytes, options: SourceOptions = SourceOptions()) -> Source:  # noqa: B008  (immutable)
    path = tmp_path / "given"
    path.write_bytes(content)
    return open_local(path, "given", options)


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER.keys())
@pytest.mark.parametrize("ending", INNER)
def test_inner_archives_become_folders(tmp_path: Path, outer: Pack, ending: str) -> None:
    inner = INNER[ending]
    own = {f"test/{path}": content for path, content in TRAIN.items()}  # packed with its folder
    archive = outer(
        {
            "a.csv": b"x",
            f"data/train.{ending}": inner(TRAIN),
            f"data/test.{ending}": inner(own),
            "z.jpg": b"z",
        }
    )
    expected = {"a.csv": b"x", "z.jpg": b"z"}
    expected |= {f"data/{split}/{path}": content for split in ("train", "test") for path, content in TRAIN.items()}
    source = opened(tmp_path, archive, SourceOptions(work=tmp_path / "work"))
    for _ in range(2):  # once to count, and once for the files
        assert contents(source) == expected
    assert isinstance(source, InnerArchivesSource)
    assert source.inner_count == 2
    assert source.parallel or not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER.keys())
def test_members_are_read_in_other_processes(tmp_path: Path, outer: Pack) -> None:
    source = opened(tmp_path, outer({"train.zip": files_in_zip(TRAIN), "test.tar.gz": INNER["tar.gz"](TRAIN)}))
    members = []
    for member in source.scan():
        members.append(member)
        if not source.parallel:  # then a member can only be read before the next one
            assert b"".join(source.read(member)) == TRAIN[member.path.partition("/")[2]]
    if source.parallel:
        copy, members = pickle.loads(pickle.dumps((source, members)))
        read = {member.path: b"".join(copy.read(member)) for member in members}
        assert read == {f"{split}/{path}": TRAIN[path] for split in ("train", "test") for path in TRAIN}


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER.keys())
def test_only_one_level_is_unpacked(tmp_path: Path, outer: Pack) -> None:
    deep = files_in_zip({"deeper.jpg": b"1"})
    archive = outer({"a.zip": files_in_zip({"b.zip": deep})})
    assert contents(opened(tmp_path, archive)) == {"a/b.zip": deep}


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER.keys())
def test_a_file_that_only_has_the_name_of_an_archive_is_kept(tmp_path: Path, outer: Pack) -> None:
    files = {"a.zip": b"no zip", "b.tar.gz": gzip.compress(b"no tar"), "c.tar": b"", ".zip": files_in_zip({"x": b""})}
    assert contents(opened(tmp_path, outer(files))) == files


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER.keys())
def test_an_archive_named_like_litter_is_litter(tmp_path: Path, outer: Pack) -> None:
    """Otherwise the archive could put its own index into the data."""
    inner = files_in_zip({"manifest.json": b"{}", "index.jsonl": b""})
    files = {"_larder.zip": inner, "a/_larder.tar.gz": INNER["tar.gz"]({"index.jsonl": b""}), "__MACOSX.zip": inner}
    assert contents(opened(tmp_path, outer({**files, "a.jpg": b"1"}))) == {"a.jpg": b"1"}


def test_inner_archives_can_be_left(tmp_path: Path) -> None:
    files = {"train.zip": files_in_zip(TRAIN)}
    assert contents(opened(tmp_path, files_in_zip(files), SourceOptions(inner=False))) == files


def test_a_tar_per_class_is_read_in_place(tmp_path: Path) -> None:
    """ILSVRC2012_img_train.tar is such an archive; nothing is copied."""
    classes = {f"n0{number}.tar": files_in_tar({f"n0{number}_1.JPEG": b"%d" % number}) for number in range(30)}
    source = opened(tmp_path, files_in_tar(classes), SourceOptions(work=tmp_path / "work"))
    assert contents(source) == {f"n0{number}/n0{number}_1.JPEG": b"%d" % number for number in range(30)}
    assert not (tmp_path / "work").exists()


def test_links_in_an_inner_archive_stay_in_its_folder(tmp_path: Path) -> None:
    inner = tar_of([("train/a", SYMLINK, "b"), ("train/b", FILE, "1"), ("c", SYMLINK, "train/b")])
    source = opened(tmp_path, files_in_tar({"in/train.tar": inner}))
    links = {member.path: member.link for member in source.scan() if member.link is not None}
    assert links == {"in/train/a": "in/train/b", "in/train/c": "in/train/b"}
    with pytest.raises(InputError, match="leaves the folder"):
        contents(opened(tmp_path, files_in_tar({"train.tar": tar_of([("a", SYMLINK, "../x")])})))


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER.keys())
@pytest.mark.parametrize(
    ("name", "inner", "why"),
    [
        ("a.zip", files_in_zip({"../x": b""}), "leaves"),
        ("a.zip", files_in_zip(TRAIN)[:-30], "cut off"),
        ("a.tar", files_in_tar(TRAIN)[:2000], "cut off|end-of-archive"),
        ("a.tar.gz", gzip.compress(files_in_tar(TRAIN))[:-40], "damaged"),
    ],
    ids=["unsafe", "cut off zip", "cut off tar", "cut off tar.gz"],
)
def test_faults_name_the_inner_archive(tmp_path: Path, outer: Pack, name: str, inner: bytes, why: str) -> None:
    with pytest.raises(InputError, match=why) as caught:
        contents(opened(tmp_path, outer({name: inner})))
    assert f"given: '{name}'" in caught.value.what


def test_a_damaged_tar_in_a_stored_zip_is_noticed(tmp_path: Path) -> None:
    """A tar has no checksum of its content: the zip's is checked first."""
    archive = files_in_zip({"a.tar": files_in_tar({"a.jpg": b"content" * 99})}, STORED)
    at = archive.index(b"content")
    with pytest.raises(InputError, match="CRC-32"):
        contents(opened(tmp_path, archive[:at] + b"X" + archive[at + 1 :]))


@pytest.mark.parametrize("outer", OUTER.values(), ids=OUTER.keys())
@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar.xz", "tar.zst"])
def test_a_bomb_in_an_archive_is_stopped(tmp_path: Path, outer: Pack, ending: str) -> None:
    bomb = INNER[ending]({"zeros": bytes(30_000_000)})
    options = SourceOptions(SourceLimits(max_bytes=3_000_000), work=tmp_path / "work")
    with pytest.raises(TooLargeError, match=r"2\.9 MiB"):
        contents(opened(tmp_path, outer({f"a.{ending}": bomb, "b.jpg": b"1"}), options))
    written = sum(path.stat().st_size for path in (tmp_path / "work").rglob("*"))
    assert written < 6_000_000


def test_many_small_bombs_count_together(tmp_path: Path) -> None:
    bomb = INNER["tar.gz"]({"zeros": bytes(1_000_000)})
    archive = files_in_tar({f"{number}.tar.gz": bomb for number in range(9)})
    with pytest.raises(TooLargeError, match=r"2\.9 MiB"):
        contents(opened(tmp_path, archive, SourceOptions(SourceLimits(max_bytes=3_000_000))))


def test_a_zip_with_a_stub_in_a_zip(tmp_path: Path) -> None:
    inner = zip_of([ZipEntry(b"1.jpg", b"one", DEFLATE)], before=b"PK00", counted=False)
    assert contents(opened(tmp_path, files_in_zip({"a.zip": inner}, STORED))) == {"a/1.jpg": b"one"}
