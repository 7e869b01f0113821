"""Lists finished artifacts by their manifests: on volumes, and in the store's bucket.

    python -m larder.cli.inventory FOLDER...          what lies in these volumes
    python -m larder.cli.inventory --store NAME...    what the bucket holds below these prefixes

prints one JSON document. Only manifests are read, so that it takes no longer for a million files. It runs in a stage's
container or in `.venv/`; the first form needs the standard library alone, and the front door calls it directly, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

MANIFEST = "_larder/manifest.json"
MANIFEST_BYTES = 32 << 20
"""The most that a manifest may have, as in larder.contract."""
WORK = ".larder"
_STORE_SECONDS = 3.0


class Artifact(NamedTuple):
    """A finished artifact.

    Attributes:
        name: Its folder in the volume, or its prefix in the bucket.
        kind: raw, tree, objects, webdataset or litdata; empty for a manifest that can't be read.
        dataset: The data set's name.
        files: Number of files.
        bytes: Their length.
        samples: Number of samples over all splits.
        digest: sha256 of the manifest, which later artifacts name as their input.
        made_from: The digest of the manifest that it was made from; empty where that has none.
        settings: The settings that shaped it.
        finished: When its manifest was written, in seconds since 1970; 0 where nothing tells.
    """

    name: str
    kind: str = ""
    dataset: str = ""
    files: int = 0
    bytes: int = 0
    samples: int = 0
    digest: str = ""
    made_from: str = ""
    settings: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it
    finished: float = 0.0


class Holding(NamedTuple):
    """What a volume or a bucket holds.

    Attributes:
        artifacts: Finished artifacts, by name.
        unfinished: Names of artifacts that a run has begun and not finished.
        fault: Why it can't be looked into; empty when it can.
    """

    artifacts: tuple[Artifact, ...] = ()
    unfinished: tuple[str, ...] = ()
    fault: str = ""

    def of_kind(self, kind: str) -> list[Artifact]:
        """Return the artifacts of a kind."""
        return [artifact for artifact in self.artifacts if artifact.kind == kind]


def look(folder: Path) -> Holding:
    """Return what lies in a volume."""
    try:
        names = sorted(item.name for item in os.scandir(folder) if item.is_dir(follow_symlinks=False))
        under_way = _under_way(folder / WORK)
    except OSError as error:
        return Holding(fault=error.strerror or str(error))
    found = (_artifact(folder, name) for name in names if name != WORK)
    return Holding(tuple(artifact for artifact in found if artifact is not None), under_way)


def _under_way(work: Path) -> tuple[str, ...]:
    if not work.is_dir():
        return ()
    return tuple(sorted(item.name for item in os.scandir(work)
                        if item.is_dir(follow_symlinks=False) and any(os.scandir(item.path))))  # fmt: skip


def _artifact(folder: Path, name: str) -> Artifact | None:
    path = folder / name / MANIFEST
    try:
        with path.open("rb") as file:
            text, finished = file.read(MANIFEST_BYTES + 1), path.stat().st_mtime
    except OSError:
        return None
    return parse(name, text, finished)


def parse(name: str, text: bytes, finished: float = 0.0) -> Artifact:
    """Return the artifact that a manifest describes; one without a kind where it can't be read."""
    try:
        manifest = json.loads(text) if len(text) <= MANIFEST_BYTES else {}
        return Artifact(
            name, _text(manifest["artifact"]), _text(manifest["dataset"]), _count(manifest["files"]),
            _count(manifest["bytes"]), sum(_count(split["samples"]) for split in manifest["splits"].values()),
            hashlib.sha256(text).hexdigest(), _made_from(manifest["input"]),
            {_text(key): value for key, value in manifest["settings"].items() if isinstance(value, (str, int))},
            finished,
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Artifact(name, finished=finished)


def _made_from(made_from: dict[str, Any]) -> str:
    """Return the digest of what it was made from; empty where that is an index in a store, which nobody looks into."""
    return "" if made_from.get("kind") == "index" else _text(made_from.get("manifest", ""))


def _count(value: Any) -> int:
    """Return a number of files, samples or bytes; raises ValueError for what is none."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("no count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def stored(names: Iterable[str]) -> Holding:
    """Return what the bucket of the settings holds. Needs boto3: runs with a stage's packages alone."""
    from botocore.exceptions import ClientError

    from larder.errors import LarderError
    from larder.s3_faults import ABSENT, FAULTS, code_of, explain
    from larder.store import BucketSettings, client

    found = []
    try:
        settings = BucketSettings.load("load", [], os.environ)
        store = client(settings, timeout_seconds=_STORE_SECONDS)
        for name in names:
            key = "/".join(part for part in (settings.prefix, name, MANIFEST) if part)
            try:
                text = store.get_object(Bucket=settings.bucket, Key=key)["Body"].read(MANIFEST_BYTES + 1)
            except ClientError as fault:
                if code_of(fault) not in ABSENT:
                    return Holding(fault=explain(fault, "the store", settings.s3_endpoint_url).what)
                continue
            found.append(parse(name, text))
    except LarderError as error:
        return Holding(fault=error.what.splitlines()[-1].strip(" -"))
    except FAULTS as error:
        return Holding(fault=f"the store doesn't answer ({type(error).__name__})")
    return Holding(tuple(found))


def as_json(holdings: dict[str, Holding]) -> str:
    """Return holdings as the JSON document that `from_json` reads."""
    return json.dumps({
        place: {**holding._asdict(), "artifacts": [artifact._asdict() for artifact in holding.artifacts]}
        for place, holding in holdings.items()
    })  # fmt: skip


def from_json(text: str) -> dict[str, Holding]:
    """Return the holdings in a JSON document, by place. Raises ValueError when it isn't one of this version's."""
    try:
        return {
            place: Holding(
                tuple(Artifact(**artifact) for artifact in fields["artifacts"]), tuple(fields["unfinished"]),
                fields["fault"],
            )
            for place, fields in json.loads(text).items()
        }  # fmt: skip
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no inventory: {error}") from None


def main(argv: Sequence[str]) -> int:
    """Print what lies in folders, or in the store."""
    if argv[:1] == ["--store"]:
        print(as_json({"store": stored(argv[1:])}))
    else:
        print(as_json({folder: look(Path(folder)) for folder in argv}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
