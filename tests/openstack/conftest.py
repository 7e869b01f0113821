"""A real OpenStack in a container, one for all processes of a test run; each test has a project of its own in it."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
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
from tests import forks
from tests.forks import Fork
from tests.openstack.disks import Machine, missing, unpack_debian
from tests.openstack.federation import fronts, hub, provider  # noqa: F401
from tests.openstack.foreign import CHEAP, Foreign
from tests.openstack.repository import repository  # noqa: F401
from tests.openstack.rgw import gateway  # noqa: F401
from tests.openstack.services import shared_service

BOX = Path(__file__).with_name("box")
IMAGE = "larder-test-openstack"
FOR_NFS = ("--cap-add", "DAC_READ_SEARCH", "--volume", "/srv/os/shares")
"""An NFS server opens files by their handles, which file systems of containers don't have."""
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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "others(*kinds): which resources of others are in the project; none without any")


def kinds_of_others(request: pytest.FixtureRequest) -> tuple[str, ...]:
    marker = request.node.get_closest_marker("others")
    return marker.args if marker else CHEAP


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        return min((FIRST.index(name) for name in (item.name, item.path.name) if name in FIRST), default=len(FIRST))

    items.sort(key=place)


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the OpenStack container. LARDER_TEST_OPENSTACK is that of one which runs already."""
    if given := os.environ.get("LARDER_TEST_OPENSTACK"):
        yield given
        return
    with shared_service(tmp_path_factory, IMAGE, BOX, "--hostname", "localhost", "--memory", "8g", *FOR_NFS) as service:
        yield service["address"]


@pytest.fixture(scope="session")
def admin(box: str) -> Any:
    """A connection as the site's operator."""
    return connection(box, "admin", "admin")


def connection(box: str, user: str, project: str, region: str = "RegionOne") -> Any:
    return openstack.connect(
        load_envvars=False,
        load_yaml_config=False,
        auth_url=f"http://{box}:5000/v3",
        user_domain_name="Default",
        project_domain_name="Default",
        username=user,
        password="pw",
        project_name=project,
        region_name=region,
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
    foreign: Foreign = field(default_factory=Foreign)
    """Resources of others in the project, which don't count."""

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

    def start(self, *words: str, environ: Mapping[str, str] = MappingProxyType({})) -> Fork:
        """The same as a process of its own."""
        return forks.start("provision", words, {**os.environ, **environ}, folder=self.folder)

    @property
    def things(self) -> dict[str, list[str]]:
        """Everything in the project but the resources of others, as the cloud has it."""
        cloud, project = self.cloud, self.project
        groups = [item for item in cloud.network.security_groups(project_id=project) if item.name != "default"]
        found = {
            # Nova still lists a deleted server for a moment, as deleted.
            "servers": [item.id for item in cloud.compute.servers() if item.status not in GONE],
            "volumes": [item.id for item in cloud.block_storage.volumes()],
            "shares": [item.id for item in cloud.shared_file_system.shares()],
            "access": [rule["id"] for rule in self.access_rules],
            "addresses": [item.id for item in cloud.network.ips(project_id=project)],
            "routers": [item.id for item in cloud.network.routers(project_id=project)],
            "networks": [item.id for item in cloud.network.networks(project_id=project)],
            "groups": [item.id for item in groups],
            "buckets": [item.name for item in cloud.object_store.containers()],
            "leases": [item["id"] for item in self.leases],
            # An operator sees those of all users.
            "keys": [
                item["id"]
                for item in cloud.identity.get("/credentials").json()["credentials"]
                if item["user_id"] == self.user
            ],
        }
        theirs = self.foreign.ids
        return {kind: [id for id in ids if id not in theirs.get(kind, ())] for kind, ids in found.items()}

    def own(self, kind: str) -> list[Any]:
        """The same of one kind, as openstacksdk describes it: servers, volumes or addresses."""
        network = self.cloud.network
        get = {
            "servers": self.cloud.compute.get_server,
            "volumes": self.cloud.block_storage.get_volume,
            "addresses": network.get_ip,
        }
        return [get[kind](id) for id in self.things[kind]]

    @property
    def rules(self) -> list[Any]:
        """The rules that let in TCP, but for those of others."""
        listed = self.cloud.network.security_group_rules(project_id=self.project, direction="ingress", protocol="tcp")
        return [rule for rule in listed if rule.security_group_id not in self.foreign.ids.get("groups", ())]

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
        theirs = self.foreign.ids.get("leases", ())
        return [lease for lease in leases_of(self.cloud, self.box) if lease["id"] not in theirs]


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


@pytest.fixture
def only_node(box: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Wait until no other test uses the box's only node and its only GPU."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "openstack-node").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def owner(site: Site) -> str:
    """What marks name: the stack and its user."""
    return marks.make_owner(site.name, site.user)


@pytest.fixture
def site(
    request: pytest.FixtureRequest,
    box: str,
    admin: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Site]:
    """A new project with a user, a key pair, and resources of others, which must be unchanged after the test."""
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
        foreign = Foreign(cloud, box, project.id, user.id)
        foreign.put(kinds_of_others(request))
        yield Site(box, project.id, user.id, tmp_path, cloud, admin, capfd, environ, foreign=foreign)
        monkeypatch.undo()  # no faults, no declared environment: what follows must work
        foreign.check()


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
