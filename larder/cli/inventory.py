"""List finished artifacts by their manifests: on volumes, and in the store's bucket.

    python -m larder.cli.inventory FOLDER...          list the artifacts in these volumes
    python -m larder.cli.inventory --store NAME...    list the artifacts in the bucket below these prefixes

Both print one JSON document. Only manifests are read, so that the time doesn't depend on the number of files. It runs
in a stage's container or in `.venv/`. The first form needs only the standard library, and the CLI also calls it
directly.
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
"""Maximum length of a manifest, as in larder.contract."""
WORK = ".larder"
_STORE_SECONDS = 3.0


class ArtifactSummary(NamedTuple):
    """A finished artifact.

    Attributes:
        name: Its folder in the volume, or its prefix in the bucket.
        kind: raw, tree, objects, webdataset or litdata; empty if the manifest can't be read.
        dataset: Name of the dataset.
        files: Number of files.
        bytes: Total length of the files.
        samples: Number of samples over all splits.
        digest: sha256 of the manifest, which later artifacts name as their input.
        made_from: Digest of the input's manifest; empty if there is none.
        source: Kind of the input: archive, folder, sample and so on; empty if unknown.
        settings: Settings that determined the content.
        finished: Time when the manifest was written, in seconds since 1970; 0 if unknown.
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
    source: str = ""


class Contents(NamedTuple):
    """Content of a volume or a bucket.

    Attributes:
        artifacts: Finished artifacts, by name.
        unfinished: Names of artifacts that a run has started but not finished.
        fault: Why it can't be inspected; empty if it can.
    """

    artifacts: tuple[ArtifactSummary, ...] = ()
    unfinished: tuple[str, ...] = ()
    fault: str = ""

    def of_kind(self, kind: str) -> list[ArtifactSummary]:
        """Return the artifacts of a kind."""
        return [artifact for artifact in self.artifacts if artifact.kind == kind]


def find_generated(contents: Iterable[Contents]) -> set[str]:
    """Return the digests of the generated sample data, and of what was made from it."""
    artifacts = [artifact for each in contents for artifact in each.artifacts]
    digests: set[str] = set()
    new = {artifact.digest for artifact in artifacts if artifact.source == "sample"}
    while new:
        digests |= new
        new = {artifact.digest for artifact in artifacts if artifact.made_from in digests} - digests
    return digests


def read_volume(folder: Path) -> Contents:
    """Return the content of a volume."""
    try:
        names = sorted(item.name for item in os.scandir(folder) if item.is_dir(follow_symlinks=False))
        unfinished = _unfinished(folder / WORK)
    except OSError as error:
        return Contents(fault=error.strerror or str(error))
    artifacts = (_artifact(folder, name) for name in names if name != WORK)
    return Contents(tuple(artifact for artifact in artifacts if artifact is not None), unfinished)


def _unfinished(work: Path) -> tuple[str, ...]:
    if not work.is_dir():
        return ()
    return tuple(
        sorted(
            item.name for item in os.scandir(work) if item.is_dir(follow_symlinks=False) and any(os.scandir(item.path))
        )
    )


def _artifact(folder: Path, name: str) -> ArtifactSummary | None:
    path = folder / name / MANIFEST
    try:
        with path.open("rb") as file:
            text, finished = file.read(MANIFEST_BYTES + 1), path.stat().st_mtime
    except OSError:
        return None
    return parse(name, text, finished)


def parse(name: str, text: bytes, finished: float = 0.0) -> ArtifactSummary:
    """Return the artifact that a manifest describes; one without a kind if it can't be read."""
    try:
        manifest = json.loads(text) if len(text) <= MANIFEST_BYTES else {}
        return ArtifactSummary(
            name,
            _text(manifest["artifact"]),
            _text(manifest["dataset"]),
            _count(manifest["files"]),
            _count(manifest["bytes"]),
            sum(_count(split["samples"]) for split in manifest["splits"].values()),
            hashlib.sha256(text).hexdigest(),
            _made_from(manifest["input"]),
            {_text(key): value for key, value in manifest["settings"].items() if isinstance(value, (str, int))},
            finished,
            _text(manifest["input"].get("kind", "")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ArtifactSummary(name, finished=finished)


def _made_from(made_from: dict[str, Any]) -> str:
    """Return the digest of the input; empty for an index in a store, which isn't inspected."""
    return "" if made_from.get("kind") == "index" else _text(made_from.get("manifest", ""))


def _count(value: Any) -> int:
    """Return a number of files, samples or bytes; raise ValueError if it isn't valid."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("no count")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def read_bucket(names: Iterable[str]) -> Contents:
    """Return the content of the bucket in the settings. Needs boto3, so it runs with a stage's packages."""
    from botocore.exceptions import ClientError

    from larder.errors import LarderError
    from larder.s3_faults import ABSENT_CODES, S3_ERRORS, code_of, explain_s3_error
    from larder.store import BucketSettings, make_client

    artifacts = []
    try:
        settings = BucketSettings.load("load", [], os.environ)
        store = make_client(settings, timeout_seconds=_STORE_SECONDS)
        for name in names:
            key = "/".join(part for part in (settings.prefix, name, MANIFEST) if part)
            try:
                text = store.get_object(Bucket=settings.bucket, Key=key)["Body"].read(MANIFEST_BYTES + 1)
            except ClientError as fault:
                if code_of(fault) not in ABSENT_CODES:
                    return Contents(fault=explain_s3_error(fault, "the store", settings.s3_endpoint_url).what)
                continue
            artifacts.append(parse(name, text))
    except LarderError as error:
        return Contents(fault=error.what.splitlines()[-1].strip(" -"))
    except S3_ERRORS as error:
        return Contents(fault=f"the store doesn't answer ({type(error).__name__})")
    return Contents(tuple(artifacts))


def as_json(inventory: dict[str, Contents]) -> str:
    """Return an inventory, by location, as the JSON document that `from_json` reads."""
    return json.dumps(
        {
            location: {**contents._asdict(), "artifacts": [artifact._asdict() for artifact in contents.artifacts]}
            for location, contents in inventory.items()
        }
    )


def from_json(text: str) -> dict[str, Contents]:
    """Return the inventory in a JSON document, by location. Raise ValueError if this version didn't write it."""
    try:
        return {
            location: Contents(
                tuple(ArtifactSummary(**artifact) for artifact in fields["artifacts"]),
                tuple(fields["unfinished"]),
                fields["fault"],
            )
            for location, fields in json.loads(text).items()
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no inventory: {error}") from None


def main(argv: Sequence[str]) -> int:
    """Print the content of folders, or of the store."""
    if argv[:1] == ["--store"]:
        print(as_json({"store": read_bucket(argv[1:])}))
    else:
        print(as_json({folder: read_volume(Path(folder)) for folder in argv}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
