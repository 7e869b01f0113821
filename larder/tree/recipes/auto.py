"""Detect the source's layout, and select the recipe for it."""

from __future__ import annotations

from typing import NamedTuple

from larder.errors import InputError
from larder.tree import recipes
from larder.tree.file_names import EXTENSIONS
from larder.tree.recipes import AUTO, Recipe, RecipeFiles, csv, require_images

_GENERAL_RECIPES = ("food11", "csv", "imagefolder")
"""General recipes, tried after those for a single dataset; the most general one last."""

_IMAGE_FOLDERS = frozenset(
    {
        "images",
        "image",
        "imgs",
        "img",
        "jpegimages",
        "photos",
        "photo",
        "pictures",
        "pics",
        "data",
        "dataset",
        "files",
    }
)
"""Usual names of a folder with images of all classes, as in detection data: `train/images/` beside `train/labels/`."""
_ANNOTATION_FOLDERS = frozenset(
    {
        "masks",
        "mask",
        "labels",
        "label",
        "annotations",
        "annotation",
        "annots",
        "segmentation",
        "segmentations",
        "segmentationclass",
        "segmentationobject",
        "groundtruth",
        "ground_truth",
        "gt",
        "targets",
        "depth",
        "edges",
    }
)
"""Usual names of folders beside them, with images that annotate theirs: for segmentation, `masks/` beside `images/`."""
_LABEL_EXTENSIONS = (".json", ".txt")
_MAX_CHECKED, _MAX_COUNTED = 100, 10_000


class RecognizedLayout(NamedTuple):
    """A recipe, and why it was selected."""

    name: str
    why: str


def recognize_layout(files: RecipeFiles) -> RecognizedLayout:
    """Select the recipe for these files.

    Raises:
        InputError: If no recipe fits.
    """
    if files.csv:
        return RecognizedLayout("csv", "LARDER_CSV is set")
    special = [name for name in recipes.recipe_names() if name not in (AUTO, *_GENERAL_RECIPES)]
    for name in (*special, *_GENERAL_RECIPES):
        recognize = getattr(recipes.recipe_module(name), "recognize", None)
        why = recognize(files) if recognize is not None else None
        if why is not None:
            if name == "imagefolder":
                _require_classes(files)
            return RecognizedLayout(name, why)
    require_images(files)
    why = csv.explain(files)
    raise InputError(
        f"no recipe recognizes the layout: the source has {files.summary.describe()}" + (f"; {why}" if why else ""),
        next_step="put the images into a folder for each class, or add a table with the columns file and label (see "
        "services/transform/README.md), then extract again",
    )


def _require_classes(files: RecipeFiles) -> None:
    """Raise InputError if there would be one class only, but its folder's name or an unused table suggests more."""
    tables = [path for path in files.summary.lists if path.lower().endswith((".csv", ".tsv"))]
    if tables and len(recipes.open_recipe("imagefolder", files).classes) == 1:
        raise InputError(
            f"all images lie in one folder, and no recipe understands the table {tables[0]!a}",
            next_step=f"set LARDER_CSV={tables[0]!a} if it names the images' classes, in columns file and label (see "
            "services/transform/README.md); or LARDER_RECIPE=imagefolder if there is one class",
        )
    names = {folder.rpartition("/")[2] for folder in files.summary.folders}
    folded = {name.casefold() for name in names}
    if folded & _IMAGE_FOLDERS and (len(names) == 1 or folded <= _IMAGE_FOLDERS | _ANNOTATION_FOLDERS):
        says = "says nothing about their class" if len(names) == 1 else "say nothing about their classes"
        raise InputError(
            f"all images lie in folders named {' and '.join(map(ascii, sorted(names)))}, which {says}",
            next_step="put the images into a folder for each class, or name their classes in a table with the columns "
            f"file and label (LARDER_CSV); or set LARDER_RECIPE=imagefolder if {min(names)!a} is a class",
        )
    if len(names) == 1 and (beside := _label_beside(files)):
        raise InputError(
            f"all images lie in folders named {min(names)!a}, and beside each lies a file that may hold its label, "
            f"such as {beside!a}, which no recipe reads",
            next_step="name the images' classes in a table with the columns file and label (LARDER_CSV); or set "
            f"LARDER_RECIPE=imagefolder if {min(names)!a} is the class",
        )


def _label_beside(files: RecipeFiles) -> str:
    """Return the first file that may hold an image's label, if most images have one; else ""."""
    beside = [path for path in files.summary.lists if path.lower().endswith(_LABEL_EXTENSIONS)]
    if 2 * len(beside) < min(files.summary.images, _MAX_COUNTED):
        return ""
    labels = (
        path for path in beside[:_MAX_CHECKED] if any(files.exists(path.rpartition(".")[0] + end) for end in EXTENSIONS)
    )
    return next(labels, "")


def open(files: RecipeFiles) -> Recipe:
    """Open the recipe for these files."""
    return recipes.open_recipe(recognize_layout(files).name, files)
