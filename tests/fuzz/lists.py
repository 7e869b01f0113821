"""Tables and lists that say what images are: CSV files, and the lists of published datasets."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from larder.errors import LarderError
from larder.tree import recipes
from larder.tree.recipes import AUTO, LeftOutError, RecipeFiles, RejectError
from larder.tree.splits import parse_split_names
from tests.fuzz.mutations import PIECES, corrupt


class Layout(NamedTuple):
    """A source that a recipe reads: its lists, and its images."""

    recipe: str
    lists: dict[str, bytes]
    images: tuple[str, ...]


_VAL = "ILSVRC2012_val_00000001.JPEG"
LAYOUTS = (
    Layout("csv", {"labels.csv": b"file,label,split\na/1.jpg,cat,train\na/2.jpg,dog,val\n"}, ("a/1.jpg", "a/2.jpg")),
    Layout("csv", {"labels.tsv": b'\xef\xbb\xbfImage\tClass\r\n1.jpg\t0\r\n"2.jpg"\t10\r\n'}, ("1.jpg", "2.jpg")),
    Layout(
        "metadata",
        {"metadata.csv": b"file_name,label\n1.jpg,a\n", "b/metadata.jsonl": b'{"file_name": "2.jpg", "label": 3}\n'},
        ("1.jpg", "b/2.jpg"),
    ),
    Layout(
        "food101",
        {"meta/train.txt": b"pie/1\ncake/2\n", "meta/test.txt": b"pie/3\n"},
        ("images/pie/1.jpg", "images/cake/2.jpg", "images/pie/3.jpg"),
    ),
    Layout(
        "oxford_pet",
        {"annotations/trainval.txt": b"Beagle_1 1 2 1\n", "annotations/test.txt": b"Persian_2 2 1 1\n"},
        ("images/Beagle_1.jpg", "images/Persian_2.jpg"),
    ),
    Layout(
        "imagenet",
        {"val_ground_truth.txt": b"1\n", "map_clsloc.txt": b"n01440764 1 tench\n"},
        ("train/n01440764/1.JPEG", f"val/{_VAL}"),
    ),
    Layout(
        "imagenet",
        {"val.txt": f"{_VAL} 0\n".encode(), "synset_words.txt": b"n01440764 tench\n"},
        ("train/n01440764/1.JPEG", f"val/{_VAL}"),
    ),
    Layout(
        "imagenet",
        {"LOC_val_solution.csv": b"ImageId,PredictionString\n" + _VAL[:-5].encode() + b",n01440764 1 2 3 4\n"},
        ("train/n01440764/1.JPEG", f"val/{_VAL}"),
    ),
    Layout("parquet", {"classes.json": b'{"classes": ["a", "b"]}'}, ("train/000/1.jpg", "train/001/2.jpg")),
    Layout(
        "webdataset",
        {"train/1.cls": b"1", "train/2.cls": b"0", "classes.txt": b"a\nb\n"},
        ("train/1.jpg", "train/2.jpg"),
    ),
    Layout("webdataset", {"1.cls": b"cat", "2.cls": b"dog", "classes.json": b'["cat", "dog"]'}, ("1.jpg", "2.jpg")),
)
_ODD = (
    *PIECES,
    b'"',
    b'""',
    b",",
    b";",
    b"\t",
    b"|",
    b"\r",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"../",
    b"/etc/passwd",
    b"\x1b[2J",
    b"\xc2\x85",
    b"e\xcc\x81",
    b" ",
    b"\xe2\x80\xae",
    b"x" * 5000,
    b"1" * 5000,
    b"\n" * 1000,
    b'"' * 999,
    b"-",
    b"train",
    b".",
    b"\\",
)


def fuzz(chance: random.Random, folder: Path) -> None:
    """Damage a list, and read the source by its recipe and by the recognized one."""
    layout = chance.choice(LAYOUTS)
    content = dict(layout.lists) | dict.fromkeys(layout.images, b"x")
    for _ in range(chance.randint(1, 2)):
        path = chance.choice(list(layout.lists))
        content[path] = _spoilt(content[path], chance)
    for path, data in content.items():
        (folder / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "raw" / path).write_bytes(data)
    (folder / "scratch").mkdir()
    splits = parse_split_names(chance.choice(["", "", "val=-", "none", "train=mine"]))

    def read_all(ending: str, most: int) -> Iterator[tuple[str, bytes]]:
        return ((path, data[:most]) for path, data in sorted(content.items()) if path.endswith(ending))

    csv = next(iter(layout.lists)) if layout.recipe == "csv" and chance.random() < 0.5 else ""
    label = chance.choice(["", "", "label", "none"])
    fault: LarderError | None = None
    for name in (layout.recipe, AUTO):
        files = RecipeFiles(
            folder / "raw",
            lambda: iter(sorted(content)),
            lambda _: None,
            folder / "scratch",
            csv,
            splits,
            label,
            read_all=read_all,
        )
        try:
            _read(name, files, layout)
        except LarderError as error:
            fault = fault or error
    if fault is not None:
        raise fault  # the harness checks its message


def _spoilt(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.randrange(3)):
        at = chance.randint(0, len(data))
        data = data[:at] + chance.choice(_ODD) + data[at:]
    if chance.random() < 0.05 and len(data) < 1 << 16:  # else the input itself takes the memory
        data = data * 500 + chance.choice(_ODD) * 500
    return corrupt(data, chance) if data and chance.random() < 0.5 else data


def _read(name: str, files: RecipeFiles, layout: Layout) -> None:
    recipe = recipes.open_recipe(name, files)
    for path in (*layout.images, *layout.lists, "odd.jpg", "a/b/c.png", "../x.jpg"):
        try:
            sample = recipe.assign(path)
        except (RejectError, LeftOutError) as error:
            assert len(str(error)) < 1000
            continue
        if sample is not None:
            assert 0 <= sample.label < len(recipe.classes)
            assert sample.split and "/" not in sample.split and "/" not in sample.name and sample.name
    for path, why in recipe.missing_files():
        assert path and why
