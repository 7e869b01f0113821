"""Every command on the pages of the stages, run in a fresh checkout as a user would."""

from __future__ import annotations

import io
import re
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.containers.test_readme import SMALL, photo, write_zip
from tests.markdown import ROOT, blocks

if TYPE_CHECKING:
    import subprocess

    from tests.conftest import Store

Run = Callable[..., "subprocess.CompletedProcess[str]"]
PHOTOS, DIVIDED, UNDIVIDED = "photos.zip", "divided.zip", "undivided.zip"
SPLITS = {PHOTOS: ("train/", "val/"), DIVIDED: ("train/", "dev/", "holdout/"), UNDIVIDED: ("",)}


class Before(NamedTuple):
    """What the commands of a page need before they can run."""

    commands: Sequence[str] = ()
    """Commands that a reader of the page has run before."""
    sources: tuple[tuple[str, str], ...] = ()
    """LARDER_SOURCE of the commands that contain a text; the others have photos.zip."""
    each: tuple[tuple[str, str], ...] = ()
    """Commands to run just before the one that contains a text."""


TREE = Before(["make etl-local"])
BEFORE = {
    "extract": Before(),
    "index": Before(sources=(("compose", "s3://bucket/photos/"),)),
    "jupyter": Before(),
    "load": TREE,
    "mount": Before([*TREE.commands, "make etl-load"]),
    "optimize": TREE,
    "s3": Before(),
    "shard": Before([*TREE.commands, "make etl-load"]),
    "transform": Before(sources=(("LARDER_SPLITS", DIVIDED), ("LARDER_SPLIT=", UNDIVIDED))),
    "verify": Before(TREE.commands, each=(("shards/*.tar", "make etl-local LARDER_SOURCE='shards/*.tar'"),)),
}


def with_preparations(commands: Sequence[str], before: Before) -> Iterator[str]:
    yield from before.commands
    for command in commands:
        yield from (preparation for text, preparation in before.each if text in command)
        if "ray" not in command:  # test_readme.py runs them
            yield command


def commands_of(page: str) -> list[str]:
    """Return a page's commands, with those that start, stop and remove a store in the order in which they can run."""
    commands = [command for block in blocks(page, "sh") for command in block.commands]
    return sorted(commands, key=lambda command: ("s3-down" in command) + 2 * ("clean-s3" in command))


def test_other_pages_have_no_commands() -> None:
    pages = {page.parent.name for page in (ROOT / "services").glob("*/README.md") if commands_of(str(page))}
    assert pages == {*BEFORE}


@pytest.mark.exhaustive
@pytest.mark.parametrize("stage", BEFORE)
def test_a_page(
    run: Run,
    checkout: Path,
    own_project: dict[str, str],
    minio: dict[str, Any],
    minio_server: Store,
    shared_folder: Path,
    stage: str,
) -> None:
    bucket = f"pages-{uuid.uuid4().hex[:8]}"
    store = store_settings(minio, bucket)
    (checkout / ".env").write_text(SMALL + ("" if stage == "s3" else "".join(f"{k}={v}\n" for k, v in store.items())))
    minio_server.client.create_bucket(Bucket=bucket)
    write_sources(checkout)
    if stage == "index":
        write_objects(minio_server, bucket)
    mounts = shared_folder / bucket
    settings = own_project | {"RUNNER": "compose", "LARDER_MOUNT_DIR": str(mounts)}
    before = BEFORE[stage]
    try:
        for command in with_preparations(commands_of(f"services/{stage}/README.md"), before):
            source = next((name for text, name in before.sources if text in command), PHOTOS)
            words, source = (re.sub(r"s3://(bucket|larder)/", f"s3://{bucket}/", text) for text in (command, source))
            words = re.sub(r"^python ", f"{sys.executable} ", words)
            given = store if words.startswith("docker compose") else {}  # s3-up's store is known to larder alone
            run("bash", "-c", words, folder=checkout, check=True, **settings, **given, LARDER_SOURCE=source, YES="1")
        for example in blocks(f"services/{stage}/README.md", "python"):
            script = example.text.replace("s3://bucket/", f"s3://{bucket}/")
            given = {"AWS_ENDPOINT_URL": minio["published"], "HOME": str(checkout)} | store
            run(sys.executable, "-c", script, folder=checkout, check=True, **given)
    finally:
        run("make", "unmount", folder=checkout, **settings)


def store_settings(minio: dict[str, Any], bucket: str) -> dict[str, str]:
    keys = {"S3_ENDPOINT_URL": "published", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    return {"S3_BUCKET": bucket} | {name: minio[key] for name, key in keys.items()}


def write_sources(folder: Path) -> None:
    for name, splits in SPLITS.items():
        write_zip(folder / name, {f"{split}{key}": data for split in splits for key, data in classes(split).items()})
    (folder / "shards").mkdir()
    (folder / "shards" / "0.tar").write_bytes(shard())


def classes(split: str) -> dict[str, bytes]:
    """Return photos of two classes; none of two splits are the same."""
    return {f"{name}/{n}.jpg": photo(n + 10 * len(split)) for name in ("rice", "soup") for n in range(10)}


def shard() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in classes("").items():
            key = name.replace("/", "-").removesuffix(".jpg")
            for ending, content in (("jpg", data), ("cls", str(int("soup" in name)).encode())):
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def write_objects(server: Store, bucket: str) -> None:
    for split in SPLITS[PHOTOS]:
        for name, data in classes(split).items():
            server.client.put_object(Bucket=bucket, Key=f"photos/{split}{name}", Body=data)
    server.client.put_object(Bucket=bucket, Key="shards/photos.tar", Body=shard())
