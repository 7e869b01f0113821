"""Settings of the stages that turn files into samples."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from larder.settings import Settings
from larder.tree import recipes
from larder.tree.splits import parse_shares, parse_split_names

Verify = Literal["header", "decode", "none"]


def _validate_recipe(name: str) -> str:
    if name not in recipes.recipe_names():
        raise ValueError(f"must be one of {', '.join(recipes.recipe_names())}")
    return name


def _validate_split_names(text: str) -> str:
    parse_split_names(text)
    return text.strip()


def _normalize_shares(text: str) -> str:
    return text and ",".join(f"{share!r}" for share in parse_shares(text))


class SampleSettings(Settings):
    """How files become samples, and how strictly images are checked."""

    recipe: Annotated[str, AfterValidator(_validate_recipe)] = Field(
        recipes.AUTO,
        alias="LARDER_RECIPE",
        description=f"the recipe that finds each file's split and class: {', '.join(recipes.recipe_names())}",
    )
    splits: Annotated[str, AfterValidator(_validate_split_names)] = Field(
        "",
        alias="LARDER_SPLITS",
        description="more names of splits, beside the usual ones: dev=validation,holdout=evaluation; extra=- "
        "leaves a folder or value out; none treats no folder as a split",
    )
    split: Annotated[str, AfterValidator(_normalize_shares)] = Field(
        "",
        alias="LARDER_SPLIT",
        description="divides a dataset that has no splits, by the shares of training, validation and "
        "evaluation, such as 0.8,0.1,0.1",
    )
    split_seed: int = Field(
        0,
        alias="LARDER_SPLIT_SEED",
        ge=0,
        lt=1 << 63,
        description="seed of LARDER_SPLIT; a file's split depends only on the seed and its content",
    )
    verify: Verify = Field(
        "header",
        alias="LARDER_VERIFY",
        description="how each image is checked: header (format, size, completeness), decode (also whatever a "
        "decoder detects), none",
    )
    max_rejects: int = Field(
        0,
        alias="LARDER_MAX_REJECTS",
        ge=0,
        description="maximum number of rejected samples; if there are more, the stage fails",
        json_schema_extra={"unit": "samples"},
    )
    csv: str = Field(
        "",
        alias="LARDER_CSV",
        description="the path of the recipe csv's table in the source; empty takes the only one at the source's top",
    )

    @property
    def shaping_splits(self) -> dict[str, str | int]:
        """Settings of splits for the manifest, without those at their defaults."""
        shaping: dict[str, str | int] = {"splits": self.splits} if self.splits else {}
        if self.split:
            shaping |= {"split": self.split, "split_seed": self.split_seed}
        return shaping
