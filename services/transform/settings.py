"""The settings of the transform stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from larder.settings import DataSettings, ProcessSettings
from services.transform import recipes

Verify = Literal["header", "decode", "none"]


def _known_recipe(name: str) -> str:
    if name not in recipes.names():
        raise ValueError(f"must be one of {', '.join(recipes.names())}")
    return name


class TransformSettings(DataSettings, ProcessSettings):
    """How files become samples, and how closely they are looked at."""

    recipe: Annotated[str, AfterValidator(_known_recipe)] = Field(
        "food11", alias="LARDER_RECIPE",
        description=f"how a file's split and class are found: {', '.join(recipes.names())}",
    )  # fmt: skip
    verify: Verify = Field(
        "header", alias="LARDER_VERIFY",
        description="how each image is checked: header (format, size, complete), decode (what a decoder notices), none",
    )  # fmt: skip
    max_rejects: int = Field(
        0, alias="LARDER_MAX_REJECTS", ge=0, description="with more rejected samples than this the stage fails",
        json_schema_extra={"unit": "samples"},
    )  # fmt: skip
    csv: str = Field(
        "", alias="LARDER_CSV",
        description="for the recipe csv: the table's path inside the source; empty finds the only one at its top",
    )  # fmt: skip
    label_column: str = Field(
        "", alias="LARDER_LABEL_COLUMN",
        description="of Parquet files, and of the recipe metadata's tables: the column of classes; empty finds the "
        "only one",
    )  # fmt: skip
