"""Files that can't be samples: all are listed, set aside, and counted against the limit."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.conftest import MakePicture
from tests.integration.transform.conftest import Extract, ReadRejects, ReadTree, Snapshot, Transform


@pytest.fixture
def faulty(food11: dict[str, bytes]) -> dict[str, bytes]:
    """Food-11 with one file of each fault."""
    cmyk, deep = io.BytesIO(), io.BytesIO()
    Image.new("CMYK", (8, 8)).save(cmyk, "JPEG")
    Image.new("I;16", (8, 8)).save(deep, "PNG")
    whole = food11["training/3_0.jpg"]
    return food11 | {
        "training/0_empty.jpg": b"",
        "training/0_text.jpg": b"a text",
        "training/0_cut.jpg": whole[:-20],
        "training/0_cmyk.jpg": cmyk.getvalue(),
        "training/0_deep.png": deep.getvalue(),
        "training/0_notes.txt": b"some notes",
        "training/0_a.gif": b"GIF89a",
        "training/11_1.jpg": whole,
        "training/bread.jpg": whole,
        "validation/0_new\nline.jpg": whole,
        "evaluation/-1_a.jpg": whole,
        "evaluation/a/0_1.jpg": whole,
    }


REASONS = {
    "training/0_empty.jpg": "is empty",
    "training/0_text.jpg": "not a readable image",
    "training/0_cut.jpg": "cut off",
    "training/0_cmyk.jpg": "CMYK",
    "training/0_deep.png": "16 bits",
    "training/0_a.gif": "an image's extension",
    "training/11_1.jpg": "class 11",
    "training/bread.jpg": "no class",
    "validation/0_new\nline.jpg": "control character",
    "evaluation/-1_a.jpg": "no class",
    "evaluation/a/0_1.jpg": "deeper",
}


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_fault_is_listed_and_set_aside(
    extract: Extract,
    transform: Transform,
    tree: ReadTree,
    rejects: ReadRejects,
    faulty: dict[str, bytes],
    volume: Path,
    workers: str,
    snapshot: Snapshot,
) -> None:
    raw = extract(faulty)
    before = snapshot(raw)
    result = transform(env={"LARDER_WORKERS": workers})
    assert result.code == 4
    error = result.events[-1]
    assert error["exit_code"] == 4
    assert "rejected samples: 11" in error["message"] and "LARDER_MAX_REJECTS=11" in error["message"]
    assert {event["path"] for event in result.events if event["event"] == "reject"} == set(REASONS)
    listed = rejects()
    assert list(listed) == sorted(REASONS, key=str.encode)
    for path, reason in REASONS.items():
        assert reason in listed[path]
        assert (volume / "rejects" / "files" / path).read_bytes() == faulty[path]
    assert not (volume / "Food-11").exists()
    assert snapshot(raw) == before

    assert transform("--max-rejects=10").code == 4
    raised = transform("--max-rejects=11")
    assert raised.code == 0
    assert raised.events[0]["event"] == "resume" and "has done 12 images" in raised.events[0]["message"]
    assert len(tree().files) == 12
    assert rejects() == listed
    assert transform("--max-rejects=11").events[0]["up_to_date"] is True


def test_a_lower_limit_fails_and_keeps_the_tree(
    extract: Extract, transform: Transform, tree: ReadTree, faulty: dict[str, bytes]
) -> None:
    extract(faulty)
    assert transform("--max-rejects=11").code == 0
    whole = tree()
    assert transform("--max-rejects=10").code == 4
    assert tree() == whole


def test_rejects_folder_goes_when_all_is_well(
    extract: Extract, transform: Transform, tree: ReadTree, food11: dict[str, bytes], picture: MakePicture, volume: Path
) -> None:
    extract(food11 | {"training/0_1.jpg": b"damaged"})
    assert transform().code == 4
    assert (volume / "rejects").exists()
    extract({"training/0_1.jpg": picture(50)})
    assert transform().code == 0
    assert not (volume / "rejects").exists()
    assert len(tree().files) == 13


def test_many_rejects_are_all_in_the_list_and_some_on_the_screen(
    extract: Extract, transform: Transform, rejects: ReadRejects, food11: dict[str, bytes]
) -> None:
    extract(food11 | {f"training/0_{number}.jpg": b"damaged" for number in range(150)})
    result = transform()
    assert result.code == 4
    assert len(rejects()) == 150
    shown = [event for event in result.events if event["event"] == "reject"]
    assert len(shown) == 21 and "130 more" in shown[-1]["message"]


def test_decode_finds_what_the_header_hides(
    extract: Extract, transform: Transform, rejects: ReadRejects, food11: dict[str, bytes]
) -> None:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    png = bytearray(stream.getvalue())
    png[len(png) // 2] ^= 0xFF
    extract(food11 | {"training/0_bad.png": bytes(png)})
    assert transform().code == 0
    assert transform("--verify=decode").code == 4
    assert "does not decode" in rejects()["training/0_bad.png"]


def test_two_files_for_one_place(
    extract: Extract, transform: Transform, rejects: ReadRejects, tree: ReadTree, picture: MakePicture
) -> None:
    extract({"train/cat/1.jpg": picture(0), "training/cat/1.jpg": picture(1)})
    assert transform("--recipe=imagefolder", "--max-rejects=1").code == 0
    assert "same path in the tree as 'train/cat/1.jpg'" in rejects()["training/cat/1.jpg"]
    assert tree().lines()["training/class_00/1.jpg"]["source"] == "train/cat/1.jpg"


def test_table_and_files_that_do_not_match(
    extract: Extract, transform: Transform, rejects: ReadRejects, tree: ReadTree, picture: MakePicture, volume: Path
) -> None:
    (volume / "secret").write_text("outside of the data")
    rows = "file,label\na.jpg,x\ngone.jpg,x\n../secret,x\nsub,x\n/etc/hostname,x\n"
    extract({"a.jpg": picture(0), "sub/b.jpg": picture(1), "labels.csv": rows.encode()})
    result = transform("--recipe=csv", "--max-rejects=5")
    assert result.code == 0, result.stderr
    listed = rejects()
    assert set(listed) == {"gone.jpg", "../secret", "sub", "/etc/hostname", "sub/b.jpg"}
    assert "line 3" in listed["gone.jpg"] and "not named in labels.csv" in listed["sub/b.jpg"]
    assert [path.name for path in (volume / "rejects").rglob("*") if path.is_file()].count("secret") == 0
    assert list(tree().files) == ["training/class_00/a.jpg"]


@pytest.mark.parametrize("split", ["val", "holdout"])
def test_a_split_whose_images_have_no_endings_does_not_vanish(
    extract: Extract, transform: Transform, rejects: ReadRejects, picture: MakePicture, split: str
) -> None:
    names = ("train/cat/1.jpg", "train/dog/2.jpg", f"{split}/cat/3", f"{split}/dog/4")
    extract({name: picture(number) for number, name in enumerate(names)} | {f"{split}/cat/notes": b"a text"})
    assert transform("--recipe=imagefolder").code == 4
    assert set(rejects()) == {f"{split}/cat/3", f"{split}/dog/4"}
    assert "no image's ending" in rejects()[f"{split}/cat/3"]
