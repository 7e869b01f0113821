"""SIGKILL at any moment: complete data stay complete, and the next run finishes."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests.conftest import Proxy, Store, Until
from tests.integration.conftest import MakePicture, Stage
from tests.integration.load.conftest import InStore, Load, MakeFiles, MakeTree

pytestmark = pytest.mark.any_store

KILLS = 6
"""In each store, and 4 more over an earlier load: 20 in all."""


def digests(made: dict[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(data).hexdigest() for path, data in made.items()}


def kill_while_loading(stage: Stage, env: dict[str, str], between: Any, seconds: float) -> bool:
    """Start a load and kill it after `seconds`. Returns whether it was still running.

    When this returns, the store has answered all requests, so its content doesn't change any more.
    """
    process = stage.start("load", env=env | {"S3_ENDPOINT_URL": between.endpoint})
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    between.settle()
    assert process.returncode in (0, -signal.SIGKILL)
    return bool(process.returncode)


def test_a_first_load_killed_again_and_again(
    load: Load, tree: MakeTree, there: InStore, stage: Stage, store: Store, bucket: str, proxy: Proxy
) -> None:
    made, moments = tree(150), random.Random(7)
    env = store.env | {"S3_BUCKET": bucket}
    seconds = load("--prefix=undisturbed", env={"S3_ENDPOINT_URL": proxy.endpoint}).seconds
    rounds, kills, arrived = 0, 0, 0
    while rounds < KILLS or kills <= KILLS / 3:  # after a slow first run, many end before they are killed
        rounds += 1
        kills += kill_while_loading(stage, env, proxy, moments.uniform(0.2, seconds))
        whole_data = there.find_whole()
        assert whole_data in (None, digests(made)), "a manifest is there only when all it names is"
        now = len(there.data())
        assert now >= arrived, "what has arrived stays"
        arrived = now
        if whole_data:  # begin again
            for path in ("_larder/manifest.json", *there.data()):
                there.delete(path)
            arrived = 0
    assert load().code == 0
    assert there.require_whole() == digests(made)
    assert there.data() == made
    assert len([key for key in there.paths() if key.startswith("_larder/")]) == 4, "no litter"


@pytest.mark.exhaustive
def test_a_load_over_an_earlier_one_killed_again_and_again(
    load: Load,
    tree: MakeTree,
    files: MakeFiles,
    picture: MakePicture,
    there: InStore,
    stage: Stage,
    store: Store,
    bucket: str,
    proxy: Proxy,
) -> None:
    """Each round changes, adds and removes images. The old data stay whole until the new are in the store."""
    moments, env = random.Random(11), store.env | {"S3_BUCKET": bucket}
    whole = digests(tree(60))
    assert load().code == 0
    for number in range(1, 4 + 1):
        kept = dict(list(files(60 + number % 7).items())[number % 5 :])
        changed = {path: picture(1000 * number + at) for at, path in enumerate(list(kept)[number % 3 :: 4])}
        made = tree(kept | changed)
        kill_while_loading(stage, env, proxy, moments.uniform(0.3, 1.6))
        require_old_or_new(there, whole, digests(made))
        result = load("--delete-extra")
        assert result.code == 0, result.stderr
        assert there.data() == made
        whole = digests(made)
        assert there.require_whole() == whole


def require_old_or_new(there: InStore, old: dict[str, str], new: dict[str, str]) -> None:
    """Check that the manifest names the old or the new data, all there; without a manifest, all new data are there."""
    whole_data = there.find_whole()
    if whole_data is not None:
        assert whole_data in (old, new)
        return
    incoming = {path.split("/", 2)[2]: path for path in there.paths() if path.startswith("_larder/incoming-")}
    for path, digest in new.items():
        places = [place for place in (path, incoming.get(path)) if place in there.paths()]
        assert digest in {hashlib.sha256(there.read(place)).hexdigest() for place in places}, path


def holding_images(go: threading.Event) -> Callable[[str, str, int], str | None]:
    """Return a fault: requests for images wait, and never reach the store."""

    def hold(method: str, path: str, number: int) -> str | None:
        if not path.endswith(".jpg"):
            return None
        go.wait(60)
        return "reset-request"

    return hold


def test_rclone_ends_with_its_parent(
    tree: MakeTree, stage: Stage, store: Store, bucket: str, until: Until, proxy: Proxy
) -> None:
    tree(20)
    go = threading.Event()
    proxy.fault = holding_images(go)
    process = stage.start("load", env=store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": proxy.endpoint})
    until(lambda: proxy.count("PUT", ".jpg") > 0, "uploading has begun")
    children = psutil.Process(process.pid).children()
    words = [" ".join(child.cmdline()) for child in children]
    assert any("rclone" in line for line in words)
    assert not any(store.secret_key in line or store.access_key in line for line in words)
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not any(lives(child) for child in children), "rclone has ended")
    go.set()


def lives(process: psutil.Process) -> bool:
    """Return whether it runs. An ended process may stay a zombie, if process 1 doesn't reap it."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def test_interrupted_it_says_so(
    tree: MakeTree, stage: Stage, store: Store, bucket: str, until: Until, proxy: Proxy
) -> None:
    tree(20)
    go = threading.Event()
    proxy.fault = holding_images(go)
    process = stage.start("load", env=store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": proxy.endpoint})
    until(lambda: proxy.count("PUT", ".jpg") > 0, "uploading has begun")
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    go.set()
    assert process.returncode == 130
    assert "run the same command again" in stderr
