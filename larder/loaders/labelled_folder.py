"""torchvision's ImageFolder with the labels of a whole data set. Importing this takes torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from larder.contract import class_folder


class LabelledImageFolder(ImageFolder):  # type: ignore[misc]  # torchvision has no types
    """ImageFolder over a split of a data set of so many classes.

    By itself, ImageFolder numbers the class folders that it finds. A split that lacks a class would have other labels
    than the others, wherever no empty folder stands for it.
    """

    def __init__(self, folder: Path, classes: int, **options: Any) -> None:
        self._names = [class_folder(label, classes) for label in range(classes)]
        super().__init__(str(folder), allow_empty=True, **options)

    def find_classes(self, directory: Path | str) -> tuple[list[str], dict[str, int]]:
        """See ImageFolder. Raises FileNotFoundError when there is no folder, or no class folder in it."""
        super().find_classes(directory)
        return self._names, {name: label for label, name in enumerate(self._names)}
