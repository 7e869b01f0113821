"""Says which artifacts are out of date: made from a manifest that has changed since.

raw → tree → shards, chunks, objects in the store
           shards, chunks → their copies in the store
"""

from __future__ import annotations

from typing import NamedTuple

from larder.cli.inventory import Artifact, Holding

COMMANDS = {"raw": "etl-local", "tree": "etl-local", "objects": "etl-load", "webdataset": "etl-wds",
            "litdata": "etl-lit"}  # fmt: skip
"""What makes each kind of artifact anew."""


class State(NamedTuple):
    """How an artifact stands to what it was made from.

    Attributes:
        text: The state in words; empty where nothing speaks against the artifact.
        command: What brings it up to date; empty when nothing has to.
    """

    text: str = ""
    command: str = ""


CURRENT = State()


def of_local(artifact: Artifact, data: Holding) -> State:
    """Return the state of an artifact on a volume.

    Args:
        artifact: The artifact.
        data: The data volume, with the raw data and the tree.
    """
    if not artifact.kind:
        return State("its manifest can't be read")
    if artifact.kind == "raw" or not artifact.made_from:
        return CURRENT
    parent = "raw" if artifact.kind == "tree" else "tree"
    return _against(artifact, _of_dataset(data, parent, artifact.dataset), parent)


def _against(artifact: Artifact, source: Artifact | None, kind: str) -> State:
    if source is None:
        return State(f"unknown whether it is up to date: the {kind} data it was made from are not here")
    if source.digest == artifact.made_from:
        return CURRENT
    return State(f"OUT OF DATE: the {kind} data have changed since", COMMANDS[artifact.kind])


def _of_dataset(holding: Holding, kind: str, dataset: str) -> Artifact | None:
    found = [artifact for artifact in holding.of_kind(kind) if artifact.dataset == dataset]
    return found[0] if found else None


def of_stored(artifact: Artifact, data: Holding, packs: Holding) -> State:
    """Return the state of an artifact in the store.

    Args:
        artifact: The artifact.
        data: The data volume.
        packs: What the volumes of shards and chunks hold.
    """
    state = of_local(artifact, data)
    local = _of_dataset(packs, artifact.kind, artifact.dataset)
    if state.command or local is None:
        return state
    if local.made_from != artifact.made_from or not _same_packing(local, artifact):
        return State("OUT OF DATE: the volume holds another packing", COMMANDS[artifact.kind])
    return state


def _same_packing(local: Artifact, stored: Artifact) -> bool:
    """Whether two packings are the same. A store's manifest has further settings, on which ETags depend."""
    settings = all(stored.settings.get(name) == value for name, value in local.settings.items())
    return settings and (local.files, local.bytes) == (stored.files, stored.bytes)


def of_record(arm: str, digest: str, local: Holding, store: Holding | None) -> State:
    """Return whether a record measured what is there now.

    Args:
        arm: The arm that was measured.
        digest: The digest of the manifest of its data.
        local: The data volume.
        store: What the store holds; None where that isn't known.
    """
    places = [local] if arm == "imagefolder_local" else [local, store]
    if any(artifact.digest == digest for place in places if place is not None for artifact in place.artifacts):
        return CURRENT
    if None in places or any(place.fault for place in places if place is not None):
        return State("unknown whether it is up to date")
    return State("OUT OF DATE: it measured other data", f"bench ARM={arm}")
