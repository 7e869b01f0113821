"""The packs of a split in a bucket: tar shards, or chunks."""

from __future__ import annotations

from larder.bucket import Folder
from larder.contract import Artifact, IndexEntry, Manifest
from larder.errors import InputError
from larder.progress import Reporter
from services.bench.inputs import bucket_of, check_manifest
from services.bench.objects import read_index
from services.bench.settings import BenchSettings


def find_packs(
    settings: BenchSettings, name: str, artifact: Artifact, made_by: str, reporter: Reporter
) -> tuple[Folder, Manifest, list[IndexEntry]]:
    """The folder `name` of the bucket, its manifest, and the files of the split, each of which is there.

    Raises ConfigurationError without a bucket or a split or when the store refuses, InputError when the objects aren't
    what the manifest says, ServiceError when the store doesn't answer.
    """
    bucket_of(settings)
    folder = Folder(settings, name)
    manifest = check_manifest(folder.find_manifest(), artifact, settings, folder.uri, made_by)
    packs = [entry for entry in read_index(folder, manifest, made_by) if entry.path.startswith(f"{settings.split}/")]
    with reporter.task(f"listing {settings.split}", len(packs), "files") as task:
        there = {}
        for item in folder.list(settings.split):
            there[item.path] = item.bytes
            task.advance()
    for pack in packs:
        if there.get(pack.path) != pack.bytes:
            raise InputError(
                f"{folder.uri}/{pack.path} is missing or has another length than its manifest says",
                next_step=f"run `{made_by}`, which puts it back",
            )
    return folder, manifest, packs
