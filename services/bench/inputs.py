"""What an arm's data must be, wherever they lie."""

from __future__ import annotations

from larder.contract import META, Artifact, Manifest
from larder.errors import TREE_ANEW, ConfigurationError, InputError
from services.bench.settings import BenchSettings


def check_manifest(
    manifest: Manifest | None, artifact: Artifact, settings: BenchSettings, where: str, made_by: str
) -> Manifest:
    """The manifest found at `where`, which must be finished data of a kind and have the split.

    Raises InputError, or ConfigurationError when there is no such split.
    """
    if manifest is None:
        raise InputError(f"{where} holds no finished data: no {META}/manifest.json", next_step=f"run `{made_by}`")
    if manifest.artifact != artifact:
        raise InputError(
            f"{where} holds {manifest.artifact!r} data; {settings.arm} reads {artifact!r}",
            next_step=f"let the settings name what `{made_by}` made: FOOD11_DATA_DIR, or S3_BUCKET and S3_PREFIX",
        )
    if settings.split not in manifest.splits:
        raise ConfigurationError(
            f"FOOD11_SPLIT={settings.split!r}: {where} has no such split",
            next_step=f"set it to one of: {', '.join(sorted(manifest.splits))}",
        )
    return manifest


def mend(made_by: str) -> str:
    """The next step for data that `made_by` made and that have gone wrong: it sees by itself what a listing shows."""
    if made_by == "make etl-local":
        return TREE_ANEW
    return f"run `{made_by}`, which sends again what differs; if it finds nothing, `{made_by} LARDER_FORCE=true`"


def bucket_of(settings: BenchSettings) -> str:
    """The bucket's name. Raises ConfigurationError without one: only some arms need it."""
    if not settings.bucket:
        raise ConfigurationError(
            f"S3_BUCKET is not set (nor --bucket), and {settings.arm} reads from a bucket",
            next_step="set S3_BUCKET, or RCLONE_CONTAINER, to the bucket that `make etl-load` loaded",
        )
    return settings.bucket
