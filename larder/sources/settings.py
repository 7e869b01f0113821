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
        description="the column of classes in Parquet files, and in the tables of the recipes csv and "
        "metadata; empty takes the only possible one",
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
        description="with several archives, the folder into which each is unpacked: set (its name without a "
        "shard's number: train-000.tar and train-001.tar into train/), archive (its name), none "
        "(the same folder for all)",
    )
    image_column: str = Field(
        "",
        alias="LARDER_IMAGE_COLUMN",
        description="the column of images in Parquet files; empty takes the only possible one",
    )

    @property
    def sources(self) -> list[str]:
        """The sources that LARDER_SOURCE names."""
        return split_sources(self.source)
