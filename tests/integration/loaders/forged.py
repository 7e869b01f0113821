"""Forge artifacts in a bucket, like an attacker who can write to it: after each change, all digests agree.

Run as a program, it reads forged artifacts with every reader of a store and prints what became of each, as JSON.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from tests import hostile

META = "_larder"
SHARD = "validation/shard-000000.tar"


class Forged:
    """A copy of an artifact at `s3://<bucket>/<source>`, at the key `place` of the same bucket."""

    def __init__(self, client: Any, bucket: str, source: str, place: str) -> None:
        self._client, self._bucket, self.place = client, bucket, place
        self._objects = {
            item["Key"].removeprefix(f"{source}/"): client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{source}/")
            for item in page["Contents"]
        }
        self._there: dict[str, bytes] = {}
        self.restore()

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self.place}"

    def restore(self) -> None:
        """Restore everything."""
        self._put_all(self._objects)

    def _put_all(self, objects: dict[str, bytes]) -> None:
        for path, content in objects.items():
            if self._there.get(path) != content:
                self._client.put_object(Bucket=self._bucket, Key=f"{self.place}/{path}", Body=content)
        for path in self._there.keys() - objects.keys():
            self._client.delete_object(Bucket=self._bucket, Key=f"{self.place}/{path}")
        self._there = dict(objects)

    def paths(self, end: str) -> list[str]:
        return sorted(path for path in self._objects if path.endswith(end) and not path.startswith(META))

    def manifest(self, attack: Callable[[bytes], bytes]) -> None:
        """Change the manifest."""
        name = f"{META}/manifest.json"
        self._put_all(self._objects | {name: attack(self._objects[name])})

    def file(self, path: str, attack: Callable[[bytes], bytes]) -> None:
        """Change a file, and update index and manifest."""
        content = attack(self._objects[path])
        facts = {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "etag": hashlib.md5(content, usedforsecurity=False).hexdigest(),
        }
        lines = [json.loads(line) for line in self._objects[self._index].splitlines()]
        lines = [line | facts if line["path"] == path else line for line in lines]
        self._put_all(self._with_index(b"".join(hostile.dumped(line) + b"\n" for line in lines)) | {path: content})

    def replace(self, path: str, attack: Callable[[bytes], bytes]) -> None:
        """Change a file, but not index and manifest."""
        self._put_all(self._objects | {path: attack(self._objects[path])})

    def line(self, number: int, attack: Callable[[bytes], bytes]) -> None:
        """Change a line of the index, and update the manifest."""
        lines = self._objects[self._index].splitlines()
        lines[number] = attack(lines[number])
        self._put_all(self._with_index(b"".join(line + b"\n" for line in lines)))

    @property
    def _index(self) -> str:
        return next(path for path in self._objects if path.startswith(f"{META}/index-"))

    def _with_index(self, index: bytes) -> dict[str, bytes]:
        digest = hashlib.sha256(index).hexdigest()
        manifest = json.loads(self._objects[f"{META}/manifest.json"])
        manifest["index"] = {"bytes": len(index), "sha256": digest}
        manifest["bytes"] = sum(json.loads(line)["bytes"] for line in index.splitlines()) if _is_sound(index) else 1
        text = json.dumps(manifest, sort_keys=True, indent=2, ensure_ascii=False) + "\n"
        objects = {path: content for path, content in self._objects.items() if path != self._index}
        return objects | {f"{META}/index-{digest}.jsonl": index, f"{META}/manifest.json": text.encode()}


def _is_sound(index: bytes) -> bool:
    try:
        return all(type(json.loads(line)["bytes"]) is int for line in index.splitlines())
    except Exception:
        return False


def read_all(
    artifacts: dict[str, Forged],
    attacks: Iterator[tuple[str, str, Callable[[], None]]],
    settings: dict[str, str],
    mark: Path,
    verify_each: int,
) -> list[dict[str, Any]]:
    """Return the result of each attack."""
    import larder.loaders.preprocessing  # noqa: F401  (now, so that its memory counts for no attack)
    from larder.cli.inventory import parse
    from larder.errors import LarderError
    from larder.loaders.bucket_data import open_artifact_prefix
    from larder.loaders.chunks import ChunkLoader
    from larder.loaders.objects import ObjectLoader
    from larder.loaders.shards import ShardLoader
    from larder.progress import NullReporter
    from services.jupyter import lab
    from services.verify.settings import VerifySettings
    from services.verify.verify import verify

    work = Path(tempfile.mkdtemp())
    volumes = {name: str(work) for name in ("LARDER_VOLUME_DIR", "LARDER_WDS_DIR", "LARDER_LIT_DIR")}

    def of_class(loader: Any) -> None:
        with loader:
            for images, labels in loader:
                assert len(images) == len(labels) and max(labels.tolist()) < len(loader.classes)

    def verify_all() -> None:
        bucket, prefix = next(iter(artifacts.values())).uri.removeprefix("s3://").split("/")[:2]
        given = settings | volumes | {"S3_BUCKET": bucket, "S3_PREFIX": prefix, "LARDER_WORKERS": "1"}
        given |= {"LARDER_VERIFY_SAMPLES": "all"}
        verify(VerifySettings.load("verify", [], given), NullReporter())

    options: dict[str, Any] = {"batch_size": 5, "workers": 0}
    readers: dict[str, dict[str, Callable[[], None]]] = {
        "objects": {"objects": lambda: of_class(ObjectLoader(artifacts["objects"].uri, "validation", **options))},
        "shards": {
            name: lambda name=name: of_class(  # type: ignore[misc]
                ShardLoader(artifacts["shards"].uri, "validation", library=name, **options)
            )
            for name in ("larder", "webdataset")
        }
        | {
            "notebook": lambda: print(
                lab.list_shard_members(open_artifact_prefix(artifacts["shards"].uri, None), SHARD, 1 << 20)
            )
        },
        "chunks": {
            "chunks": lambda: of_class(
                ChunkLoader(artifacts["chunks"].uri, "validation", cache_dir=work / "cache", **options)
            ),
            "notebook": lambda: print(lab.read_chunk_index(open_artifact_prefix(artifacts["chunks"].uri, None))),
        },
    }
    ended: list[dict[str, Any]] = []
    for number, (kind, attack, do) in enumerate(attacks):
        do()
        also = [("verify", verify_all)] if number % verify_each == 0 or "says so" in attack else []
        for name, read in [*readers[kind].items(), *also]:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                with redirect_stdout(sys.stderr):
                    read()
                result = "read"
            except LarderError as error:
                result = f"{type(error).__name__}: {error.what}"
            except BaseException as error:
                result = f"NOT OURS: {error!r}"
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
            ended.append(
                {"reader": name, "attack": f"{kind}: {attack}", "result": result, "ran": mark.exists(), "MiB": grown}
            )
            mark.unlink(missing_ok=True)
        artifacts[kind].restore()
    assert parse("x", b"").kind == ""
    return ended


def main() -> None:
    import os

    import boto3

    mark, uris, everything = Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3] == "all"
    client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT_URL"])
    artifacts = {}
    for kind, uri in uris.items():
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        artifacts[kind] = Forged(client, bucket, key, f"forged/{key.rpartition('/')[2]}")
    settings = {name: os.environ[name] for name in ("S3_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}

    def some(table: dict[str, Any], step: int, least: int = 1) -> Iterator[tuple[str, Any]]:
        return iter(list(table.items())[:: least if everything else step])

    def attacks() -> Iterator[tuple[str, str, Callable[[], None]]]:
        chunks, shards = artifacts["chunks"], artifacts["shards"]
        [index], [chunk] = chunks.paths("validation/index.json"), chunks.paths("validation/chunk-0-0.bin")
        listed = json.loads(chunks._objects[index])["chunks"][0]["chunk_size"]
        [shard] = shards.paths(SHARD)

        def pickled() -> None:
            """Write an index that says pickle, and a chunk of pickles of the same length."""
            corrupt = hostile.chunks(mark, listed)["pickles"]
            chunks.file(chunk, corrupt)
            before, chunks._objects = chunks._objects, chunks._there
            chunks.file(index, hostile.CHUNK_INDEXES["pickle"])
            chunks._objects = before

        yield "chunks", "nothing", chunks.restore
        yield "shards", "nothing", shards.restore
        yield "objects", "nothing", artifacts["objects"].restore
        yield "chunks", "pickles and an index that says so", pickled
        for name, attack in some(hostile.CHUNK_INDEXES, 6):
            yield "chunks", f"index, {name}", lambda attack=attack: chunks.file(index, attack)  # type: ignore[misc]
        for name, attack in some(hostile.chunks(mark, listed), 3):
            yield "chunks", f"chunk, {name}", lambda attack=attack: chunks.file(chunk, attack)  # type: ignore[misc]
        for name, attack in some(hostile.shards(mark), 6):
            yield "shards", f"shard, {name}", lambda attack=attack: shards.file(shard, attack)  # type: ignore[misc]
        # Unit tests feed all of the next two tables to the parser that all readers share.
        for number, (name, attack) in enumerate(some(hostile.MANIFESTS, 6, 3)):
            kind = list(artifacts)[number % 3]
            place = artifacts[kind]
            yield kind, f"manifest, {name}", lambda place=place, attack=attack: place.manifest(attack)  # type: ignore[misc]
        for number, (name, attack) in enumerate(some(hostile.LINES | hostile.LABELS, 6, 3)):
            kind = "objects" if "class" in name else list(artifacts)[number % 3]
            place = artifacts[kind]
            yield kind, f"line, {name}", lambda place=place, attack=attack: place.line(-1, attack)  # type: ignore[misc]

    print(json.dumps(read_all(artifacts, attacks(), settings, mark, 9 if everything else 3)))


if __name__ == "__main__":
    main()
