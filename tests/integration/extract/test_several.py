"""Several archives as one source: how they are named, where their files go, and what collides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from larder.sources.archive_folders import name_archive_folder
from tests.integration.conftest import Stage
from tests.integration.extract.conftest import Faults, Raw, WriteArchive


@pytest.mark.parametrize(
    ("name", "of_set", "of_archive"),
    [
        ("train.zip", "train", "train"),
        ("n01440764.tar", "n01440764", "n01440764"),
        ("shard-000000.tar", "shard", "shard-000000"),
        ("train-00000-of-00010.tar", "train", "train-00000-of-00010"),
        ("images_001.tar.gz", "images", "images_001"),
        ("val.0007.tar.zst", "val", "val.0007"),
        ("00012.tar", "", "00012"),
        ("sub/00012.tar", "sub", "sub/00012"),
        ("sub/train-001.TAR", "sub/train", "sub/train-001"),
        ("class_1.zip", "class_1", "class_1"),
        ("class-01.zip", "class-01", "class-01"),
        ("v1.0.zip", "v1.0", "v1.0"),
        ("007.tar", "007", "007"),
    ],
)
def test_folders_of_archives(name: str, of_set: str, of_archive: str) -> None:
    assert (
        name_archive_folder(name, "set"),
        name_archive_folder(name, "archive"),
        name_archive_folder(name, "none"),
    ) == (of_set, of_archive, "")


def listed(*paths: Path) -> dict[str, str]:
    return {"LARDER_SOURCE": json.dumps([str(path) for path in paths])}


@pytest.mark.parametrize(("kind", "workers"), [("zip", "1"), ("tar", "2"), ("tar.zst", "1")])
def test_splits_and_shards(stage: Stage, raw: Raw, pack: WriteArchive, tmp_path: Path, kind: str, workers: str) -> None:
    train, more, test = {"cat/1.jpg": b"1"}, {"cat/2.jpg": b"2", "dog/1.jpg": b"3"}, {"test/cat/1.jpg": b"4"}
    pack(f"train-000.{kind}", train), pack(f"train-001.{kind}", more), pack(f"test.{kind}", test)
    env = {"LARDER_SOURCE": f"{tmp_path}/*.{kind}", "LARDER_WORKERS": workers}
    result = stage("extract", env=env)
    assert result.code == 0, result.stderr
    expected = {"train/cat/1.jpg": b"1", "train/cat/2.jpg": b"2", "train/dog/1.jpg": b"3", "test/cat/1.jpg": b"4"}
    assert raw.content() == expected
    assert json.loads(raw.meta("manifest.json"))["input"]["kind"] == "archives"
    assert "up to date" in stage("extract", env=env).stderr


def test_a_folder_of_archives_with_a_table_beside(stage: Stage, raw: Raw, pack: WriteArchive, tmp_path: Path) -> None:
    folder = tmp_path / "bought"
    folder.mkdir()
    pack("a.zip", {"1.jpg": b"1"}).rename(folder / "a.zip")
    pack("b.tar", {"1.jpg": b"2"}).rename(folder / "b.tar")
    (folder / "labels.csv").write_bytes(b"file,label\n")
    assert stage("extract", f"--source={folder}", env={"LARDER_WORKERS": "2"}).code == 0
    assert raw.content() == {"a/1.jpg": b"1", "b/1.jpg": b"2", "labels.csv": b"file,label\n"}


def test_a_folder_of_images_with_an_archive_beside_is_copied(
    stage: Stage, raw: Raw, pack: WriteArchive, tmp_path: Path
) -> None:
    folder = tmp_path / "mine"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat/1.jpg").write_bytes(b"1")
    data = pack("old.zip", {"1.jpg": b"1"}).rename(folder / "old.zip").read_bytes()
    assert stage("extract", f"--source={folder}").code == 0
    assert raw.content() == {"cat/1.jpg": b"1", "old.zip": data}


@pytest.mark.parametrize(
    ("rule", "expected"), [("archive", {"a-001/1.jpg", "a-002/2.jpg"}), ("none", {"1.jpg", "2.jpg"})]
)
def test_the_rule_is_a_setting(stage: Stage, raw: Raw, pack: WriteArchive, rule: str, expected: Any) -> None:
    paths = [pack("a-001.tar", {"1.jpg": b"1"}), pack("a-002.tar", {"2.jpg": b"2"})]
    env = listed(*paths)
    assert stage("extract", env=env).code == 0
    assert raw.content().keys() == {"a/1.jpg", "a/2.jpg"}
    assert stage("extract", env=env | {"LARDER_ARCHIVE_FOLDERS": rule}).code == 0
    assert raw.content().keys() == expected


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_a_collision_names_both_archives(stage: Stage, raw: Raw, pack: WriteArchive, kind: str) -> None:
    one = pack(f"a-001.{kind}", {"1.jpg": b"1", "x.jpg": b"x"})
    other = pack(f"a-002.{kind}", {"y.jpg": b"y", "1.jpg": b"1"})
    result = stage("extract", env=listed(one, other))
    assert result.code == 3
    assert f"'a/1.jpg' is in it twice: from 'a-001.{kind} (1.jpg)' and from 'a-002.{kind} (1.jpg)'" in result.stderr
    assert not raw.folder.exists()


def test_archives_in_lines_with_odd_names_and_a_missing_one(
    stage: Stage, raw: Raw, pack: WriteArchive, tmp_path: Path
) -> None:
    one, other = pack("one.zip", {"1.jpg": b"1"}), pack("two.zip", {"2.jpg": b"2"})
    odd = other.rename(tmp_path / "a, b [x]*.zip")
    result = stage("extract", env={"LARDER_SOURCE": f"{one}\n{odd}\n"})
    assert result.code == 0, result.stderr
    assert raw.content() == {"one/1.jpg": b"1", "a, b [x]*/2.jpg": b"2"}
    result = stage("extract", env={"LARDER_SOURCE": f"{one}\n{tmp_path}/gone.zip"})
    assert (result.code, "gone.zip does not exist" in result.stderr) == (3, True)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ('["a.zip", 3]', "must be a list of names"),
        ('["sample", "a.zip"]', "can't be one of several"),
        ("a.zip\nftp://x/y.zip", "ftp:// is not a source"),
        ("[]", "must be a list of names"),
        ("hf://datasets/name", "hf://datasets/OWNER/NAME"),
        ("hf://models/a/b", "hf://datasets/OWNER/NAME"),
        ("s3://bucket", "must name bucket and key"),
    ],
)
def test_wrong_lists_are_named(stage: Stage, source: str, says: str) -> None:
    result = stage("extract", env={"LARDER_SOURCE": source})
    assert (result.code, says in result.stderr) == (2, True), result.stderr


def test_several_from_a_server_and_this_machine(stage: Stage, raw: Raw, pack: WriteArchive, server: Faults) -> None:
    server.content = pack("far.tar", {"1.jpg": b"1"}).read_bytes()
    near = pack("near.tar", {"2.jpg": b"2"})
    result = stage("extract", env={"LARDER_SOURCE": json.dumps([server.url("/x/far.tar?token=s3cr3t"), str(near)])})
    assert result.code == 0, result.stderr
    assert raw.content() == {"far/1.jpg": b"1", "near/2.jpg": b"2"}
    assert "s3cr3t" not in result.stderr + raw.meta("run.json").decode()


def test_a_damaged_one_is_named(stage: Stage, raw: Raw, pack: WriteArchive) -> None:
    one, other = pack("one.tar", {"1.jpg": b"1"}), pack("two.tar", {"2.jpg": b"2"})
    other.write_bytes(other.read_bytes()[:600])
    result = stage("extract", env=listed(one, other))
    assert (result.code, "two.tar is damaged" in result.stderr) == (3, True), result.stderr
    assert not raw.folder.exists()
