"""The settings of the extract stage."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, ByteSize, Field, model_validator

from larder import sample
from larder.dataset import DEFAULT
from larder.settings import DATASET, DatasetName, DataSettings, ProcessSettings
from larder.store import StoreSettings

FEWEST_IMAGES = len(sample.SPLITS) * sample.CLASSES
FOOD11_URL = "https://nyu.box.com/shared/static/m5kvcl25hfpljul3elhu6xz8y2w61op4.zip"


def _known_source(source: str) -> str:
    scheme, found, _ = source.partition("://")
    if found and scheme not in ("http", "https", "s3"):
        raise ValueError(f"{scheme}:// is no source; must be http(s)://, s3://bucket/key, a path, or sample")
    if scheme == "s3" and found and not source.removeprefix("s3://").partition("/")[2]:
        raise ValueError("must name bucket and key: s3://bucket/path/archive.zip")
    try:
        if found:
            urlsplit(source)
    except ValueError as fault:
        raise ValueError(f"is not a usable URL: {fault}") from None
    return source


def _a_sha256(digest: str) -> str:
    if digest and not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise ValueError("must be 64 hexadecimal digits")
    return digest.lower()


def _an_encoding(name: str) -> str:
    """The name of an encoding of file names, or "" to find it out."""
    if name in ("", "auto"):
        return ""
    try:
        is_fit = "a/\\b".encode(name) == b"a/\\b"  # else slashes could not be told in names
    except (LookupError, ValueError, AttributeError, TypeError):
        is_fit = False
    if not is_fit:
        raise ValueError("must be auto, or an encoding of Python's that holds ASCII, as cp932, gbk or cp866")
    return name.lower()


class ExtractSettings(DataSettings, ProcessSettings, StoreSettings):
    """Where the dataset comes from, and what is refused."""

    source: Annotated[str, AfterValidator(_known_source)] = Field(
        FOOD11_URL, alias="LARDER_SOURCE",
        description="the dataset: an http(s) or s3 URL or a path of a zip or tar archive (tar.gz, .bz2, .xz, .zst), "
        "a folder, or `sample`, a generated stand-in that needs no network",
    )  # fmt: skip
    source_sha256: Annotated[str, AfterValidator(_a_sha256)] = Field(
        "", alias="LARDER_SOURCE_SHA256", description="the archive's sha256; it is refused when it has another",
        json_schema_extra={"unit": "64 hex digits"},
    )  # fmt: skip
    dataset: DatasetName = Field(
        DEFAULT, alias="LARDER_DATASET", min_length=1,
        description=f"{DATASET}; later stages take the one on the volume. Manifests call the generated one `sample`",
    )  # fmt: skip
    sample_images: int = Field(
        4000, alias="LARDER_SAMPLE_IMAGES", ge=FEWEST_IMAGES, le=10_000_000,
        description="number of images that `sample` generates; 16643 is Food-11's size",
        json_schema_extra={"unit": "images"},
    )  # fmt: skip
    seed: int = Field(
        0, alias="LARDER_SEED", ge=0, lt=1 << 63, description="seed of everything random; the same seed, the same bytes"
    )
    max_unpacked: ByteSize = Field(
        ByteSize(500 * 10**9), alias="LARDER_MAX_UNPACKED",
        description="a source that unpacks to more than this is refused", json_schema_extra={"unit": "bytes, or 20GB"},
    )  # fmt: skip
    max_files: int = Field(
        10_000_000, alias="LARDER_MAX_FILES", ge=1,
        description="a source with more files than this is refused", json_schema_extra={"unit": "files"},
    )  # fmt: skip

    zip_encoding: Annotated[str, AfterValidator(_an_encoding)] = Field(
        "", alias="LARDER_ZIP_ENCODING",
        description="the encoding of a zip's names that don't state theirs, as cp932 for Japanese or gbk for Chinese "
        "Windows; by default UTF-8 where a name is valid in it, else cp437",
    )  # fmt: skip
    inner_archives: bool = Field(
        True, alias="LARDER_INNER_ARCHIVES",
        description="unpack archives that lie in the archive, one level deep, each into a folder of its name",
    )  # fmt: skip
    follow_links: bool = Field(
        True, alias="LARDER_FOLLOW_LINKS",
        description="follow links in a local folder that lead out of it, as caches have them; false refuses them",
    )  # fmt: skip

    @model_validator(mode="after")
    def _digest_of_an_archive(self) -> Self:
        if self.source_sha256 and self.source == sample.NAME:
            raise ValueError("LARDER_SOURCE_SHA256 is of an archive, and LARDER_SOURCE=sample is none")
        return self

    @model_validator(mode="after")
    def _name_of_what_is_fetched(self) -> Self:
        if self.dataset != DEFAULT and "source" not in self.model_fields_set:
            raise ValueError(
                f"LARDER_DATASET={self.dataset!r}, and LARDER_SOURCE is not set: by default, {DEFAULT} would be fetched"
            )
        return self

    @property
    def is_remote(self) -> bool:
        """Whether the source must be downloaded."""
        return self.source.startswith(("http://", "https://", "s3://"))

    @property
    def local_path(self) -> Path:
        """The source as a path, for those that aren't remote."""
        return Path(os.path.expanduser(self.source))  # leaves a user that doesn't exist as it is
