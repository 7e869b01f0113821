"""The settings of the extract stage."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, NamedTuple, Self
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, ByteSize, Field, SecretStr, model_validator

from larder import sample
from larder.dataset import DEFAULT
from larder.settings import DATASET, DatasetName, DataSettings, ProcessSettings
from larder.source_names import split_sources
from larder.sources.archives import ArchiveFolders
from larder.store import StoreSettings, an_endpoint

FEWEST_IMAGES = len(sample.SPLITS) * sample.CLASSES
FOOD11_URL = "https://nyu.box.com/shared/static/m5kvcl25hfpljul3elhu6xz8y2w61op4.zip"


HUB = "hf://datasets/"

_REVISION = r"(?:refs(?:/|%2[Ff])(?:convert|pr)(?:/|%2[Ff])[^/@]+|[^/@]+)"  # the hub's own branches have slashes
_DATASET = re.compile(rf"{HUB}([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@({_REVISION}))?(?:/(.*))?", re.ASCII | re.DOTALL)


class HubAddress(NamedTuple):
    """A data set on the hub: `owner/name`, a branch, tag or commit, and a folder or file in it (both may be empty)."""

    repository: str
    revision: str
    path: str


def hub_address(source: str) -> HubAddress:
    """Take hf://datasets/OWNER/NAME[@REVISION][/PATH] apart. Raises ValueError when it is something else."""
    match = _DATASET.fullmatch(source)
    if match is None:
        raise ValueError("must be hf://datasets/OWNER/NAME, with @REVISION and /PATH where they are needed")
    return HubAddress(match[1], unquote(match[2] or ""), (match[3] or "").strip("/"))


def _known_source(source: str) -> str:
    several = split_sources(source)
    for one in several:
        _check_source(one)
        if len(several) > 1 and (one == sample.NAME or one.startswith("hf:")):
            raise ValueError(f"{one!r} can't be one of several sources: those are archives or Parquet files")
    return source


def _check_source(source: str) -> None:
    scheme, found, _ = source.partition("://")
    if found and scheme not in ("http", "https", "s3", "hf"):
        raise ValueError(
            f"{scheme}:// is no source; must be http(s)://, s3://bucket/key, hf://datasets/owner/name, a path, "
            "or sample"
        )
    if scheme == "hf" and found:
        hub_address(source)
    if scheme == "s3" and found and not re.fullmatch(r"[^/]+/.*", source.removeprefix("s3://"), re.DOTALL):
        raise ValueError("must name bucket and key: s3://bucket/path/archive.zip, or s3://bucket/folder/")
    try:
        if found:
            urlsplit(source)
    except ValueError as fault:
        raise ValueError(f"is not a usable URL: {fault}") from None


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
        description="the dataset: an http(s) or s3 URL or a path of a zip or tar archive (tar.gz, .bz2, .xz, .zst) or "
        "a Parquet file; several, one a line or as a JSON list, or by a pattern (`shards/*.tar`); a folder, "
        "s3://bucket/folder/, hf://datasets/OWNER/NAME[@REVISION][/PATH]; or `sample`, a generated stand-in that needs "
        "no network",
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
    max_download: ByteSize = Field(
        ByteSize(500 * 10**9), alias="LARDER_MAX_DOWNLOAD",
        description="an archive on a server that is larger than this is refused",
        json_schema_extra={"unit": "bytes, or 20GB"},
    )  # fmt: skip
    max_files: int = Field(
        10_000_000, alias="LARDER_MAX_FILES", ge=1,
        description="a source with more files than this is refused", json_schema_extra={"unit": "files"},
    )  # fmt: skip

    archive_folders: ArchiveFolders = Field(
        "set", alias="LARDER_ARCHIVE_FOLDERS",
        description="with several archives, below which folder the files of each go: set (its name without a shard's "
        "number: train-000.tar and train-001.tar into train/), archive (its name), none (all into one)",
    )  # fmt: skip
    image_column: str = Field(
        "", alias="LARDER_IMAGE_COLUMN", description="of Parquet files: the column of images; empty finds the only one"
    )
    label_column: str = Field(
        "", alias="LARDER_LABEL_COLUMN",
        description="of Parquet files, and of the recipe metadata's tables: the column of classes; empty finds the "
        "only one",
    )  # fmt: skip
    hf_token: SecretStr = Field(
        SecretStr(""), alias="HF_TOKEN",
        description="the token for private and gated data sets of the Hugging Face Hub; empty takes the one that "
        "`hf auth login` has left; never shown",
    )  # fmt: skip
    hf_endpoint: Annotated[str, AfterValidator(an_endpoint)] = Field(
        "", alias="HF_ENDPOINT", description="the address of another hub, or a mirror, than https://huggingface.co"
    )
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
        if not self.source_sha256:
            return self
        if self.source == sample.NAME:
            raise ValueError("LARDER_SOURCE_SHA256 is of an archive, and LARDER_SOURCE=sample is none")
        if len(self.sources) > 1 or self.source.startswith("hf:"):
            raise ValueError("LARDER_SOURCE_SHA256 is of one archive, and LARDER_SOURCE names something else")
        return self

    @model_validator(mode="after")
    def _name_of_what_is_fetched(self) -> Self:
        if self.dataset != DEFAULT and "source" not in self.model_fields_set:
            raise ValueError(
                f"LARDER_DATASET={self.dataset!r}, and LARDER_SOURCE is not set: by default, {DEFAULT} would be fetched"
            )
        return self

    @property
    def sources(self) -> list[str]:
        """Every source, where LARDER_SOURCE names several."""
        return split_sources(self.source)

    @property
    def is_remote(self) -> bool:
        """Whether the source must be downloaded."""
        return is_remote(self.source)

    @property
    def local_path(self) -> Path:
        """The source as a path, for those that aren't remote."""
        return local_path(self.source)


def is_remote(source: str) -> bool:
    """Whether a source must be downloaded."""
    return source.startswith(("http://", "https://", "s3://", "hf://"))


def local_path(source: str) -> Path:
    """A source that isn't remote as a path."""
    return Path(os.path.expanduser(source))  # leaves a user that doesn't exist as it is
