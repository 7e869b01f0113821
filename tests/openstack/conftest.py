"""A real OpenStack in a container, one for all processes of a test run; each test has a project of it for itself."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import boto3
import pytest
import requests
from botocore.config import Config
from requests.adapters import HTTPAdapter

from provision import marks
from provision.__main__ import main
from tests import forks
from tests.forks import Fork
from tests.openstack.disks import Machine, missing, unpack_debian
from tests.openstack.federation import fronts, hub, provider  # noqa: F401
from tests.openstack.foreign import CHEAP, Foreign
from tests.openstack.projects import Projects, access_rules, connection, leases_of, things_of
from tests.openstack.repository import repository  # noqa: F401
from tests.openstack.rgw import gateway  # noqa: F401
from tests.openstack.services import shared_service

BOX = Path(__file__).with_name("box")
IMAGE = "larder-test-openstack"
FOR_NFS = ("--cap-add", "DAC_READ_SEARCH", "--volume", "/srv/os/shares")
"""An NFS server opens files by their handles, which file systems of containers don't have."""
ROOT = Path(__file__).resolve().parents[2]

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


@pytest.fixture(scope="session")
def projects(box: str, admin: Any) -> Iterator[Projects]:
    made = Projects(box, admin)
    yield made
    if "LARDER_TEST_OPENSTACK" in os.environ:  # any other box ends now
        made.close()


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
    operator: Any
    capfd: Any
    environ: dict[str, str]
    name: str = "lab"
    foreign: Foreign = field(default_factory=Foreign)
    """Resources of others in the project, which don't count."""
    is_reusable: bool = True
    """Whether another test may get the project, once nothing of this one is left in it."""
    started: list[Fork] = field(default_factory=list)

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
        process = forks.start("provision", words, {**os.environ, **environ}, folder=self.folder)
        self.started.append(process)
        return process

    def has_ended(self) -> bool:
        """Return whether nothing of this test can reach the cloud any more, as a request of a killed command can."""
        codes = [process.poll() for process in self.started]
        return all(code is not None and code >= 0 for code in codes)

    @property
    def admin(self) -> Any:
        """A connection as the site's operator, who may change quotas and roles: then no other test gets the project."""
        self.is_reusable = False
        return self.operator

    @property
    def things(self) -> dict[str, list[str]]:
        """Everything in the project but the resources of others, as the cloud has it."""
        theirs = self.foreign.ids
        found = things_of(self.cloud, self.box, self.project, self.user)
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
        return access_rules(self.cloud)

    @property
    def leases(self) -> list[Any]:
        theirs = self.foreign.ids.get("leases", ())
        return [lease for lease in leases_of(self.cloud, self.box) if lease["id"] not in theirs]


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
    projects: Projects,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Site]:
    """A project with a user, a key pair, and resources of others, which must be unchanged after the test."""
    kinds = kinds_of_others(request)
    project = projects.lend(kinds)
    for variable in [item for item in os.environ if item.startswith("OS_")]:
        monkeypatch.delenv(variable)
    environ = {
        "OS_AUTH_URL": f"http://{box}:5000/v3",
        "OS_USERNAME": project.name,
        "OS_PASSWORD": "pw",
        "OS_PROJECT_NAME": project.name,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
        "OS_REGION_NAME": "RegionOne",
        "HOME": str(tmp_path),
    }
    for variable, value in environ.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.chdir(tmp_path)
    cloud, foreign = project.cloud, project.foreign
    made = Site(box, project.id, project.user, tmp_path, cloud, admin, capfd, environ, foreign=foreign)
    yield made
    monkeypatch.undo()  # no faults, no declared environment: what follows must work
    is_reusable = made.is_reusable and made.has_ended()
    try:
        foreign.check()
    except BaseException:
        is_reusable = False
        raise
    finally:
        if is_reusable:
            projects.give_back(kinds, project)
        else:
            project.remove()


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
