"""The recipes for what `datasets` writes: Parquet files, after extract, and ImageFolder with metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from larder.errors import InputError
from larder.tree import recipes
from larder.tree.recipes import AssignedSample, LeftOutError, Recipe, RecipeFiles, RejectError
from larder.tree.recipes.auto import recognize_layout
from larder.tree.recipes.csv import TableRecipe
from larder.tree.recipes.metadata import MetadataRecipe
from larder.tree.recipes.parquet import ParquetRecipe
from larder.tree.splits import parse_split_names
from tests.unit.tree.conftest import split_of

Open = Callable[..., Recipe]


@pytest.fixture
def open_recipe(tmp_path: Path) -> Open:
    """Opens a recipe for files with this content."""

    def open_recipe(name: str, files: Mapping[str, str | bytes], label_column: str = "", splits: str = "") -> Recipe:
        raw, scratch = tmp_path / "raw", tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        for path, text in files.items():
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).write_bytes(text.encode() if isinstance(text, str) else text)
        there = RecipeFiles(
            raw, lambda: iter(sorted(files)), lambda _: None, scratch, "", parse_split_names(splits), label_column
        )
        return recipes.open_recipe(name or recognize_layout(there).name, there)

    return open_recipe


def test_parquet_reads_labels_and_names(open_recipe: Open) -> None:
    recipe = open_recipe("parquet", {"classes.json": '{"classes": ["b", "a/c"]}', "train/001/x.jpg": ""})
    assert recipe.classes == ["b", "a/c"]
    assert recipe.assign("train/001/x.jpg") == AssignedSample("training", 1, "x.jpg")
    assert recipe.assign("test/000/y.jpg") == AssignedSample("evaluation", 0, "y.jpg")
    assert recipe.assign("held_out/000/y.jpg") == AssignedSample("held_out", 0, "y.jpg")
    assert recipe.assign("classes.json") is None
    for path in ("train/002/x.jpg", "train/x.jpg", "train/0/a/x.jpg", "train/one/x.jpg", "train/²/x.jpg"):
        with pytest.raises(RejectError):
            recipe.assign(path)


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"classes.json": '{"classes": ["b"]}', "train/000/x.jpg": ""}, ParquetRecipe),
        ({"train/metadata.csv": "file_name,label\nx.jpg,b\n", "train/x.jpg": ""}, MetadataRecipe),
        ({"metadata.jsonl": '{"file_name": "x.jpg", "label": "b"}\n', "x.jpg": ""}, MetadataRecipe),
        ({"metadata.csv": "file,label\nx.jpg,b\n", "x.jpg": ""}, TableRecipe),
    ],
)
def test_both_are_recognized(open_recipe: Open, files: dict[str, str], kind: type) -> None:
    assert isinstance(open_recipe("", files), kind)


def test_splits_are_named_and_left_out(open_recipe: Open) -> None:
    files = {"classes.json": '{"classes": ["b"]}', "held/000/x.jpg": "", "old/000/x.jpg": ""}
    recipe = open_recipe("parquet", files, splits="held=validation,old=-")
    assert recipe.assign("held/000/x.jpg") == AssignedSample("validation", 0, "x.jpg")
    with pytest.raises(LeftOutError):
        recipe.assign("old/000/x.jpg")


@pytest.mark.parametrize(
    ("folder", "splits", "split"),
    [
        ("null", "null=validation", "validation"),
        ("Fold 1", "fold 1=evaluation", "evaluation"),
        ("TRAIN ", "", "training"),
        ("None", "none=training", "training"),
    ],
)
def test_parquet_maps_folders_as_values_of_a_column(open_recipe: Open, folder: str, splits: str, split: str) -> None:
    files = {"classes.json": '{"classes": ["b"]}', f"{folder}/000/x.jpg": ""}
    assert open_recipe("parquet", files, splits=splits).assign(f"{folder}/000/x.jpg") == AssignedSample(
        split, 0, "x.jpg"
    )


@pytest.mark.parametrize(
    ("folders", "splits", "says", "step"),
    [
        (["null", "train"], "", "rows without a split, in a table", "LARDER_SPLITS=null=training"),
        (["train"], "dev=validation", "LARDER_SPLITS names dev, and the source has the folders train", "LARDER_SPLITS"),
        (["foldA", "FOLDA"], "", "the source has splits that differ only in case", "LARDER_SPLITS"),
    ],
)
def test_parquet_refuses_folders(open_recipe: Open, folders: list[str], splits: str, says: str, step: str) -> None:
    files = {"classes.json": '{"classes": ["b"]}'} | {f"{folder}/000/x.jpg": "" for folder in folders}
    with pytest.raises(InputError, match=says) as error:
        open_recipe("parquet", files, splits=splits)
    assert step in error.value.next_step


@pytest.mark.parametrize(("folder", "undivided"), [("train", True), ("test", False)])
def test_parquet_of_one_split_may_be_divided(open_recipe: Open, folder: str, undivided: bool) -> None:
    files = {"classes.json": '{"classes": ["b"]}', f"{folder}/000/x.jpg": ""}
    assert recipes.is_undivided(open_recipe("parquet", files)) is undivided


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
    assert recipe.assign(f"{folder}1.jpg") == AssignedSample(split, 0, "1.jpg")
    assert list(recipe.missing_files()) == [
        (f"{folder}sub/2.jpg", f"is named in {folder}{name}, line 3, but is not in the source")
    ]
    assert recipe.assign(f"{folder}sub/2.jpg") == AssignedSample(split, 1, "2.jpg")
    assert list(recipe.missing_files()) == []
    with pytest.raises(RejectError, match="not listed in any metadata table"):
        recipe.assign(f"{folder}3.jpg")


def test_metadata_in_each_split_with_numbers(open_recipe: Open) -> None:
    rows = '{{"file_name": "{0}.jpg", "label": {0}}}\n'
    recipe = open_recipe(
        "metadata", {"train/metadata.jsonl": rows.format(10) + rows.format(9), "test/metadata.jsonl": rows.format(9)}
    )
    assert recipe.classes == ["9", "10"]
    assert recipe.assign("train/10.jpg") == AssignedSample("training", 1, "10.jpg")
    assert recipe.assign("test/9.jpg") == AssignedSample("evaluation", 0, "9.jpg")


def test_metadata_outside_every_split_is_rejected(open_recipe: Open) -> None:
    recipe = open_recipe("metadata", {"metadata.csv": "file_name,label\ntrain/1.jpg,a\nholdout/2.jpg,a\n"})
    assert recipe.assign("train/1.jpg") == AssignedSample("training", 0, "1.jpg")
    with pytest.raises(RejectError, match="lie in a split's folder"):
        recipe.assign("holdout/2.jpg")


def test_metadata_where_column_and_folder_say_the_split(open_recipe: Open) -> None:
    table = "file_name,label,split\ntrain/1.jpg,a,Training\n{}/2.jpg,a,{}\n"
    for folder, value, splits, expected in (
        ("test", "eval", "", "evaluation"),
        ("more", "val", "", "validation"),
        ("more", "my own", "", "my own"),
        ("test", "val", "none", "validation"),
        ("test", "val", "test=-", None),
        ("test", "val", "", "says 'evaluation'"),
        ("test", "easy", "", "LARDER_SPLITS=none uses"),
        ("test", "../up", "", "can't be a folder's name"),
    ):
        files = {"metadata.csv": table.format(folder, value)}
        path = f"{folder}/2.jpg"
        if expected is None:
            with pytest.raises(LeftOutError):
                open_recipe("metadata", files, splits=splits).assign(path)
        elif " " in expected and expected != "my own":
            with pytest.raises(InputError, match=expected) as fault:
                open_recipe("metadata", files, splits=splits)
            assert "metadata.csv, line 3" in fault.value.what
        else:
            assert split_of(open_recipe("metadata", files, splits=splits), path) == expected


@pytest.mark.parametrize(
    ("columns", "setting", "classes"),
    [
        ({"kind": "x"}, "", ["x"]),
        ({"Label": "x", "width": 3}, "", ["x"]),
        ({"a": "x", "b": "y"}, "b", ["y"]),
        ({"ok": True}, "", ["True"]),
    ],
)
def test_metadata_finds_the_column(
    open_recipe: Open, columns: dict[str, object], setting: str, classes: list[str]
) -> None:
    recipe = open_recipe("metadata", {"metadata.jsonl": json.dumps({"file_name": "1.jpg"} | columns)}, setting)
    assert recipe.classes == classes


CAPTIONS = ["a cat on a mat", "two dogs run away fast", "the last cat of all", "a dog in the deep snow"]
NOT_CLASSES = {
    "captions": CAPTIONS,
    "captions-without-spaces": [f"一只猫坐在垫子上{number}看着我们" for number in range(4)],
    "a caption twice": [*CAPTIONS * 2, *(f"{n} cats on one mat" for n in range(20))],
    "measurements": [f"{number / 7:.4f}" for number in range(20)],
}


@pytest.mark.parametrize("kind", NOT_CLASSES)
@pytest.mark.parametrize("name", ["csv", "metadata.csv", "metadata.jsonl"])
def test_captions_are_no_classes(open_recipe: Open, name: str, kind: str) -> None:
    texts = NOT_CLASSES[kind]
    file, label = ("file_name", "text") if "metadata" in name else ("file", "label")
    rows = [
        {file: f"{number}.jpg", label: text, "animal": ("cat", "dog")[number % 2], "id": number, "split": "train"}
        for number, text in enumerate(texts)
    ]
    rows = [row | {"label": row[label]} for row in rows] if "metadata" in name else rows
    lines = [",".join(map(str, row)) for row in (list(rows[0]), *(row.values() for row in rows))]
    table = "\n".join(map(json.dumps, rows) if "jsonl" in name else lines)
    files = {name if "metadata" in name else "labels.csv": table}
    recipe = name.partition(".")[0]
    with pytest.raises(
        InputError, match=rf"(texts|measurements), and no classes: \d+ values in {len(rows)} rows"
    ) as fault:
        open_recipe(recipe, files)
    assert fault.value.next_step.startswith("set LARDER_LABEL_COLUMN to the column of classes (animal would do)")
    assert open_recipe(recipe, files, label_column="animal").classes == ["cat", "dog"]
    assert len(open_recipe(recipe, files, label_column="label").classes) == len(set(texts))


@pytest.mark.parametrize(
    "labels",
    [
        ["cat", "dog", "red panda"],
        ["n02119789"],
        [str(n) for n in range(30)],
        [f"{n}.0" for n in range(30)],
        [*CAPTIONS, *CAPTIONS],
    ],
)
def test_as_many_classes_as_rows(open_recipe: Open, labels: list[str]) -> None:
    rows = "".join(f"{number}.jpg,{label}\n" for number, label in enumerate(labels))
    assert len(open_recipe("csv", {"labels.csv": f"file,label\n{rows}"}).classes) == len(set(labels))


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("metadata.csv", "file,label\n1.jpg,a\n", "line 1: has no column file_name"),
        ("metadata.csv", "", "no column"),
        ("metadata.csv", "file_name,label\n1.jpg\n", "line 2: lacks"),
        ("metadata.csv", "file_name,label\n,a\n", "lacks"),
        ("metadata.csv", "file_name,label\n1.jpg,a\n1.jpg,b\n", "line 3: names '1.jpg', as does metadata.csv, line 2"),
        ("metadata.csv", "file_name,a,b\n1.jpg,x,y\n", "has the columns 'a', 'b' beside file_name"),
        ("metadata.csv", b"file_name,label\n\xff,a\n", "is not CSV in UTF-8"),
        ("metadata.csv", "file_name,label\n" + "x" * 200_000 + ",a\n", "is not CSV in UTF-8"),
        ("metadata.jsonl", "[1]\n", "line 1: is not a JSON object"),
        ("metadata.jsonl", '{"file_name": "1.jpg"}', "columns \\(none\\)"),
        ("metadata.jsonl", '{"file_name": 3, "label": "a"}', "line 1: lacks"),
        ("metadata.jsonl", '{"file_name": "a", "label": 0.5}', "line 1: lacks"),
        ("metadata.jsonl", '{"file_name": "a", "label": ["b"]}', "another kind of value"),
        ("metadata.jsonl", '{"file_name": "\\ud800", "label": "b"}', "not valid Unicode"),
        ("metadata.jsonl", "[" * 100_000, "is not a JSON object"),
        ("metadata.jsonl", b"\xff\n", "is not a JSON object"),
        ("other.csv", "file_name,label\n", "no metadata.csv or metadata.jsonl"),
        ("metadata.csv", "file_name,label,set,subset\n1.jpg,a,x,y\n", "several columns .* the split: set, subset"),
        ("metadata.csv", "file_name,label,split\n1.jpg,a,x\n2.jpg,a,X\n", "splits that differ only in case"),
        ("metadata.csv", "file_name,split\n1.jpg,train\n", r"columns \(none\) beside"),
        ("metadata.jsonl", '{"file_name": "a", "label": "b", "split": 0.5}', "a split that is not text"),
        ("metadata.jsonl", '{"file_name": "a", "label": "b", "split": null}', "rows without a split"),
        (
            "metadata.jsonl",
            '{"file_name": "a", "label": "b", "split": "x"}\n{"file_name": "c", "label": "b"}\n',
            "line 2: has a column 'split' or lacks it, unlike the first row",
        ),
        ("metadata.csv", "file_name,label\ntrain2017/1.jpg,a\nval2017/2.jpg,a\n", "train2017, val2017 may be splits"),
    ],
)
def test_metadata_refuses(open_recipe: Open, name: str, text: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        open_recipe("metadata", {name: text})
