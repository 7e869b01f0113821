"""Images of every kind as bytes, and recipes for files."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from larder.tree import recipes
from larder.tree.recipes import Recipe, RecipeFiles
from larder.tree.splits import parse_split_names

Open = Callable[..., Recipe]


@pytest.fixture
def open_recipe(tmp_path: Path) -> Open:
    """Opens a recipe for files, given as names or as a mapping from name to content."""

    def open_recipe(name: str, files: Mapping[str, str | bytes] | list[str], csv: str = "", splits: str = "") -> Recipe:
        content = files if isinstance(files, Mapping) else dict.fromkeys(files, "")
        raw, scratch = tmp_path / "raw", tmp_path / "scratch"
        shutil.rmtree(raw, ignore_errors=True)
        scratch.mkdir(exist_ok=True)
        for path, text in content.items():
            (raw / path).parent.mkdir(parents=True, exist_ok=True)
            (raw / path).write_bytes(text.encode() if isinstance(text, str) else text)
        names = parse_split_names(splits)
        return recipes.open_recipe(
            name, RecipeFiles(raw, lambda: iter(sorted(content)), lambda _: None, scratch, csv, names)
        )

    return open_recipe


def split_of(recipe: Recipe, path: str) -> str:
    """Return the split that a recipe assigns to an image."""
    sample = recipe.assign(path)
    assert sample is not None
    return sample.split


def name_of(recipe: Recipe, path: str) -> str:
    """Return the file name that a recipe assigns to an image."""
    sample = recipe.assign(path)
    assert sample is not None
    return sample.name


Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Encodes a picture: `encode("JPEG", mode="L", quality=50)`. The same arguments, the same bytes."""

    def encode(kind: str, mode: str = "RGB", size: tuple[int, int] = (48, 32), **options: Any) -> bytes:
        picture = Image.linear_gradient("L").resize(size)
        picture = Image.merge("RGB", [picture, picture.transpose(Image.Transpose.ROTATE_180), picture])
        stream = io.BytesIO()
        picture.convert(mode).save(stream, kind, **options)
        return stream.getvalue()

    return encode
