"""The settings of stages that make samples of files."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from larder.settings import Settings
from larder.tree import recipes
from larder.tree.splits import parse_shares, parse_split_names

Verify = Literal["header", "decode", "none"]


def _known_recipe(name: str) -> str:
    if name not in recipes.names():
        raise ValueError(f"must be one of {', '.join(recipes.names())}")
    return name


def _split_names(text: str) -> str:
    parse_split_names(text)
    return text.strip()


def _shares(text: str) -> str:
    return text and ",".join(f"{share!r}" for share in parse_shares(text))


class SampleSettings(Settings):
    """How files become samples, and how closely they are looked at."""

    recipe: Annotated[str, AfterValidator(_known_recipe)] = Field(
        recipes.AUTO, alias="LARDER_RECIPE",
        description=f"how a file's split and class are found: {', '.join(recipes.names())}",
    )  # fmt: skip
    splits: Annotated[str, AfterValidator(_split_names)] = Field(
        "", alias="LARDER_SPLITS",
        description="what folders or values mean as splits, beside the usual names: dev=validation,holdout=evaluation; "
        "extra=- leaves one out, none takes no folder for a split",
    )  # fmt: skip
    split: Annotated[str, AfterValidator(_shares)] = Field(
        "", alias="LARDER_SPLIT",
        description="divides a data set that has no splits: the shares of training, validation and evaluation, as in "
        "0.8,0.1,0.1",
    )  # fmt: skip
    split_seed: int = Field(
        0, alias="LARDER_SPLIT_SEED", ge=0, lt=1 << 63,
        description="seed of LARDER_SPLIT; with it and its content alone, a file's split is given",
    )  # fmt: skip
    verify: Verify = Field(
        "header", alias="LARDER_VERIFY",
        description="how each image is checked: header (format, size, complete), decode (what a decoder notices), none",
    )  # fmt: skip
    max_rejects: int = Field(
        0, alias="LARDER_MAX_REJECTS", ge=0, description="with more rejected samples than this the stage fails",
        json_schema_extra={"unit": "samples"},
    )  # fmt: skip

    @property
    def shaping_splits(self) -> dict[str, str | int]:
        """The settings of splits, for manifests. Those that are left at their defaults are absent."""
        shaping: dict[str, str | int] = {"splits": self.splits} if self.splits else {}
        if self.split:
            shaping |= {"split": self.split, "split_seed": self.split_seed}
        return shaping
