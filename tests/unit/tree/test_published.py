"""The recipes for published datasets, and how a layout is recognized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from larder.errors import InputError
from larder.tree import recipes
from larder.tree.recipes import AssignedSample, LeftOutError, Recipe, RecipeFiles, RejectError
from larder.tree.recipes.auto import recognize_layout
from tests.unit.tree.test_matlab import META, unpacked

MakeFiles = Callable[[Mapping[str, Any]], RecipeFiles]


@pytest.fixture
def files(tmp_path: Path) -> MakeFiles:
    """Writes files for a recipe."""

    def files(content: Mapping[str, str | bytes]) -> RecipeFiles:
        data = {path: text if isinstance(text, bytes) else text.encode() for path, text in content.items()}
        for path, some in data.items():
            (tmp_path / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "raw" / path).write_bytes(some)
        (tmp_path / "scratch").mkdir(exist_ok=True)
        return RecipeFiles(
            tmp_path / "raw",
            lambda: iter(sorted(content)),
            lambda _: None,
            tmp_path / "scratch",
            "",
            read_all=lambda ending, most: (
                (path, some) for path, some in sorted(data.items()) if path.endswith(ending)
            ),
        )

    return files


def empty(*paths: str) -> dict[str, str]:
    return dict.fromkeys(paths, "")


def assigned(recipe: Recipe, paths: Iterable[str]) -> dict[str, Any]:
    """Return a recipe's result for each file: a sample, or the type of the error."""
    assigned_samples: dict[str, Any] = {}
    for path in paths:
        try:
            assigned_samples[path] = recipe.assign(path)
        except (RejectError, LeftOutError) as fault:
            assigned_samples[path] = type(fault)
    return assigned_samples


FOOD101 = empty("images/apple_pie/1.jpg", "images/apple_pie/2.jpg", "images/waffles/1.jpg", "README.txt") | {
    "meta/train.txt": "apple_pie/1\nwaffles/1\n",
    "meta/test.txt": "apple_pie/2\r\n\r\n",
    "meta/classes.txt": "apple_pie\nwaffles\n",
    "license_agreement.txt": "",
}


@pytest.mark.parametrize("around", ["", "food-101/"])
def test_food101(files: MakeFiles, around: str) -> None:
    content = {around + path: text for path, text in FOOD101.items()} | empty("NOTES.txt")
    source = files(content)
    assert recognize_layout(source).name == "food101"
    recipe = recipes.open_recipe("food101", source)
    assert recipe.classes == ["apple_pie", "waffles"]
    samples = {path.removeprefix(around): sample for path, sample in assigned(recipe, content).items() if sample}
    assert samples == {
        "images/apple_pie/1.jpg": AssignedSample("training", 0, "1.jpg"),
        "images/apple_pie/2.jpg": AssignedSample("evaluation", 0, "2.jpg"),
        "images/waffles/1.jpg": AssignedSample("training", 1, "1.jpg"),
    }
    assert list(recipe.missing_files()) == []


def test_food101_and_its_lists_disagree(files: MakeFiles) -> None:
    content = FOOD101 | empty("images/waffles/9.jpg") | {"meta/test.txt": "apple_pie/2\napple_pie/3\n"}
    recipe = recipes.open_recipe("food101", files(content))
    assert assigned(recipe, content)["images/waffles/9.jpg"] is RejectError
    assert list(recipe.missing_files()) == [
        ("images/apple_pie/3.jpg", "is named in meta/test.txt, line 2, but is not in the source")
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("apple_pie", "line 1: expected <class>/<n>"),
        ("a/b/c", "line 1: expected <class>/<n>"),
        ("apple_pie/1", "line 1: names 'apple_pie/1' a second time"),
        ("Apple_Pie/2", "differ only in case"),
    ],
)
def test_food101_with_a_faulty_list(files: MakeFiles, line: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        recipes.open_recipe("food101", files(FOOD101 | {"meta/test.txt": line}))


PETS = empty(
    "images/Abyssinian_1.jpg",
    "images/Abyssinian_2.jpg",
    "images/american_bulldog_10.jpg",
    "images/Abyssinian_9.jpg",
    "images/Abyssinian_1.mat",
    "annotations/trimaps/Abyssinian_1.png",
    "annotations/trimaps/._Abyssinian_1.png",
    "annotations/xmls/Abyssinian_1.xml",
) | {
    "annotations/list.txt": "#Image CLASS-ID SPECIES BREED ID\nAbyssinian_1 1 1 1\n",
    "annotations/trainval.txt": "Abyssinian_1 1 1 1\namerican_bulldog_10 2 2 1\n",
    "annotations/test.txt": "Abyssinian_2 1 1 1\n",
}


@pytest.mark.parametrize("around", ["", "oxford-iiit-pet/"])
def test_oxford_pet(files: MakeFiles, around: str) -> None:
    content = {around + path: text for path, text in PETS.items()}
    source = files(content)
    assert recognize_layout(source).name == "oxford_pet"
    recipe = recipes.open_recipe("oxford_pet", source)
    assert recipe.classes == ["Abyssinian", "american_bulldog"]
    samples = {path.removeprefix(around): sample for path, sample in assigned(recipe, content).items() if sample}
    assert samples == {
        "images/Abyssinian_1.jpg": AssignedSample("training", 0, "Abyssinian_1.jpg"),
        "images/Abyssinian_2.jpg": AssignedSample("evaluation", 0, "Abyssinian_2.jpg"),
        "images/american_bulldog_10.jpg": AssignedSample("training", 1, "american_bulldog_10.jpg"),
        "images/Abyssinian_9.jpg": LeftOutError,
        "images/Abyssinian_1.mat": LeftOutError,
    }


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("Abyssinian_2", "expected <class>_<n>"),
        ("Abyssinian 1", "expected <class>_<n>"),
        ("Abyssinian_2 2 1 1", "gives 'Abyssinian' the class 2, and an earlier line 1"),
        ("Bombay_2 2 1 1", "two classes have the same number"),
        ("../x_2 1 1 1", "expected <class>_<n>"),
    ],
)
def test_oxford_pet_with_a_faulty_list(files: MakeFiles, line: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        recipes.open_recipe("oxford_pet", files(PETS | {"annotations/test.txt": line}))


SYNSETS = ["n01440764", "n01443537", "n02119789"]
VAL = [f"ILSVRC2012_val_{number:08}.JPEG" for number in (1, 2, 3)]
CLASSES_OF_VAL = ["n02119789", "n01440764", "n01443537"]


def imagenet(train: str, val: str, truth: Mapping[str, Any]) -> dict[str, Any]:
    """Return a small ImageNet; the classes of its validation images are CLASSES_OF_VAL."""
    images = [f"{train}{synset}/{synset}_{number}.JPEG" for synset in SYNSETS for number in (10, 26)]
    return empty(*images, *(val + name for name in VAL)) | dict(truth)


TRUTHS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "kaggle": ("ILSVRC/Data/CLS-LOC/train/", "ILSVRC/Data/CLS-LOC/val/", {
        "LOC_val_solution.csv": "ImageId,PredictionString\n" + "".join(
            f"{name[:-5]},{synset} 1 2 3 4 {synset} 5 6 7 8 \n"
            for name, synset in reversed(list(zip(VAL, CLASSES_OF_VAL, strict=True)))
        ),
        "LOC_synset_mapping.txt": "n01440764 tench, Tinca tinca\n",
        "ILSVRC/ImageSets/CLS-LOC/val.txt": "".join(f"{name[:-5]} {place}\n" for place, name in enumerate(VAL, 1)),
    }),
    "synsets-by-line": ("train/", "val/", {"imagenet_2012_validation_synset_labels.txt": "\n".join(CLASSES_OF_VAL)}),
    "numbers-by-name": ("train/", "val/", {
        "val.txt": "".join(
            f"{name} {SYNSETS.index(synset)}\n" for name, synset in zip(VAL, CLASSES_OF_VAL, strict=True)
        )
    }),
    "ilsvrc-numbers": ("ILSVRC2012_img_train/", "ILSVRC2012_img_val/", {
        "devkit/data/ILSVRC2012_validation_ground_truth.txt": "1\n449\n2\n",
        "devkit/data/map_clsloc.txt": "n02119789 1 kit_fox\nn01443537 2 goldfish\nn01440764 449 tench\n",
    }),
    "ilsvrc-meta": ("ILSVRC2012_img_train/", "ILSVRC2012_img_val/", {
        "devkit/data/ILSVRC2012_validation_ground_truth.txt": "1\n449\n2\n", "devkit/data/meta.mat": META,
    }),
    "trains-at-the-top": ("", "", {"val_labels.txt": "\n".join(CLASSES_OF_VAL)}),
}  # fmt: skip


@pytest.mark.parametrize("layout", TRUTHS)
def test_imagenet(files: MakeFiles, layout: str) -> None:
    content = imagenet(*TRUTHS[layout])
    source = files(content)
    assert recognize_layout(source).name == "imagenet"
    recipe = recipes.open_recipe("imagenet", source)
    assert recipe.classes == SYNSETS
    samples = {path.rpartition("/")[2]: sample for path, sample in assigned(recipe, content).items() if sample}
    assert samples == {
        f"{synset}_{number}.JPEG": AssignedSample("training", label, f"{synset}_{number}.JPEG")
        for label, synset in enumerate(SYNSETS)
        for number in (10, 26)
    } | {
        name: AssignedSample("validation", SYNSETS.index(synset), name)
        for name, synset in zip(VAL, CLASSES_OF_VAL, strict=True)
    }
    assert list(recipe.missing_files()) == []


def test_imagenet_with_the_validation_in_synset_folders(files: MakeFiles) -> None:
    content = imagenet("train/", "test/", {}) | empty(
        f"val/{SYNSETS[1]}/{VAL[0]}", "test/ILSVRC2012_test_00000001.JPEG"
    )
    recipe = recipes.open_recipe("imagenet", files(content))
    samples = assigned(recipe, content)
    assert samples[f"val/{SYNSETS[1]}/{VAL[0]}"] == AssignedSample("validation", 1, VAL[0])
    assert samples["test/ILSVRC2012_test_00000001.JPEG"] is LeftOutError
    assert samples[f"test/{VAL[0]}"] is RejectError, "nothing says what it is"


def test_imagenet_lacks_some_validation_images(files: MakeFiles) -> None:
    content = imagenet(*TRUTHS["synsets-by-line"])
    del content[f"val/{VAL[1]}"]
    recipe = recipes.open_recipe("imagenet", files(content))
    assigned(recipe, content)
    assert [path for path, _ in recipe.missing_files()] == [VAL[1]]


@pytest.mark.parametrize(
    ("truth", "what"),
    [
        (
            {"ILSVRC2012_validation_ground_truth.txt": "1\n2\n3\n"},
            r"no map_clsloc\.txt or meta\.mat maps them to synsets",
        ),
        ({"val.txt": f"{VAL[0]} 3\n"}, r"val\.txt, line 1: has the class 3, of 3 classes"),
        ({"val.txt": f"{VAL[0]} 1\n{VAL[0]} 2\n"}, "line 2: gives image 1 a second class"),
        ({"ground_truth.txt": "7\n", "map_clsloc.txt": "n01440764 x\n"}, r"map_clsloc\.txt, line 1: expected <synset>"),
        ({"ground_truth.txt": "7\n", "meta.mat": "x"}, r"meta\.mat can't be read: it is not a MATLAB file"),
        ({"ground_truth.txt": "7\n", "meta.mat": unpacked(">")}, r"meta\.mat can't be read: its elements lack"),
    ],
    ids=["no-map", "beyond", "twice", "faulty-map", "no-mat", "other-mat"],
)
def test_imagenet_with_a_faulty_truth(files: MakeFiles, truth: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        recipes.open_recipe("imagenet", files(imagenet("train/", "val/", truth)))


@pytest.mark.parametrize("name", ["food101", "oxford_pet", "imagenet"])
def test_another_data_set(files: MakeFiles, name: str) -> None:
    with pytest.raises(InputError, match="images in cat, dog") as fault:
        recipes.open_recipe(name, files(empty("cat/1.jpg", "dog/1.jpg")))
    assert "LARDER_RECIPE=auto" in fault.value.next_step


@pytest.mark.parametrize(
    ("content", "name", "why"),
    [
        (empty("training/0_0.jpg", "validation/0_0.jpg", "evaluation/0_0.jpg"), "food11", "<class>_<n>"),
        (empty("x/training/0_0.jpg", "x/validation/0_0.jpg", "README"), "food11", "<class>_<n>"),
        (empty("train/cat/1.jpg", "train/cat/0_1.jpg"), "imagefolder", "folders of splits"),
        (empty("cat/0_0.jpg", "train/1_1.jpg"), "imagefolder", "each class"),
        (empty("cat/0_0.jpg", "dog/1_1.jpg"), "imagefolder", "each class"),
        (empty("images/a.jpg") | {"t.csv": "file,label\nimages/a.jpg,x\n"}, "csv", "t.csv"),
        (empty("images/a.jpg") | {"t.tsv": "Image\tClass\nimages/a.jpg\tx\n"}, "csv", "t.tsv"),
        (empty("cat/a.jpg", "dog/a.jpg") | {"t.csv": "id,size\n1,2\n"}, "imagefolder", "each class"),
        (empty("cat/a.jpg", "dog/a.jpg") | {"t.csv": "file,label\nelsewhere.jpg,2\n"}, "imagefolder", "each class"),
        (empty("day/cat/1.jpg", "night/cat/1.jpg"), "imagefolder", "each class"),
    ],
)
def test_auto_recognizes(files: MakeFiles, content: dict[str, str], name: str, why: str) -> None:
    layout = recognize_layout(files(content))
    assert layout.name == name
    assert why in layout.why


@pytest.mark.parametrize("table", ["id,breed\n1,cat\n", "file,label\nelsewhere.jpg,cat\n"])
def test_an_unknown_table_is_reported_if_nothing_else_names_classes(files: MakeFiles, table: str) -> None:
    with pytest.raises(InputError, match=r"no recipe understands the table 'labels\.csv'") as fault:
        recognize_layout(files(empty("images/1.jpg", "images/2.jpg") | {"labels.csv": table}))
    assert "LARDER_CSV" in fault.value.next_step and "LARDER_RECIPE=imagefolder" in fault.value.next_step


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (empty("1.jpg", "2.jpg"), "images at its top, outside of any folder"),
        (empty("train/a.jpg", "test/b.jpg"), "images in test, train"),
        (empty("README"), "no images"),
        (empty("train/images/a.jpg", "val/images/b.jpg", "train/labels/a.txt"), "in folders named 'images'"),
        (empty("Photos/1.jpg", "Photos/2.jpg"), "in folders named 'Photos'"),
    ],
)
def test_auto_finds_nothing(files: MakeFiles, content: dict[str, str], what: str) -> None:
    with pytest.raises(InputError, match=what):
        recognize_layout(files(content))


SHARDS = empty("train/a.jpg", "train/b/c.0.PNG", "test/a.jpg", "README.md") | {
    "train/a.cls": "1",
    "train/b/c.cls": "007\n",
    "test/a.cls": "0",
    "train/a.json": "{}",
}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"classes.txt": "\n".join("abcdefghi")}, list("abcdefghi")),
        ({"classes.json": '["a", "b", "c", "d", "e", "f", "g", "h"]'}, list("abcdefgh")),
        ({"classes.json": '{"classes": ["a", "b", "c", "d", "e", "f", "g", "h"]}'}, list("abcdefgh")),
    ],
    ids=["text", "list", "object"],
)
@pytest.mark.parametrize("around", ["", "my-set/"])
def test_webdataset(files: MakeFiles, around: str, names: dict[str, str], expected: list[str]) -> None:
    content = {around + path: text for path, text in (SHARDS | names).items()}
    source = files(content)
    assert recognize_layout(source) == ("webdataset", ".cls beside images, as in WebDataset's shards")
    recipe = recipes.open_recipe("webdataset", source)
    assert recipe.classes == expected
    samples = {path.removeprefix(around): sample for path, sample in assigned(recipe, content).items() if sample}
    assert samples == {
        "train/a.jpg": AssignedSample("training", 1, "a.jpg"),
        "train/b/c.0.PNG": AssignedSample("training", 7, "c.0.PNG"),
        "test/a.jpg": AssignedSample("evaluation", 0, "a.jpg"),
    }
    assert list(recipe.missing_files()) == []


def test_webdataset_with_names_for_classes_and_no_splits(files: MakeFiles) -> None:
    content = empty("s/1.jpg", "t/1.jpg", "t/2.jpg", "t/3.jpg") | {"s/1.cls": "dog", "t/1.cls": "dog", "t/2.cls": "cat"}
    content |= {"t/9.cls": "cat"}
    recipe = recipes.open_recipe("webdataset", files(content))
    assert recipe.classes == ["cat", "dog"]
    assert recipes.is_undivided(recipe)
    assert assigned(recipe, content) | dict.fromkeys(path for path in content if path.endswith(".cls")) == {
        "s/1.jpg": AssignedSample("training", 1, "s_1.jpg"),
        "t/1.jpg": AssignedSample("training", 1, "t_1.jpg"),
        "t/2.jpg": AssignedSample("training", 0, "2.jpg"),
        "t/3.jpg": RejectError,
    } | dict.fromkeys(path for path in content if path.endswith(".cls"))
    assert list(recipe.missing_files()) == [("t/9.cls", "has no image with its key in the source")]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ({"a.cls": ""}, "holds no class"),
        ({"a.cls": "x\x1b[2J"}, "holds no class"),
        ({"a.cls": "1", "b.cls": "dog"}, r"some labels are numbers \('1'\), and others are names \('dog'\)"),
        (
            {"a.cls": "9", "classes.txt": "a\nb\n"},
            r"classes\.txt: the list of classes names 2, and there is the label '9'",
        ),
        ({"a.cls": "cat", "classes.txt": "cat\nCat\n"}, "differ only in case"),
        ({"a.cls": "1", "classes.json": '["ice cream", "ice_cream"]'}, "differ only in case, spaces"),
        ({"imagenet-train/a.cls": "1", "imagenet-val/b.cls": "2"}, "imagenet-train, imagenet-val may be splits"),
        ({"a.cls": "c", "classes.txt": "a\nb\n"}, "lacks the class 'c'"),
        ({"a.cls": "1", "classes.txt": "a\na\n"}, "is not a list of distinct classes"),
        ({"a.cls": "1", "classes.json": "{"}, "holds no list of classes"),
        ({"a.cls": "Cat", "b.cls": "cat"}, "differ only in case"),
        ({"train/a.cls": "1", "b.cls": "1"}, "train has the name of a split, and the top has not"),
        ({"a.0.cls": "1", "a.1.cls": "1"}, "has the same key as another"),
        ({}, "no .cls beside images"),
    ],
)
def test_webdataset_that_makes_no_sense(files: MakeFiles, content: dict[str, str], what: str) -> None:
    with pytest.raises(InputError, match=what):
        recipes.open_recipe("webdataset", files(empty("a.jpg", "train/a.jpg") | content))


@pytest.mark.parametrize("labels", [("1", "dog"), ("1", "")])
def test_labels_of_shards_have_a_next_step_of_their_own(files: MakeFiles, labels: tuple[str, str]) -> None:
    content = {f"{number}.cls": label for number, label in enumerate(labels)}
    with pytest.raises(InputError) as caught:
        recipes.open_recipe("webdataset", files(empty("0.jpg", "1.jpg") | content))
    assert caught.value.next_step == "correct the shards: each .cls holds one class, a number or a name"
