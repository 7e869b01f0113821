"""The settings of the index stage."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from larder.engines.settings import EngineSettings
from larder.next_step import MAKES
from larder.settings import DataSettings
from larder.source_names import split_sources
from larder.sources.archive_folders import ArchiveFolders
from larder.store import BucketSettings
from larder.tree.settings import SampleSettings


def _in_a_store(source: str) -> str:
    for one in split_sources(source):
        if not re.fullmatch(r"s3://[A-Za-z0-9._-]+/.*", one, re.DOTALL):
            raise ValueError(f"must be s3://bucket/prefix/ or s3://bucket/archive; {MAKES['tree']} take any source")
    return source


class IndexSettings(DataSettings, EngineSettings, BucketSettings, SampleSettings):
    """What is indexed, and in which bucket the index is put."""

    source: Annotated[str, AfterValidator(_in_a_store)] = Field(
        alias="LARDER_SOURCE", min_length=1,
        description="the images, WebDataset shards, archives or Parquet files, in a store: s3://bucket/folder/, a "
        "pattern (`s3://bucket/shards/*.tar`), an archive; several archives, one a line or as a JSON list",
    )  # fmt: skip
    archive_folders: ArchiveFolders = Field(
        "set", alias="LARDER_ARCHIVE_FOLDERS",
        description="with several archives, below which folder the files of each go: set (its name without a shard's "
        "number: train-000.tar and train-001.tar into train/), archive (its name), none (all into one)",
    )  # fmt: skip
    csv: str = Field(
        "", alias="LARDER_CSV",
        description="for the recipe csv: the table's path inside the source; empty finds the one at its top",
    )  # fmt: skip
    image_column: str = Field(
        "", alias="LARDER_IMAGE_COLUMN", description="of Parquet files: the column of images; empty finds the only one"
    )
    label_column: str = Field(
        "", alias="LARDER_LABEL_COLUMN",
        description="of Parquet files, and of the recipe metadata's tables: the column of classes; empty finds the "
        "only one",
    )  # fmt: skip
    max_files: int = Field(
        10_000_000, alias="LARDER_MAX_FILES", ge=1,
        description="a source with more files than this is refused", json_schema_extra={"unit": "files"},
    )  # fmt: skip

    @property
    def sources(self) -> list[str]:
        """Every source, where LARDER_SOURCE names several."""
        return split_sources(self.source)
