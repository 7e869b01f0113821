"""Folders as sources: what is read, which links are followed, and what is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.errors import InputError
from larder.sources import FolderSource, SourceLimits, SourceOptions, TooLargeError, open_local
from tests.archives import contents

FILES = {
    "training/0_0.jpg": b"small",
    "training/0_1.jpg": b"",
    "training/1_0.jpg": bytes(200_000),
    "evaluation/with space.jpg": b"1",
    "evaluation/图片 é.jpg": b"2",
    "evaluation/-rf": b"3",
    "evaluation/new\nline.jpg": b"4",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    for name, content in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_folder_reads_back(folder: Path) -> None:
    assert contents(open_local(folder, "given")) == FILES


def test_folder_through_a_link_and_with_a_relative_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    os.symlink("folder", "link")
    assert contents(open_local(Path("link"), "given")) == FILES


def test_link_inside_a_folder_is_followed(folder: Path) -> None:
    os.symlink("0_0.jpg", folder / "training" / "again.jpg")
    assert contents(open_local(folder, "given")) == FILES | {"training/again.jpg": b"small"}


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda path: path.symlink_to("../../folder2/x"), "not a file"),
        (lambda path: path.symlink_to("nothing"), "not a file"),
        (lambda path: path.symlink_to(path.name), "not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "which is a device"),
        (lambda path: path.symlink_to("."), "leads back to a folder"),
        (lambda path: path.symlink_to("../.."), "leads back to a folder"),
        (make_fifo, "pipe"),
        (lambda path: Path(os.fsdecode(os.fsencode(path) + b"\xff")).touch(), "UTF-8"),
    ],
    ids=[
        "link to a neighbour",
        "dangling link",
        "link to itself",
        "link to a device",
        "link to its folder",
        "link to a folder above",
        "pipe",
        "name that is not UTF-8",
    ],
)
def test_folder_with_a_fault(folder: Path, make: Callable[[Path], None], why: str) -> None:
    make(folder / "training" / "odd")
    source = FolderSource(folder, "given")
    source.metadata_digest()
    with pytest.raises(InputError, match=why):
        contents(source)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../beside/x", "../../beside"])
def test_links_out_of_a_folder_can_be_refused(folder: Path, target: str) -> None:
    (folder.parent / "beside").mkdir()
    (folder.parent / "beside" / "x").touch()
    (folder / "training" / "odd").symlink_to(target)
    assert len(contents(open_local(folder, "given"))) == len(FILES) + 1
    with pytest.raises(InputError, match="leaves the folder") as caught:
        contents(open_local(folder, "given", SourceOptions(follow_links=False)))
    assert "cp -rL" in caught.value.next_step


def test_caches_of_links_are_read_as_files(tmp_path: Path) -> None:
    """Hugging Face, DVC and git-annex use such folders: links to content elsewhere, named by its digest."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    for name in ("deadbeef", "f00d"):
        (blobs / name).parent.mkdir(exist_ok=True)
        (blobs / name).write_bytes(name.encode())
    (tmp_path / "shared" / "deep").mkdir(parents=True)
    (tmp_path / "shared" / "deep" / "3.jpg").symlink_to("../../blobs/f00d")
    (snapshot / "train" / "cat").mkdir(parents=True)
    (snapshot / "train" / "cat" / "1.jpg").symlink_to("../../../../blobs/deadbeef")
    (snapshot / "train" / "dog").symlink_to(tmp_path / "shared")
    (snapshot / "val").symlink_to("train")  # the same files twice, which is no circle
    (snapshot / ".git" / "annex").mkdir(parents=True)
    (snapshot / ".git" / "annex" / "broken").symlink_to("nothing")
    files = {"cat/1.jpg": b"deadbeef", "dog/deep/3.jpg": b"f00d"}
    assert contents(open_local(snapshot, "given")) == {
        f"{split}/{path}": content for split in ("train", "val") for path, content in files.items()
    }


def test_all_dangling_links_are_reported_at_once(folder: Path) -> None:
    for number in range(9):
        (folder / f"{number}.jpg").symlink_to(f"gone/{number}")
    with pytest.raises(InputError, match="and 4 more") as caught:
        contents(open_local(folder, "given"))
    assert caught.value.what.count("is a link to 'gone/") == 5
    assert "git annex get" in caught.value.next_step
    assert "\n" not in caught.value.what


def test_folders_that_link_to_each_other_come_to_an_end(tmp_path: Path) -> None:
    for name, other in ("ab", "ba"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "to").symlink_to(f"../{other}")
    with pytest.raises(InputError, match="leads back to a folder"):
        contents(open_local(tmp_path, "given"))


def test_folders_with_two_links_to_the_next_are_counted(tmp_path: Path) -> None:
    """2**30 ways lead to the last one."""
    link_folders(tmp_path, 30, "ab")
    with pytest.raises(TooLargeError, match="1,000 entries"):
        contents(open_local(tmp_path, "given", SourceOptions(SourceLimits(max_files=1000))))


def test_more_links_than_the_system_follows_are_a_fault(tmp_path: Path) -> None:
    link_folders(tmp_path, 60, "a")
    with pytest.raises(InputError, match=r"is a link .* \(Too many levels of symbolic links\)"):
        contents(open_local(tmp_path, "given", SourceOptions(SourceLimits(max_files=10_000))))


def link_folders(place: Path, count: int, names: str) -> None:
    """Make folders that link to the next one, under each of the names."""
    for number in range(count):
        (place / f"{number}").mkdir()
        for name in names:
            (place / f"{number}" / name).symlink_to(f"../{number + 1}")
    (place / f"{count}").mkdir()


def test_state_of_a_folder_sees_changes_and_ignores_litter(folder: Path) -> None:
    source = FolderSource(folder, "given")
    before = source.metadata_digest()
    assert source.metadata_digest() == before
    (folder / ".DS_Store").touch()
    (folder / "_larder").mkdir()
    (folder / "_larder" / "manifest.json").touch()
    assert source.metadata_digest() == before
    (folder / "training" / "0_0.jpg").write_bytes(b"other")
    assert source.metadata_digest() != before
