"""Define the settings of stages that read a source."""

from __future__ import annotations

from pydantic import Field

from larder.settings import Settings
from larder.source_names import split_sources
from larder.sources.archive_folders import ArchiveFolders


class LabelColumnSettings(Settings):
    """Setting for the column of classes in tables."""

    label_column: str = Field(
        "",
        alias="LARDER_LABEL_COLUMN",
        description="of Parquet files, and of the tables of the recipes csv and metadata: the column of classes; empty "
        "finds the only one",
    )


class SourceSettings(LabelColumnSettings):
    """Settings of a source. Each stage adds the description of `source`, since stages accept different sources."""

    source: str = Field(alias="LARDER_SOURCE")
    max_files: int = Field(
        10_000_000,
        alias="LARDER_MAX_FILES",
        ge=1,
        description="maximum number of files in a source",
        json_schema_extra={"unit": "files"},
    )
    archive_folders: ArchiveFolders = Field(
        "set",
        alias="LARDER_ARCHIVE_FOLDERS",
        description="with several archives, below which folder the files of each go: set (its name without a shard's "
        "number: train-000.tar and train-001.tar into train/), archive (its name), none (all into one)",
    )
    image_column: str = Field(
        "", alias="LARDER_IMAGE_COLUMN", description="of Parquet files: the column of images; empty finds the only one"
    )

    @property
    def sources(self) -> list[str]:
        """The sources that LARDER_SOURCE names."""
        return split_sources(self.source)
