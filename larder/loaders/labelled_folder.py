"""torchvision's ImageFolder with the labels of the whole dataset. Importing this imports torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from larder.contract import class_folder


class LabelledImageFolder(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """ImageFolder over one split, with the labels of a dataset of `classes` classes.

    Plain ImageFolder numbers the class folders that it finds. In a split that lacks a class (and has no empty folder
    for it), labels would differ from those of other splits.
    """

    def __init__(self, folder: Path, classes: int, **options: Any) -> None:
        self._names = [class_folder(label, classes) for label in range(classes)]
        super().__init__(str(folder), allow_empty=True, **options)

    def find_classes(self, directory: Path | str) -> tuple[list[str], dict[str, int]]:
        """Return class names and labels. Raise FileNotFoundError if `directory` is missing or has no class folders."""
        super().find_classes(directory)
        return self._names, {name: label for label, name in enumerate(self._names)}
