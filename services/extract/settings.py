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
from larder.sources.settings import SourceSettings
from larder.store import StoreSettings, validated_endpoint

MIN_IMAGES = len(sample.SPLITS) * sample.CLASSES
FOOD11_URL = "https://nyu.box.com/shared/static/m5kvcl25hfpljul3elhu6xz8y2w61op4.zip"
HUB = "hf://datasets/"

_REVISION = r"(?:refs(?:/|%2[Ff])(?:convert|pr)(?:/|%2[Ff])[^/@]+|[^/@]+)"  # the Hub's own branches have slashes
_DATASET = re.compile(rf"{HUB}([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@({_REVISION}))?(?:/(.*))?", re.ASCII | re.DOTALL)


class HubAddress(NamedTuple):
    """A dataset on the Hub: `owner/name`, a revision, and the path of a folder or file (both may be empty)."""

    repository: str
    revision: str
    path: str


def hub_address(source: str) -> HubAddress:
    """Parse hf://datasets/OWNER/NAME[@REVISION][/PATH]. Raises ValueError for anything else."""
    match = _DATASET.fullmatch(source)
    if match is None:
        raise ValueError("must be hf://datasets/OWNER/NAME, optionally with @REVISION and /PATH")
    return HubAddress(match[1], unquote(match[2] or ""), (match[3] or "").strip("/"))


def _validate_sources(source: str) -> str:
    sources = split_sources(source)
    for name in sources:
        _validate_source(name)
        if len(sources) > 1 and (name == sample.NAME or name.startswith("hf:")):
            raise ValueError(f"{name!r} can't be one of several sources: those are archives or Parquet files")
    return source


def _validate_source(source: str) -> None:
    scheme, separator, _ = source.partition("://")
    if separator and scheme not in ("http", "https", "s3", "hf"):
        raise ValueError(
            f"{scheme}:// is not a source; must be http(s)://, s3://bucket/key, hf://datasets/owner/name, a path, "
            "or sample"
        )
    if scheme == "hf" and separator:
        hub_address(source)
    if scheme == "s3" and separator and not re.fullmatch(r"[^/]+/.*", source.removeprefix("s3://"), re.DOTALL):
        raise ValueError("must name bucket and key: s3://bucket/path/archive.zip, or s3://bucket/folder/")
    try:
        if separator:
            urlsplit(source)
    except ValueError as fault:
        raise ValueError(f"is not a usable URL: {fault}") from None


def _validate_sha256(digest: str) -> str:
    if digest and not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise ValueError("must be 64 hexadecimal digits")
    return digest.lower()


def _validate_encoding(name: str) -> str:
    """Validate the name of an encoding. Return "" for detection."""
    if name in ("", "auto"):
        return ""
    try:
        keeps_ascii = "a/\\b".encode(name) == b"a/\\b"  # so that slashes in names can be recognized
    except (LookupError, ValueError, AttributeError, TypeError):
        keeps_ascii = False
    if not keeps_ascii:
        raise ValueError("must be auto, or one of Python's encodings that extend ASCII, such as cp932, gbk or cp866")
    return name.lower()


class ExtractSettings(SourceSettings, DataSettings, ProcessSettings, StoreSettings):
    """Where the dataset comes from, and its limits."""

    source: Annotated[str, AfterValidator(_validate_sources)] = Field(
        FOOD11_URL,
        alias="LARDER_SOURCE",
        description="the dataset: a zip or tar archive (tar.gz, .bz2, .xz, .zst) or a Parquet file, by path "
        "or by http(s) or s3 URL; several of them, one per line, as a JSON list or as a pattern "
        "(`shards/*.tar`); a folder; s3://bucket/folder/; "
        "hf://datasets/OWNER/NAME[@REVISION][/PATH]; or `sample`, a generated dataset that needs "
        "no network",
    )
    source_sha256: Annotated[str, AfterValidator(_validate_sha256)] = Field(
        "",
        alias="LARDER_SOURCE_SHA256",
        description="the archive's sha256; an archive with another digest is refused",
        json_schema_extra={"unit": "64 hex digits"},
    )
    dataset: DatasetName = Field(
        DEFAULT,
        alias="LARDER_DATASET",
        min_length=1,
        description=f"{DATASET}; later stages take the one on the volume. Manifests call the generated one `sample`",
    )
    sample_images: int = Field(
        4000,
        alias="LARDER_SAMPLE_IMAGES",
        ge=MIN_IMAGES,
        le=10_000_000,
        description="number of images that `sample` generates; 16643 is Food-11's size",
        json_schema_extra={"unit": "images"},
    )
    seed: int = Field(
        0,
        alias="LARDER_SEED",
        ge=0,
        lt=1 << 63,
        description="seed of everything random; the same seed gives the same bytes",
    )
    max_unpacked: ByteSize = Field(
        ByteSize(500 * 10**9),
        alias="LARDER_MAX_UNPACKED",
        description="maximum unpacked size of a source",
        json_schema_extra={"unit": "bytes, or 20GB"},
    )
    max_download: ByteSize = Field(
        ByteSize(500 * 10**9),
        alias="LARDER_MAX_DOWNLOAD",
        description="maximum size of a download",
        json_schema_extra={"unit": "bytes, or 20GB"},
    )

    hf_token: SecretStr = Field(
        SecretStr(""),
        alias="HF_TOKEN",
        description="the token for private and gated datasets of the Hugging Face Hub; empty takes the token "
        "that `hf auth login` has saved; never shown",
    )
    hf_endpoint: Annotated[str, AfterValidator(validated_endpoint)] = Field(
        "",
        alias="HF_ENDPOINT",
        description="the address of another hub, or of a mirror; empty means https://huggingface.co",
    )
    zip_encoding: Annotated[str, AfterValidator(_validate_encoding)] = Field(
        "",
        alias="LARDER_ZIP_ENCODING",
        description="the encoding of names in a zip that don't state theirs, such as cp932 (Japanese Windows) "
        "or gbk (Chinese Windows); by default UTF-8 if a name is valid UTF-8, else cp437",
    )
    inner_archives: bool = Field(
        True,
        alias="LARDER_INNER_ARCHIVES",
        description="unpack archives inside the archive, one level deep, each into a folder of its name",
    )
    follow_links: bool = Field(
        True,
        alias="LARDER_FOLLOW_LINKS",
        description="follow links that lead out of a local folder, as caches of datasets contain them; false "
        "refuses them",
    )

    @model_validator(mode="after")
    def _require_single_archive(self) -> Self:
        if not self.source_sha256:
            return self
        if self.source == sample.NAME:
            raise ValueError("LARDER_SOURCE_SHA256 belongs to an archive, and LARDER_SOURCE=sample has no archive")
        if len(self.sources) > 1 or self.source.startswith("hf:"):
            raise ValueError(
                "LARDER_SOURCE_SHA256 is the digest of one archive, and LARDER_SOURCE names something else"
            )
        return self

    @model_validator(mode="after")
    def _require_source_with_dataset(self) -> Self:
        if self.dataset != DEFAULT and "source" not in self.model_fields_set:
            raise ValueError(
                f"LARDER_DATASET={self.dataset!r}, and LARDER_SOURCE is not set: by default, {DEFAULT} would be fetched"
            )
        return self

    @property
    def is_remote(self) -> bool:
        """Return whether the source must be downloaded."""
        return is_remote(self.source)

    @property
    def local_path(self) -> Path:
        """Return a local source as a path."""
        return local_path(self.source)


def is_remote(source: str) -> bool:
    """Return whether a source must be downloaded."""
    return source.startswith(("http://", "https://", "s3://", "hf://"))


def local_path(source: str) -> Path:
    """Return a local source as a path, with `~` expanded."""
    return Path(os.path.expanduser(source))  # unlike Path.expanduser, keeps an unknown user
