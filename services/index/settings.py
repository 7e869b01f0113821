"""The settings of the index stage."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from larder.engines.settings import EngineSettings
from larder.next_step import CREATED_BY
from larder.settings import DataSettings
from larder.source_names import split_sources
from larder.sources.settings import SourceSettings
from larder.store import BucketSettings
from larder.tree.settings import SampleSettings


def _validate_source(source: str) -> str:
    for name in split_sources(source):
        if not re.fullmatch(r"s3://[A-Za-z0-9._-]+/.*", name, re.DOTALL):
            raise ValueError(
                f"must be s3://bucket/prefix/ or s3://bucket/archive; {CREATED_BY['tree']} take any source"
            )
    return source


class IndexSettings(SourceSettings, DataSettings, EngineSettings, BucketSettings, SampleSettings):
    """The source to index, and the bucket for the index."""

    source: Annotated[str, AfterValidator(_validate_source)] = Field(
        alias="LARDER_SOURCE",
        min_length=1,
        description="the images, WebDataset shards, archives or Parquet files, in a store: s3://bucket/folder/, a "
        "pattern (`s3://bucket/shards/*.tar`), an archive; several archives, one per line or as a JSON list",
    )
