"""load resumes after a stop at any step, with every way to compare objects."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

import pytest

from tests.conftest import Proxy, StartProxy, Store
from tests.integration.conftest import Stage
from tests.integration.load.conftest import InStore, Load, MakeTree

pytestmark = pytest.mark.any_store

Step = Callable[[str, str], bool]

# What a load that replaces objects asks of the store, in its order: method and path.
STEPS: dict[str, Step] = {
    "the first incoming object": lambda method, path: method == "PUT" and "incoming" in path,
    "the manifest is withdrawn": lambda method, path: method == "POST" and "delete" in path,
    "the first object is replaced": lambda method, path: method == "PUT" and path.endswith(".jpg"),
    "the index": lambda method, path: method == "PUT" and "/index-" in path,
    "the record": lambda method, path: method == "PUT" and path.endswith("run.json"),
    "the manifest": lambda method, path: method == "PUT" and path.endswith("manifest.json"),
}


@pytest.mark.one_in(6)
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step_of_a_replacement(
    load: Load,
    tree: MakeTree,
    there: InStore,
    stage: Stage,
    start_proxy: StartProxy,
    store: Store,
    bucket: str,
    step: str,
    late: bool,
) -> None:
    tree(20)
    assert load().code == 0
    old = there.require_whole()
    made = tree(20, first=1000)
    watched, reached, go = start_proxy(store), threading.Event(), threading.Event()
    replacing = list(STEPS).index(step) >= 2

    def hold(method: str, path: str, number: int) -> str | None:
        if reached.is_set() and not late:
            go.wait(60)
            return "reset-request"  # what was on its way when the process died doesn't count
        is_step = STEPS[step](method, path) and ("incoming" in path or "/class_" not in path or replacing)
        if is_step and "incoming" in path and replacing:
            return None
        if is_step and not reached.is_set():
            reached.set()
            if not late:
                go.wait(60)
                return "reset-request"
        return None

    watched.fault = hold
    process = stage.start("load", env=store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": watched.endpoint})
    assert reached.wait(60), process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    go.set()
    watched.settle()
    whole_data = there.find_whole()
    assert whole_data is None or set(whole_data) == set(old)
    uploads = start_proxy(store)
    assert load(env={"S3_ENDPOINT_URL": uploads.endpoint}).code == 0
    if replacing:
        assert not uploads.count("PUT", "incoming"), "what came in is used"
    assert there.data() == made
    assert set(there.require_whole()) == set(made)


def test_incoming_objects_are_copied_into_place_and_not_sent_again(
    load: Load, tree: MakeTree, there: InStore, start_proxy: StartProxy, store: Store
) -> None:
    tree(20)
    assert load().code == 0
    made = tree(20, first=1000)
    watched = start_proxy(store)
    watched.fault = lambda method, path, number: (
        403 if method == "PUT" and path.endswith(".jpg") and "incoming" not in path else None
    )
    assert load(env={"S3_ENDPOINT_URL": watched.endpoint}).code == 2
    assert there.find_manifest() is None, "it was withdrawn: all of the new are in the store"
    watched = start_proxy(store)
    assert load(env={"S3_ENDPOINT_URL": watched.endpoint}).code == 0
    assert watched.copies == 20
    assert watched.count("PUT", ".jpg") == 20, "each of them a copy"
    assert there.data() == made


@pytest.mark.one_in(2)
@pytest.mark.parametrize("verify", ["list", "etag"])
def test_one_failed_file_does_not_resend_the_others(
    load: Load, tree: MakeTree, there: InStore, proxy: Proxy, verify: str
) -> None:
    made = tree(30)
    proxy.fault = lambda method, path, number: 500 if method == "PUT" and path.endswith("/0_0.jpg") else None
    result = load(f"--verify-remote={verify}", "--stall-seconds=20", env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 5
    sent = [path for method, path in proxy.requests if method == "PUT" and path.endswith(".jpg")]
    assert sum(not path.endswith("/0_0.jpg") for path in sent) == 29
    proxy.fault = lambda method, path, number: None
    proxy.requests.clear()
    result = load(f"--verify-remote={verify}", env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 0
    assert "1 sent" in result.stderr
    assert proxy.count("PUT", ".jpg") == 1
    assert there.data() == made


@pytest.mark.exhaustive
def test_a_store_that_only_asks_to_slow_down_is_noticed(load: Load, tree: MakeTree, proxy: Proxy) -> None:
    """rclone retries for hours; sending the same bytes again isn't progress."""
    tree(40)
    proxy.fault = lambda method, path, number: 503 if method == "PUT" and path.endswith(".jpg") else None
    result = load("--stall-seconds=6", "--transfers=4", env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 5


@pytest.mark.parametrize("how", ["corrupt", "gone"])
def test_a_damaged_index_is_uploaded_again_and_the_manifest_goes_before_objects(
    load: Load, tree: MakeTree, there: InStore, proxy: Proxy, how: str
) -> None:
    tree(20)
    assert load().code == 0
    index = f"_larder/index-{there.manifest()['index']['sha256']}.jsonl"
    corrupt = bytes(len(there.read(index)))
    there.put(index, corrupt) if how == "corrupt" else there.delete(index)
    assert load().code == 0
    assert there.require_whole()
    there.put(index, corrupt) if how == "corrupt" else there.delete(index)
    made = tree(20, first=1000)
    proxy.fault = lambda method, path, number: 403 if path.endswith(".jpg") and proxy.count("PUT", ".jpg") > 5 else None
    assert load(env={"S3_ENDPOINT_URL": proxy.endpoint}).code == 2
    assert there.find_manifest() is None, "what it named has changed"
    assert load().code == 0
    assert set(there.require_whole()) == set(made)


def test_a_load_whose_uploads_another_removed_fails(load: Load, tree: MakeTree, there: InStore, proxy: Proxy) -> None:
    tree(10)

    def tidy(method: str, path: str, number: int) -> None:
        if method == "PUT" and path.endswith("manifest.json"):
            for name in there.paths():
                if name.startswith("_larder/index-"):
                    there.delete(name)

    proxy.fault = tidy
    result = load(env={"S3_ENDPOINT_URL": proxy.endpoint})
    assert result.code == 5
    assert "another load" in result.stderr
    assert load().code == 0
    assert there.require_whole()


def test_stopped_in_the_middle_of_a_large_file_nothing_is_left_unseen(
    stage: Stage, tree: MakeTree, there: InStore, proxy: Proxy, store: Store, bucket: str
) -> None:
    """Parts of an abandoned upload stay in a store forever."""
    tree({"soup/0.jpg": bytes(1 << 20) * 201}, LARDER_VERIFY="none", LARDER_RECIPE="imagefolder")
    begun = threading.Event()

    def fault(method: str, path: str, number: int) -> None:
        if "partNumber=3" in path:
            begun.set()

    proxy.fault = fault
    env = store.env | {"S3_BUCKET": bucket, "S3_ENDPOINT_URL": proxy.endpoint, "LARDER_BANDWIDTH": "10MB"}
    process = stage.start("load", env=env)
    assert begun.wait(60)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not there.client.list_multipart_uploads(Bucket=bucket).get("Uploads")
