"""The settings of the verify stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, Field

from larder.settings import WorkerSettings
from larder.store import BucketSettings
from larder.volume import CHUNKS, SHARDS
from services.verify.links import LINKS, Link
from services.verify.places import BucketPlace, Place, VolumePlace

_NAMES = ", ".join(link.name for link in LINKS)


def _known_links(names: str) -> str:
    unknown = sorted(set(_split(names)) - {link.name for link in LINKS})
    if unknown:
        raise ValueError(f"there is no link {unknown[0]!r}; must be some of {_NAMES}, with commas between them")
    return names


def _split(names: str) -> tuple[str, ...]:
    return tuple(name for part in names.split(",") if (name := part.strip()))


class VerifySettings(WorkerSettings, BucketSettings):
    """Where everything lies, and how much of it is looked at."""

    sample: int = Field(
        1000, alias="LARDER_VERIFY_SAMPLE", ge=0,
        description="how many samples are followed, chosen by LARDER_SEED; 0 reads everything. All indexes are compared "
        "in any case", json_schema_extra={"unit": "samples"},
    )  # fmt: skip
    seed: int = Field(
        0, alias="LARDER_SEED", ge=0, lt=1 << 63, description="seed of the choice; the same seed, the same samples"
    )
    links: Annotated[str, AfterValidator(_known_links)] = Field(
        "", alias="LARDER_VERIFY_LINKS",
        description=f"the links that must be there and are looked at, with commas between them: {_NAMES}; empty is all "
        "whose data are there",
    )  # fmt: skip
    source: str = Field(
        "", alias="LARDER_SOURCE", description="the archive that the data set comes from: hashed, where it is a file here"
    )
    source_sha256: str = Field(
        "", alias="LARDER_SOURCE_SHA256", pattern=r"^([0-9a-fA-F]{64})?$",
        description="the archive's sha256, which must be the one that raw's manifest names",
        json_schema_extra={"unit": "64 hex digits"},
    )  # fmt: skip
    volume: Path = Field(
        Path("/mnt"), alias="LARDER_VOLUME_DIR",
        description="where the data volume is mounted; compose and make set it",
    )  # fmt: skip
    wds_dir: Path | None = Field(
        None, alias="LARDER_WDS_DIR",
        description="where the volume with the shards is mounted; empty is LARDER_VOLUME_DIR",
    )  # fmt: skip
    lit_dir: Path | None = Field(
        None, alias="LARDER_LIT_DIR",
        description="where the volume with the chunks is mounted; empty is LARDER_VOLUME_DIR",
    )  # fmt: skip
    bucket: str = Field(
        "", validation_alias=AliasChoices("S3_BUCKET", "RCLONE_CONTAINER"), pattern=r"^[A-Za-z0-9._-]{0,255}$",
        description="the bucket; RCLONE_CONTAINER is another name for it",
    )  # fmt: skip
    """Empty where no store is to be looked at."""

    @property
    def required(self) -> tuple[str, ...]:
        """The names of the links that were asked for."""
        return _split(self.links)

    @property
    def volumes(self) -> list[Path]:
        """The volumes, each once."""
        return list(dict.fromkeys([self.volume, self._volume_of(SHARDS), self._volume_of(CHUNKS)]))

    def place(self, link: Link) -> Place | None:
        """Where the data of a link lie, or None when they would in a store and none is set."""
        if not link.in_store:
            return VolumePlace(str(self._volume_of(link.folder) / link.folder))
        return BucketPlace(self, link.folder) if self.bucket else None

    def _volume_of(self, folder: str) -> Path:
        return {SHARDS: self.wds_dir, CHUNKS: self.lit_dir}.get(folder) or self.volume
