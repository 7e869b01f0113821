"""Determine which artifacts are out of date: their input's manifest has changed since.

raw → tree → shards, chunks, objects in the store
           shards, chunks → their copies in the store
"""

from __future__ import annotations

from typing import NamedTuple

from larder.cli.inventory import ArtifactSummary, Contents

UPDATE_COMMANDS = {
    "raw": "etl-local",
    "tree": "etl-local",
    "objects": "etl-load",
    "webdataset": "etl-wds",
    "litdata": "etl-lit",
}
"""Command that creates each kind of artifact."""


class Staleness(NamedTuple):
    """State of an artifact relative to its input.

    Attributes:
        text: Description; empty if the artifact is up to date.
        command: The command that updates it; empty if none is needed.
    """

    text: str = ""
    command: str = ""


CURRENT = Staleness()


def check_local(artifact: ArtifactSummary, data: Contents) -> Staleness:
    """Return the state of an artifact on a volume.

    Args:
        artifact: The artifact.
        data: The data volume, with the raw data and the tree.
    """
    if not artifact.kind:
        return Staleness("its manifest can't be read")
    if artifact.kind == "raw" or not artifact.made_from:
        return CURRENT
    parent = "raw" if artifact.kind == "tree" else "tree"
    return _compare_with_input(artifact, _find_artifact(data, parent, artifact.dataset), parent)


def _compare_with_input(artifact: ArtifactSummary, source: ArtifactSummary | None, kind: str) -> Staleness:
    if source is None:
        return Staleness(f"unknown whether it is up to date: the {kind} data it was made from are not here")
    if source.digest == artifact.made_from:
        return CURRENT
    return Staleness(f"OUT OF DATE: the {kind} data have changed since", UPDATE_COMMANDS.get(artifact.kind, ""))


def _find_artifact(contents: Contents, kind: str, dataset: str) -> ArtifactSummary | None:
    artifacts = [artifact for artifact in contents.of_kind(kind) if artifact.dataset == dataset]
    return artifacts[0] if artifacts else None


def check_stored(artifact: ArtifactSummary, data: Contents, packs: Contents) -> Staleness:
    """Return the state of an artifact in the store.

    Args:
        artifact: The artifact.
        data: The data volume.
        packs: Content of the volumes of shards and chunks.
    """
    state = check_local(artifact, data)
    local = _find_artifact(packs, artifact.kind, artifact.dataset)
    if state.command or local is None:
        return state
    if local.made_from != artifact.made_from or not _same_packing(local, artifact):
        return Staleness("OUT OF DATE: the volume holds another packing", UPDATE_COMMANDS.get(artifact.kind, ""))
    return state


def _same_packing(local: ArtifactSummary, stored: ArtifactSummary) -> bool:
    """Return whether two packings are equal. A manifest in a store has more settings, on which ETags depend."""
    settings = all(stored.settings.get(name) == value for name, value in local.settings.items())
    return settings and (local.files, local.bytes) == (stored.files, stored.bytes)


def check_record(arm: str, digest: str, local: Contents, store: Contents | None) -> Staleness:
    """Return whether a record measured the current data.

    Args:
        arm: The arm that was measured.
        digest: Digest of its data's manifest.
        local: All volumes, `demo`'s included.
        store: Content of the store; None if unknown.
    """
    if arm == "imagefolder_local" and not local.artifacts and not local.fault:
        return Staleness("unknown whether it is up to date: its data are not here")
    contents = [local] if arm == "imagefolder_local" else [local, store]
    if any(artifact.digest == digest for each in contents if each is not None for artifact in each.artifacts):
        return CURRENT
    if None in contents or any(each.fault for each in contents if each is not None):
        return Staleness("unknown whether it is up to date")
    return Staleness("OUT OF DATE: it measured other data", f"bench ARM={arm}")
