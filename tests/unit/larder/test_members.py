"""Names from archives: made safe, or refused; links stay inside."""

from __future__ import annotations

import os.path
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder.errors import InputError
from larder.sources.members import EntryFaults, UnsafeNameError, is_litter, join_chunks, link_target, safe_path

PARTS = st.sampled_from(["..", ".", "", "/", "\\", "C:", "a", "-rf", " ", "\n", "\0", "é", "\udcff", "_larder"])
NAMES = st.text() | st.lists(PARTS).map("/".join) | st.lists(PARTS).map("".join)


@given(NAMES)
def test_safe_path_stays_inside(name: str) -> None:
    try:
        path = safe_path(name)
    except UnsafeNameError:
        return
    assert path == os.path.normpath(path)
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert "\0" not in path
    assert path.encode().decode() == path
    assert safe_path(path) == path


@given(NAMES.filter(lambda name: "\0" not in name), NAMES.filter(lambda name: "\0" not in name))
def test_link_target_stays_inside(name: str, target: str) -> None:
    try:
        path = safe_path(name)
        resolved = link_target(path, target)
    except UnsafeNameError:
        return
    root = "/volume/raw"
    absolute = os.path.normpath(os.path.join(root, os.path.dirname(path), target))
    assert absolute == root or absolute.startswith(root + "/")
    assert os.path.normpath(os.path.join(root, resolved)) == absolute


@pytest.mark.parametrize(
    "name", ["a b.jpg", "ünïcödé/图片.jpg", "-rf", "--source=x", "new\nline.jpg", "'quoted\".jpg", "a\\b.jpg", "..."]
)
def test_unusual_names_are_kept(name: str) -> None:
    assert safe_path(name) == name


@pytest.mark.parametrize("name", ["./a", "a", "a/", "a//", ".//a"])
def test_spellings_of_one_path_are_one(name: str) -> None:
    assert safe_path(name) == "a"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("/etc/passwd", "absolute"),
        ("//host/share", "absolute"),
        ("C:\\windows", "absolute"),
        ("c:/windows", "absolute"),
        ("../raw2/a", "leaves"),
        ("a/../../b", "leaves"),
        ("a/..", "leaves"),
        ("", "empty"),
        ("./", "empty"),
        ("a\0b", "NUL"),
        ("a\udcff", "UTF-8"),
    ],
)
def test_unsafe_names_are_refused(name: str, why: str) -> None:
    with pytest.raises(UnsafeNameError, match=why):
        safe_path(name)


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "..", "../../b/x", "a/../../../x"])
def test_links_that_leave_are_refused(target: str) -> None:
    with pytest.raises(UnsafeNameError, match=r"leaves|absolute"):
        link_target("b/link" if target != ".." else "link", target)


@pytest.mark.parametrize(
    "path",
    [
        "__MACOSX/a/._b.jpg",
        "a/__MACOSX/b",
        "a/.DS_Store",
        "Thumbs.db",
        "a/desktop.ini",
        "a/._b.jpg",
        "_larder/manifest.json",
        "a/_larder/index.jsonl",
        "_larder",
        "a/_larder/incoming-1/train/class_00/b.jpg",
    ],
)
def test_litter(path: str) -> None:
    assert is_litter(path)


@pytest.mark.parametrize("path", ["a/b.jpg", ".hidden", "a_larder/b", "MACOSX/b", "DS_Store"])
def test_not_litter(path: str) -> None:
    assert not is_litter(path)


@pytest.mark.parametrize("path", ["_larder/b.jpg", "a/_larder/b.PNG", "_larder/a/b.jpg"])
def test_an_image_is_no_litter_for_larders_own_name(path: str) -> None:
    with pytest.raises(InputError, match="reserved for larder"):
        is_litter(path)


def test_names_too_deep_for_any_image_are_refused() -> None:
    assert safe_path("d/" * 63 + "x.jpg")
    with pytest.raises(UnsafeNameError, match="folders deep"):
        safe_path("d/" * 64 + "x.jpg")


@pytest.mark.parametrize(
    ("name", "why"),
    [("x" * 256, "255 bytes"), ("图" * 86, "255 bytes"), ("/".join(["x" * 200] * 20), "path of more")],
    ids=["name", "name in UTF-8", "path"],
)
def test_names_too_long_for_any_file_system_are_refused(name: str, why: str) -> None:
    with pytest.raises(UnsafeNameError, match=why) as caught:
        safe_path(name)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["x" * 255, "图" * 85, "/".join(["x" * 200] * 18)])
def test_names_that_just_fit_are_kept(name: str) -> None:
    assert safe_path(name) == name


def test_faults_are_counted_and_the_first_are_shown() -> None:
    faults = EntryFaults()
    faults.raise_if_any("given")
    for number in range(1000):
        faults.add(f"{number}\n\x1b[2J" + "x" * 70_000, "is odd", f"step {number}")
    with pytest.raises(InputError, match="and 995 more") as caught:
        faults.raise_if_any("given")
    assert len(caught.value.what) < 2000
    assert caught.value.what.isprintable()
    assert caught.value.next_step == "step 0"


@pytest.mark.parametrize("target", ["a\udcff", "a\0b"])
def test_link_targets_that_are_no_names_are_refused(target: str) -> None:
    with pytest.raises(UnsafeNameError):
        link_target("b/link", target)


def test_chunks_are_joined_without_a_second_copy() -> None:
    tracemalloc.start()
    joined = join_chunks(bytes([number]) * (1 << 20) for number in range(32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(joined), joined[:: 1 << 20]) == (32 << 20, bytes(range(32)))
    assert peak < 48 << 20
