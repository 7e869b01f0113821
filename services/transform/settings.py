"""The settings of the transform stage."""

from __future__ import annotations

from pydantic import Field

from larder.settings import DataSettings, ProcessSettings
from larder.tree.settings import SampleSettings


class TransformSettings(DataSettings, ProcessSettings, SampleSettings):
    """Where recipes look beside the files' names."""

    csv: str = Field(
        "", alias="LARDER_CSV",
        description="for the recipe csv: the table's path inside the source; empty finds the one at its top",
    )  # fmt: skip
    label_column: str = Field(
        "", alias="LARDER_LABEL_COLUMN",
        description="of Parquet files, and of the recipe metadata's tables: the column of classes; empty finds the "
        "only one",
    )  # fmt: skip
