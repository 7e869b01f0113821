"""The recipes for what `datasets` writes: Parquet files, after extract, and ImageFolder with metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from larder.errors import InputError
from larder.tree import recipes
from larder.tree.recipes import Files, LeftOutError, Recipe, RejectError, Sample
from larder.tree.recipes.auto import recognise_layout
from larder.tree.recipes.csv import Table
from larder.tree.recipes.metadata import Metadata
from larder.tree.recipes.parquet import Parquet
from larder.tree.splits import parse_split_names

Open = Callable[..., Recipe]


@pytest.fixture
def open_recipe(tmp_path: Path) -> Open:
    """Opens a recipe over files with this content."""

    def open_recipe(
        name: str, files: Mapping[str, str | bytes], label_column: str = "", splits: str = ""
    ) -> Recipe:  # fmt: skip
        raw, scratch = tmp_path / "raw", tmp_path / "scratch"
        scratch.mkdir()
        for path, text in files.items():
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).write_bytes(text.encode() if isinstance(text, str) else text)
        there = Files(
            raw, lambda: iter(sorted(files)), lambda _: None, scratch, "", parse_split_names(splits), label_column
        )
        return recipes.load(name or recognise_layout(there).name, there)

    return open_recipe


def test_parquet_reads_labels_and_names(open_recipe: Open) -> None:
    recipe = open_recipe("parquet", {"classes.json": '{"classes": ["b", "a/c"]}', "train/001/x.jpg": ""})
    assert recipe.classes == ["b", "a/c"]
    assert recipe.assign("train/001/x.jpg") == Sample("training", 1, "x.jpg")
    assert recipe.assign("test/000/y.jpg") == Sample("evaluation", 0, "y.jpg")
    assert recipe.assign("held_out/000/y.jpg") == Sample("held_out", 0, "y.jpg")
    assert recipe.assign("classes.json") is None
    for path in ("train/002/x.jpg", "train/x.jpg", "train/0/a/x.jpg", "train/one/x.jpg", "train/²/x.jpg"):
        with pytest.raises(RejectError):
            recipe.assign(path)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"classes.json": '{"classes": ["b"]}', "train/000/x.jpg": ""}, Parquet),
        ({"train/metadata.csv": "file_name,label\nx.jpg,b\n", "train/x.jpg": ""}, Metadata),
        ({"metadata.jsonl": '{"file_name": "x.jpg", "label": "b"}\n', "x.jpg": ""}, Metadata),
        ({"metadata.csv": "file,label\nx.jpg,b\n", "x.jpg": ""}, Table),
    ],
)
def test_both_are_recognised(open_recipe: Open, files: dict[str, str], kind: type) -> None:
    assert isinstance(open_recipe("", files), kind)


def test_splits_are_named_and_left_out(open_recipe: Open) -> None:
    files = {"classes.json": '{"classes": ["b"]}', "held/000/x.jpg": "", "old/000/x.jpg": ""}
    recipe = open_recipe("parquet", files, splits="held=validation,old=-")
    assert recipe.assign("held/000/x.jpg") == Sample("validation", 0, "x.jpg")
    with pytest.raises(LeftOutError):
        recipe.assign("old/000/x.jpg")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"classes": []}', '{"classes": "ab"}', '{"classes": [1]}', b"\xff", "[" * 100_000]
)
def test_parquet_refuses_other_lists(open_recipe: Open, text: str | bytes) -> None:
    with pytest.raises(InputError, match=r"classes\.json holds no list of classes"):
        open_recipe("parquet", {"classes.json": text})


def test_parquet_needs_the_list(open_recipe: Open) -> None:
    with pytest.raises(InputError, match=r"no classes\.json"):
        open_recipe("parquet", {"train/000/x.jpg": ""})


CSV = "file_name,label\n1.jpg,cat\nsub/2.jpg, dog \n"
JSONL = '{"file_name": "1.jpg", "label": "cat"}\n\n{"file_name": "sub/2.jpg", "label": "dog"}\n'


@pytest.mark.parametrize(("name", "text"), [("metadata.csv", CSV), ("metadata.jsonl", JSONL)], ids=["csv", "jsonl"])
@pytest.mark.parametrize("folder", ["", "train/", "images/val/"])
def test_metadata_beside_images(open_recipe: Open, name: str, text: str, folder: str) -> None:
    files = {folder + name: text, f"{folder}1.jpg": "", f"{folder}sub/2.jpg": "", f"{folder}3.jpg": ""}
    recipe = open_recipe("metadata", files)
    split = {"": "training", "train/": "training", "images/val/": "validation"}[folder]
    assert recipe.classes == ["cat", "dog"]
    assert recipe.assign(folder + name) is None
    assert recipe.assign(f"{folder}1.jpg") == Sample(split, 0, "1.jpg")
    assert list(recipe.absent()) == [
        (f"{folder}sub/2.jpg", f"is named in {folder}{name}, line 3, but is not in the source")
    ]
    assert recipe.assign(f"{folder}sub/2.jpg") == Sample(split, 1, "2.jpg")
    assert list(recipe.absent()) == []
    with pytest.raises(RejectError, match="named in no table"):
        recipe.assign(f"{folder}3.jpg")


def test_metadata_in_each_split_with_numbers(open_recipe: Open) -> None:
    rows = '{{"file_name": "{0}.jpg", "label": {0}}}\n'
    recipe = open_recipe(
        "metadata", {"train/metadata.jsonl": rows.format(10) + rows.format(9), "test/metadata.jsonl": rows.format(9)}
    )
    assert recipe.classes == ["9", "10"]
    assert recipe.assign("train/10.jpg") == Sample("training", 1, "10.jpg")
    assert recipe.assign("test/9.jpg") == Sample("evaluation", 0, "9.jpg")


def test_metadata_outside_every_split_is_rejected(open_recipe: Open) -> None:
    recipe = open_recipe("metadata", {"metadata.csv": "file_name,label\ntrain/1.jpg,a\nholdout/2.jpg,a\n"})
    assert recipe.assign("train/1.jpg") == Sample("training", 0, "1.jpg")
    with pytest.raises(RejectError, match="no folder of a split"):
        recipe.assign("holdout/2.jpg")


@pytest.mark.parametrize(
    ("columns", "setting", "classes"),
    [
        ({"kind": "x"}, "", ["x"]), ({"Label": "x", "width": 3}, "", ["x"]), ({"a": "x", "b": "y"}, "b", ["y"]),
        ({"ok": True}, "", ["True"]),
    ],
)  # fmt: skip
def test_metadata_finds_the_column(
    open_recipe: Open, columns: dict[str, object], setting: str, classes: list[str]
) -> None:
    recipe = open_recipe("metadata", {"metadata.jsonl": json.dumps({"file_name": "1.jpg"} | columns)}, setting)
    assert recipe.classes == classes


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("metadata.csv", "file,label\n1.jpg,a\n", "line 1: has no column file_name"),
        ("metadata.csv", "", "no column"),
        ("metadata.csv", "file_name,label\n1.jpg\n", "line 2: lacks"),
        ("metadata.csv", "file_name,label\n,a\n", "lacks"),
        ("metadata.csv", "file_name,label\n1.jpg,a\n1.jpg,b\n", "line 3: names '1.jpg', which metadata.csv, line 2"),
        ("metadata.csv", "file_name,a,b\n1.jpg,x,y\n", "has the columns 'a', 'b' beside file_name"),
        ("metadata.csv", b"file_name,label\n\xff,a\n", "is no CSV in UTF-8"),
        ("metadata.csv", "file_name,label\n" + "x" * 200_000 + ",a\n", "is no CSV in UTF-8"),
        ("metadata.jsonl", "[1]\n", "line 1: is no JSON object"),
        ("metadata.jsonl", '{"file_name": "1.jpg"}', "columns \\(none\\)"),
        ("metadata.jsonl", '{"file_name": 3, "label": "a"}', "line 1: lacks"),
        ("metadata.jsonl", '{"file_name": "a", "label": 0.5}', "line 1: lacks"),
        ("metadata.jsonl", '{"file_name": "a", "label": ["b"]}', "another kind of value"),
        ("metadata.jsonl", '{"file_name": "\\ud800", "label": "b"}', "not valid Unicode"),
        ("metadata.jsonl", "[" * 100_000, "is no JSON object"), ("metadata.jsonl", b"\xff\n", "is no JSON object"),
        ("other.csv", "file_name,label\n", "no metadata.csv or metadata.jsonl"),
    ],
)  # fmt: skip
def test_metadata_refuses(open_recipe: Open, name: str, text: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_recipe("metadata", {name: text})
