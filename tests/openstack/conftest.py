"""A real OpenStack in a container, one for all processes of a test run; each test has a project of its own in it."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import openstack
import pytest
import requests
from botocore.config import Config
from openstack.exceptions import SDKException
from requests.adapters import HTTPAdapter

from provision import marks
from provision.__main__ import main
from provision.servers import GONE
from tests.openstack.disks import Machine, missing, unpack_debian
from tests.openstack.federation import fronts, hub, provider  # noqa: F401
from tests.openstack.repository import repository  # noqa: F401

BOX = Path(__file__).with_name("box")
IMAGE = "larder-test-openstack"
FOR_NFS = ("--cap-add", "DAC_READ_SEARCH", "--volume", "/srv/os/shares")
"""An NFS server opens files by their handles, which file systems of containers don't have."""
BOOT_SECONDS = 600
ROOT = Path(__file__).resolve().parents[2]
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE2b1pYSHlGJmRPqmRTtoWZ3bMPhJpuK8Ff3T1bWnZkh tests"


FIRST = (
    "test_volume_lives_through_connection_losses_interrupts_growing_and_power_cuts",
    "test_disk_that_never_appears_is_named",
    "test_file_outlives_the_server",
    "test_notebook.py",
    "test_docker_is_started_and_its_containers_depend_on_the_volume",
    "test_files_on_a_share_outlive_the_server",
    "test_host_guest.py",
    "test_quota",
    "test_host_server.py",
    "test_host_disks.py",
    "test_host_blank.py",
    "test_host_kills.py",
)
"""Files and tests that take long, or wait for an emulated machine, in their order: begun last, they leave the other
processes idle. pytest-xdist gives each process two at once, so the first and the third here are the longest; these also
build the two images at the same time. Those of one file stay together, so that a process starts its guest once."""


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Debian, unpacked; needs loop devices, so it needs root."""
    if os.geteuid():
        missing("loop devices need root")
    if subprocess.run(["losetup", "--find"], capture_output=True, check=False).returncode:
        missing("this machine gives no loop devices (losetup --find)")
    return unpack_debian(tmp_path_factory.mktemp("debian") / "root")


@pytest.fixture
def machine(debian: Path, tmp_path: Path) -> Iterator[Machine]:
    made = Machine(debian, tmp_path)
    yield made
    made.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return min((FIRST.index(name) for name in (item.name, item.path.name) if name in FIRST), default=len(FIRST))

    items.sort(key=place)


def docker(*words: str, seconds: float = 300) -> str:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode:
        pytest.fail(f"docker {' '.join(words)}: {done.stderr[-3000:]}")
    return done.stdout.strip()


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the OpenStack container.

    The processes of a test run share it: the first starts it, and the last one to end removes it. Each holds a
    shared lock meanwhile; the process that can turn its lock into an exclusive one is the last. LARDER_TEST_OPENSTACK
    is the address of a container that runs already.
    """
    if given := os.environ.get("LARDER_TEST_OPENSTACK"):
        yield given
        return
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    running = folder / "openstack-box"
    with (folder / "openstack-users").open("w") as users, (folder / "openstack-start").open("w") as start:
        fcntl.flock(start, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        if not running.exists():
            docker("build", "--quiet", "--tag", IMAGE, str(BOX), seconds=3600)
            name = docker("run", "--detach", "--rm", "--hostname", "localhost", "--memory", "8g", *FOR_NFS, IMAGE)
            running.write_text(name)
        name = running.read_text()
        try:
            _wait_for_boot(name)
            fcntl.flock(start, fcntl.LOCK_UN)
            yield docker("inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name)
        finally:
            _remove_if_last(name, running, users)


def _wait_for_boot(name: str) -> None:
    end = time.monotonic() + BOOT_SECONDS
    while "] ready" not in (log := docker("logs", name)):
        if time.monotonic() > end or docker("inspect", "--format", "{{.State.Running}}", name) != "true":
            pytest.fail(f"OpenStack didn't boot:\n{log[-3000:]}")
        time.sleep(0.5)


def _remove_if_last(name: str, running: Path, users: Any) -> None:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    running.unlink(missing_ok=True)
    docker("rm", "--force", "--volumes", name)


@pytest.fixture(scope="session")
def admin(box: str) -> Any:
    """A connection as the site's operator."""
    return connection(box, "admin", "admin")


def connection(box: str, user: str, project: str) -> Any:
    return openstack.connect(
        load_envvars=False,
        load_yaml_config=False,
        auth_url=f"http://{box}:5000/v3",
        user_domain_name="Default",
        project_domain_name="Default",
        username=user,
        password="pw",
        project_name=project,
        region_name="RegionOne",
    )


Fault = Callable[[Any], "requests.Response | Exception | None"]


@dataclass
class Wire:
    """The outermost edge of our HTTP: it sees every request, and fails those that the test chooses."""

    before: Fault = lambda request: None
    """Returns an answer to give, or an error to raise, in place of asking the cloud."""
    after: Fault = lambda request: None
    """The same, once the cloud has done what was asked: its answer gets lost."""
    change: Callable[[Any, requests.Response], None] = lambda request, answer: None
    """Changes an answer of the cloud."""
    requests: list[tuple[str, str]] = field(default_factory=list)

    def made(self, *methods: str) -> list[tuple[str, str]]:
        return [(method, url) for method, url in self.requests if method in methods and "/auth/tokens" not in url]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire, send = Wire(), HTTPAdapter.send

    def sends(self: HTTPAdapter, request: Any, *args: Any, **options: Any) -> Any:
        wire.requests.append((request.method, request.url))
        instead = wire.before(request)
        if instead is None:
            answer = send(self, request, *args, **options)
            wire.change(request, answer)
            instead = wire.after(request) or answer
        if isinstance(instead, Exception):
            raise instead
        return instead

    monkeypatch.setattr(HTTPAdapter, "send", sends)
    return wire


def kind_of(request: Any) -> str:
    """What a request is about, without ids."""
    words = [word for word in request.url.split("?")[0].split("/")[3:] if len(word) < 30]
    return f"{request.method} {'/'.join(words)} {(request.body or b'')[:30]!r}"


def answer(status: int, text: str, content_type: str = "application/json") -> Callable[[Any], requests.Response]:
    """An answer that no server gave."""

    def give(request: Any) -> requests.Response:
        made = requests.Response()
        made.status_code, made._content, made.request, made.url = status, text.encode(), request, request.url
        made.headers["Content-Type"] = content_type
        return made

    return give


@pytest.fixture
def answers() -> Callable[..., Callable[[Any], requests.Response]]:
    return answer


@dataclass
class Ended:
    """How one command ended."""

    code: int
    out: str
    err: str


@dataclass
class Site:
    """A project of its own, a declaration, and the commands on it."""

    box: str
    project: str
    user: str
    folder: Path
    cloud: Any
    admin: Any
    capfd: Any
    environ: dict[str, str]
    name: str = "lab"

    def declare(self, text: str) -> Path:
        path = self.folder / "provision.toml"
        path.write_text(f'name = "{self.name}"\n{text}')
        return path

    def run(self, *words: str, typed: str = "") -> Ended:
        """One command, in this process, which saves the start of another."""
        self.capfd.readouterr()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.StringIO(typed))
            code = main(words)
        out, err = self.capfd.readouterr()
        return Ended(code, out, err)

    def succeeds(self, *words: str) -> str:
        ended = self.run(*words)
        assert ended.code == 0, ended.err + ended.out
        return ended.out

    def start(self, *words: str) -> subprocess.Popen[str]:
        """The same as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "provision", *words],
            cwd=self.folder,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    @property
    def things(self) -> dict[str, list[str]]:
        """Everything in the project, whoever made it, as the cloud has it."""
        cloud, project = self.cloud, self.project
        groups = [item.name for item in cloud.network.security_groups(project_id=project)]
        return {
            # Nova still lists a deleted server for a moment, as deleted.
            "servers": [item.id for item in cloud.compute.servers() if item.status not in GONE],
            "volumes": [item.id for item in cloud.block_storage.volumes()],
            "shares": [item.id for item in cloud.shared_file_system.shares()],
            "access": [rule["id"] for rule in self.access_rules],
            "addresses": [item.id for item in cloud.network.ips(project_id=project)],
            "routers": [item.id for item in cloud.network.routers(project_id=project)],
            "networks": [item.id for item in cloud.network.networks(project_id=project)],
            "groups": [name for name in groups if name != "default"],
            "buckets": [item.name for item in cloud.object_store.containers()],
            "leases": [item["id"] for item in self.leases],
            "keys": [item["id"] for item in cloud.identity.get("/credentials").json()["credentials"]],
        }

    @property
    def counts(self) -> dict[str, int]:
        return {kind: len(items) for kind, items in self.things.items() if items}

    @property
    def access_rules(self) -> list[Any]:
        """The access rules of the project's shares."""
        manila = self.cloud.shared_file_system
        return [
            rule
            for share in manila.shares()
            for rule in manila.get(f"/share-access-rules?share_id={share.id}", microversion="2.45").json()[
                "access_list"
            ]
        ]

    @property
    def leases(self) -> list[Any]:
        return leases_of(self.cloud, self.box)


def leases_of(cloud: Any, box: str) -> list[Any]:
    """The leases of a connection's own project. (To an admin, even of one, Blazar lists those of all projects.)"""
    found: list[Any] = cloud.session.get(f"http://{box}:1234/v1/leases").json()["leases"]
    return [lease for lease in found if lease["project_id"] == cloud.current_project_id]


@contextmanager
def new_project(box: str, admin: Any) -> Iterator[tuple[str, Any, Any]]:
    """Create a project and a user of the same name; yield the name and both. Remove all of it afterwards."""
    name = f"t{uuid.uuid4().hex[:8]}"
    domain = admin.identity.find_domain("Default").id
    project = admin.identity.create_project(name=name, domain_id=domain)
    user = admin.identity.create_user(name=name, password="pw", domain_id=domain, default_project_id=project.id)
    admin.identity.assign_project_role_to_user(project, user, admin.identity.find_role("member"))
    yield name, project, user
    _clear(connection(box, name, name), box)
    admin.identity.delete_user(user)
    admin.identity.delete_project(project)


def owner(site: Site) -> str:
    """What marks name: the stack and its user."""
    return marks.make_owner(site.name, site.user)


@pytest.fixture
def site(
    box: str, admin: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Site]:
    """A new project with a user and a key pair."""
    with new_project(box, admin) as (name, project, user):
        for variable in [item for item in os.environ if item.startswith("OS_")]:
            monkeypatch.delenv(variable)
        environ = {
            "OS_AUTH_URL": f"http://{box}:5000/v3",
            "OS_USERNAME": name,
            "OS_PASSWORD": "pw",
            "OS_PROJECT_NAME": name,
            "OS_USER_DOMAIN_NAME": "Default",
            "OS_PROJECT_DOMAIN_NAME": "Default",
            "OS_REGION_NAME": "RegionOne",
            "HOME": str(tmp_path),
        }
        for variable, value in environ.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.chdir(tmp_path)
        cloud = connection(box, name, name)
        cloud.compute.create_keypair(name="laptop", public_key=PUBLIC_KEY)
        yield Site(box, project.id, user.id, tmp_path, cloud, admin, capfd, environ)
        monkeypatch.undo()  # no faults, no declared environment: what follows must work


def _clear(cloud: Any, box: str) -> None:
    """Delete what the test left, since other tests use the same machine."""
    for lease in leases_of(cloud, box):
        cloud.session.delete(f"http://{box}:1234/v1/leases/{lease['id']}", raise_exc=False)
    for server in cloud.compute.servers():
        cloud.compute.delete_server(server.id)
    for address in cloud.network.ips(project_id=cloud.current_project_id):
        cloud.network.delete_ip(address.id)
    end = time.monotonic() + 30
    while list(cloud.compute.servers()) and time.monotonic() < end:
        time.sleep(0.2)
    for volume in cloud.block_storage.volumes():
        try:
            cloud.block_storage.delete_volume(volume.id)
        except SDKException as error:
            print("not cleared:", error)
    for share in cloud.shared_file_system.shares():
        cloud.shared_file_system.delete_share(share.id)


def s3_of(site: Site) -> Any:
    """boto3's client with the keys that `up` has written."""
    env = dict(line.split("=", 1) for line in (site.folder / ".env").read_text().splitlines())
    return boto3.client(
        "s3",
        endpoint_url=env["S3_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}, request_checksum_calculation="when_required", proxies={}),
    )
