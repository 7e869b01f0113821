"""Identify a source and the settings that change the output, so that the next run sees a change."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from larder import sample
from larder.errors import ConfigurationError
from larder.sources import FolderSource, missing_source_error
from services.extract.open_sources import display_source, expand_sources, make_source_options
from services.extract.settings import ExtractSettings, is_remote, local_path


def identify_source(settings: ExtractSettings) -> dict[str, Any]:
    """Return what identifies the source without reading it; kept in run.json, so that the next run sees a change."""
    if settings.source == sample.NAME:
        numbers = {"images": settings.sample_images, "seed": settings.seed, "generator": sample.GENERATOR_VERSION}
        return {"source": sample.NAME, "dataset": sample.NAME, "state": numbers}
    sources = expand_sources(settings)
    state = _source_state(sources[0], settings) if len(sources) == 1 else {"sources": _digest_states(sources, settings)}
    name = display_source(sources[0]) + (f" and {len(sources) - 1} more" if len(sources) > 1 else "")
    state |= output_settings(settings) | _non_default_settings(
        settings, "zip_encoding", "inner_archives", "follow_links"
    )
    return {"source": name, "dataset": settings.dataset, "state": state}


def output_settings(settings: ExtractSettings) -> dict[str, str | int]:
    """Return the settings that change the output and differ from their defaults."""
    return {
        name: str(value)
        for name, value in _non_default_settings(settings, "archive_folders", "image_column", "label_column").items()
    }


def _non_default_settings(settings: ExtractSettings, *names: str) -> dict[str, Any]:
    """Return those of the named settings that differ from their defaults; manifests of older releases lack them."""
    fields = ExtractSettings.model_fields
    return {name: value for name in names if (value := getattr(settings, name)) != fields[name].default}


def _digest_states(sources: Sequence[str], settings: ExtractSettings) -> str:
    digest = hashlib.sha256()
    for source in sources:
        digest.update(
            json.dumps([display_source(source), _source_state(source, settings)], sort_keys=True).encode() + b"\n"
        )
    return digest.hexdigest()


def _source_state(source: str, settings: ExtractSettings) -> dict[str, Any]:
    """Return what detects a change of a local source, or identifies a remote one."""
    if is_remote(source):
        return {"address": hashlib.sha256(source.encode()).hexdigest(), "sha256": settings.source_sha256}
    path = local_path(source)
    if not path.exists():
        raise missing_source_error(str(path))
    if not path.is_dir():
        status = path.stat()
        return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "sha256": settings.source_sha256}
    if settings.source_sha256:
        raise ConfigurationError(
            f"LARDER_SOURCE_SHA256 is the digest of an archive, and {path} is a folder", next_step="leave it out"
        )
    if settings.volume.resolve().is_relative_to(path.resolve()):
        raise ConfigurationError(
            f"the volume {settings.volume} lies inside the source folder {path}",
            next_step="give the folder that holds the images alone as LARDER_SOURCE",
        )
    return {"folder": FolderSource(path, str(path), make_source_options(settings)).metadata_digest()}
