"""What all tiers share: real S3 servers, and waiting for conditions.

`store` runs a test against every kind of store there is: SeaweedFS from PyPI, MinIO in a container, and the one at
LARDER_TEST_S3 (an endpoint; with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and perhaps AWS_REGION), where that is set.
"""

from __future__ import annotations

import base64
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import boto3
import hypothesis
import psutil
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.forks import Fork
from tests.proxy import Proxy
from tests.shared import Started, shared
from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parents[1]

KEY, SECRET = "larder-tests", "a-secret-of-the-tests"

KINDS = [
    "seaweedfs",
    pytest.param("minio", marks=pytest.mark.exhaustive),
    *(["given"] if os.environ.get("LARDER_TEST_S3") else []),
]

hypothesis.settings.register_profile("larder", deadline=None)  # a busy machine makes a test slower, and not red

hypothesis.settings.load_profile("larder")


def pytest_configure() -> None:
    for name in (
        "LARDER_FRONT_DOOR",
        "LARDER_REPEATED",
        "LARDER_HOST_FOLDERS",
        "MAKEFLAGS",
        "MAKEOVERRIDES",
        "MFLAGS",
        "MAKELEVEL",
    ):
        os.environ.pop(name, None)  # set by `make test`, and must not reach the programs under test
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else each process compiles all tests, a third of collecting them
    sys.dont_write_bytecode = False
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's job in the background; programs inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish() -> None:
    if "LARDER_TEST_S3" in os.environ:  # the other stores end with the test run
        client = given_store().client
        for bucket in _BUCKETS[client.meta.endpoint_url]:
            empty(client, bucket)
            client.delete_bucket(Bucket=bucket)


class Store(NamedTuple):
    """A running S3 server."""

    kind: str
    endpoint: str
    access_key: str
    secret_key: str
    client: Any
    container: str = ""
    """Where MinIO runs."""
    shell: tuple[str, ...] = ()
    """The command of SeaweedFS's shell."""

    @property
    def env(self) -> dict[str, str]:
        """The settings that reach it."""
        return {
            "S3_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }


def make_store(kind: str, endpoint: str, access: str, secret: str, **details: Any) -> Store:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access,
        aws_secret_access_key=secret,
        region_name=os.environ.get("AWS_REGION", "us-east-1"),
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}, proxies={}),
    )
    return Store(kind, endpoint, access, secret, client, **details)


def free_ports(count: int) -> list[int]:
    """Return free ports of the loopback interface, chosen at random, since other processes choose, too.

    They are below the range of outgoing connections, which could take a port before its server does, and above the
    range of Ray's workers.
    """
    free: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 32_000), 1000):
        with suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            free.append(port)
        if len(free) == count:
            return free
    raise AssertionError("no ports are free")


def workers_of(process: subprocess.Popen[str] | Fork) -> list[psutil.Process]:
    """Return a stage's worker processes: forks of its forkserver. A thread of each watches the stage.

    Programs that the forkserver runs while it imports (torch runs ldconfig) have only one thread.
    """
    workers = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has just ended
            if child.ppid() != process.pid and "forkserver" in " ".join(child.cmdline()) and child.num_threads() > 1:
                workers.append(child)
    return workers


class Until(Protocol):
    """What the fixture `until` gives: see `wait_until`."""

    def __call__(self, condition: Callable[[], object], what: str, seconds: float = 180.0) -> None: ...


@pytest.fixture(scope="session")
def until() -> Until:
    """Waits for a condition: `until(lambda: path.exists(), "the file is there")`."""
    return wait_until


def takes_objects(client: Any) -> bool:
    """Return whether a starting server already accepts an object."""
    try:
        client.create_bucket(Bucket="larder-tests-ready")
        client.put_object(Bucket="larder-tests-ready", Key="ready", Body=b"ready")
    except Exception:  # whatever a server says that has not started yet
        return False
    return True


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """SeaweedFS on loopback, one per test run. Tests use a bucket or a prefix of their own."""
    with shared(tmp_path_factory, "seaweedfs", start_seaweedfs) as facts:
        yield make_store(**facts)


def start_seaweedfs(folder: Path) -> Started:
    """Start SeaweedFS, and wait until it accepts objects."""
    weed = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    names = ("s3", "master", "volume", "filer")
    ports = free_ports(2 * len(names))
    flags = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    flags += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[len(names) :], strict=False)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    data = folder / "data"
    data.mkdir(exist_ok=True)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [weed, "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-volume.max=500",
             "-admin.ui=false", "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0", *flags],
            cwd=data, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    address = [f"127.0.0.1:{ports[at]}.{ports[at + len(names)]}" for at in range(len(names))]
    shell = (weed, "shell", f"-master={address[1]}", f"-filer={address[3]}")
    facts: dict[str, Any] = {
        "kind": "seaweedfs",
        "endpoint": f"http://127.0.0.1:{ports[0]}",
        "access": KEY,
        "secret": SECRET,
        "shell": shell,
    }
    client = make_store(**facts).client

    def ready() -> bool:
        if server.poll() is not None:
            pytest.fail(f"the S3 server ended: {(folder / 'log').read_text()[-2000:]}")
        return takes_objects(client)

    try:
        wait_until(ready, "the S3 server answers", 180)
    except BaseException:
        server.kill()
        raise
    return Started(facts, ["kill", "-KILL", str(server.pid)])  # it takes 12 s to end by itself


def start_minio(environment: Mapping[str, str] = MappingProxyType({}), disk: str = "") -> Started:
    """Start MinIO in a container, optionally on a disk of a given size, and wait until it answers."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        why = "MinIO runs in a container, and no container engine answers (docker info)"
        pytest.fail(why) if os.environ.get("REQUIRE") == "all" else pytest.skip(why)
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # one image less to pull: it is stopped by `shared`
    # Else testcontainers, in a development container, doesn't use published ports.
    os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    from testcontainers.community.minio import MinioContainer

    image = re.search(r"^MINIO_IMAGE=(.+)$", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert image
    container = MinioContainer(image[1], access_key=KEY, secret_key=SECRET).with_envs(**environment)
    server = (container.with_tmpfs_mount("/data", disk) if disk else container).start()
    name = server.get_wrapped_container().id
    stop = ["docker", "rm", "--force", "--volumes", name]
    try:
        endpoint = f"http://127.0.0.1:{server.get_exposed_port(9000)}"
        facts = {"kind": "minio", "endpoint": endpoint, "access": KEY, "secret": SECRET, "container": name}
        client = make_store(**facts).client
        wait_until(lambda: takes_objects(client), "MinIO answers", 180)
    except BaseException:
        subprocess.run(stop, capture_output=True, check=False)
        raise
    return Started(facts, stop)


@pytest.fixture(scope="session")
def minio_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """MinIO, one per test run."""
    with shared(tmp_path_factory, "minio", lambda _: start_minio()) as facts:
        yield make_store(**facts)


@contextmanager
def own_minio(environment: Mapping[str, str] = MappingProxyType({}), disk: str = "") -> Iterator[Store]:
    """MinIO for a single test."""
    facts, stop = start_minio(environment, disk)
    try:
        yield make_store(**facts)
    finally:
        subprocess.run(stop, capture_output=True, check=False)  # the test may have killed it


@pytest.fixture
def small_minio() -> Iterator[Store]:
    """MinIO whose disk has 128 MiB."""
    with own_minio(disk="size=128m") as store:
        yield store


@pytest.fixture
def encrypting_minio() -> Iterator[Store]:
    """MinIO that encrypts every object, so that no ETag is an MD5."""
    key = base64.b64encode(bytes(range(32))).decode()
    with own_minio({"MINIO_KMS_SECRET_KEY": f"key:{key}", "MINIO_KMS_AUTO_ENCRYPTION": "on"}) as store:
        yield store


def given_store() -> Store:
    """The store at LARDER_TEST_S3."""
    keys = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    return make_store("given", os.environ["LARDER_TEST_S3"], *keys)


@pytest.fixture(scope="session", params=KINDS)
def store(request: pytest.FixtureRequest) -> Store:
    """Every kind of store, one after the other. Tests use the fixture `bucket`, or a bucket of their own."""
    if request.param == "given":
        return given_store()
    server: Store = request.getfixturevalue({"seaweedfs": "s3", "minio": "minio_server"}[request.param])
    return server


@pytest.fixture
def bucket(store: Store) -> Iterator[str]:
    """The name of an empty bucket in `store`, for one test."""
    with own_bucket(store.client) as name:
        yield name


_BUCKETS: defaultdict[str, deque[str]] = defaultdict(deque)

"""Buckets that tests of this process have had, by their stores' endpoints."""

BUCKETS_IN_TURN = 4


@contextmanager
def own_bucket(client: Any, *, new: bool = False) -> Iterator[str]:
    """Yield the name of an empty bucket for one test.

    Buckets are reused in turn, since SeaweedFS takes 0.3 s to create and remove one. A bucket is emptied just before it
    is used again, when processes that an earlier test killed no longer send anything. SeaweedFS keeps the folders of
    deleted objects, so a test that sees folders asks for a `new` bucket.
    """
    left = _BUCKETS[client.meta.endpoint_url]
    name = left.popleft() if len(left) >= BUCKETS_IN_TURN and not new else f"larder-test-{uuid.uuid4().hex[:12]}"
    try:
        empty(client, name)
    except client.exceptions.NoSuchBucket:
        client.create_bucket(Bucket=name)
    yield name
    left.append(name)


def empty(client: Any, bucket: str) -> None:
    """Delete all objects and unfinished uploads of a bucket. Raises NoSuchBucket."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        if keys := [{"Key": item["Key"]} for item in page.get("Contents", ())]:
            client.delete_objects(Bucket=bucket, Delete={"Objects": keys})
    for item in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
        with suppress(client.exceptions.NoSuchUpload):  # SeaweedFS lists some that are over
            client.abort_multipart_upload(Bucket=bucket, Key=item["Key"], UploadId=item["UploadId"])


MINIO_USER = """
set -e; export MC_CONFIG_DIR=/tmp/mc
mc alias set here http://127.0.0.1:9000 "$1" "$2"; mc admin user add here "$3" "$4"
cat > "/tmp/$3.json"; mc admin policy create here "$3" "/tmp/$3.json"; mc admin policy attach here "$3" --user "$3"
"""


@pytest.fixture
def reader(store: Store, bucket: str) -> dict[str, str]:
    """The settings of a user of `store` who may only read and list `bucket`."""
    key, secret = f"reader-{uuid.uuid4().hex[:8]}", "a-secret-of-a-reader"
    if store.kind == "given":
        pytest.skip("users of a given store are its owner's to make")
    if store.kind == "seaweedfs":
        command, text = (
            list(store.shell),
            (
                f"s3.configure -user {key} -access_key {key} -secret_key {secret} -actions Read,List -buckets {bucket} "
                "-apply\n"
            ),
        )
    else:
        resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        allowed = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": resources}
        command = ["docker", "exec", "-i", store.container, "sh", "-c", MINIO_USER, "sh"]
        command += [store.access_key, store.secret_key, key, secret]
        text = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    settings = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
    client = make_store("reader", store.endpoint, key, secret).client
    wait_until(lambda: _lists(client, bucket), "the store knows the new user")
    return settings


def _lists(client: Any, bucket: str) -> bool:
    try:
        client.list_objects_v2(Bucket=bucket)
    except ClientError:
        return False
    return True


StartProxy = Callable[[Store], Proxy]


@pytest.fixture
def proxy(store: Store, start_proxy: StartProxy) -> Proxy:
    """A proxy in front of `store`: it counts requests; set its `fault` to break things."""
    return start_proxy(store)


@pytest.fixture
def start_proxy() -> Iterator[StartProxy]:
    """Starts proxies: `start_proxy(store)`."""
    running = []

    def start(store: Store) -> Proxy:
        server = Proxy(store.endpoint)
        running.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def minio(minio_server: Store) -> dict[str, Any]:
    """MinIO's keys, and its addresses for containers on Docker's default bridge and for other containers."""
    details = json.loads(subprocess.check_output(["docker", "inspect", minio_server.container]))
    bridge = details[0]["NetworkSettings"]["Networks"]["bridge"]
    return {
        "endpoint": f"http://{bridge['IPAddress']}:9000",
        "published": f"http://{bridge['Gateway']}:{minio_server.endpoint.rsplit(':', 1)[1]}",
        "key": minio_server.access_key,
        "secret": minio_server.secret_key,
    }
