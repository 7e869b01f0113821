"""Read and validate the declaration, a TOML file, into frozen values.

Everything is checked before any cloud is contacted, and all faults are reported at once. `examples/` has a file for
each common case.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from larder.errors import ConfigurationError

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
BUCKET = r"^[A-Za-z0-9][A-Za-z0-9.-]{2,62}$"
USER = r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$"
PLACEHOLDER = "netID"
"""The placeholder in the examples' names. All users of a project see each other's resources, so names should differ."""
MAX_HOURS = 24 * 30
"""Limit of a lease and of one extension."""
NODE_TYPE = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
BARE_METAL = "baremetal"
"""The flavor of servers that are whole machines; the default with `node_type`."""
BARE_METAL_LIMITS = {"lease": 1200, "server": 3600, "ssh": 1800}
"""Time limits that are longer for bare metal: a machine boots, and is cleaned after use, in many minutes."""
CALLER = "caller"
"""A source of a security group that stands for this machine's address as seen from the cloud."""


class DeclarationTable(BaseModel):
    """A table of the declaration."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Site(DeclarationTable):
    """A cloud, or one region of it. Without values, OS_CLOUD or the other OS_* variables apply."""

    cloud: str | None = None
    """The entry in clouds.yaml."""
    region: str | None = None
    auth_url: str | None = Field(default=None, pattern=r"^https?://[!-?A-~]+$")
    """Keystone's address, in place of the one of OS_CLOUD or OS_AUTH_URL: one login serves two sites."""


class Sites(DeclarationTable):
    """The sites for servers and for objects, which may be the same."""

    compute: Site = Site()
    objects: Site | None = None
    """None means the compute site."""


class LeaseSpec(DeclarationTable):
    """A lease of Blazar for the server: of its flavor, of a bare-metal node, or one that exists."""

    hours: float | None = Field(None, gt=0, le=MAX_HOURS)
    """None only with `use`."""
    start: datetime | None = None
    """When the lease begins, in UTC; None means at once."""
    node_type: str | None = Field(None, pattern=NODE_TYPE)
    """The type of a bare-metal node: gpu_a100. None means a reservation of the server's flavor."""
    use: str | None = Field(None, min_length=1)
    """Name or id of a lease, or the id of one of its reservations. It is neither created, changed nor deleted."""

    @field_validator("start", mode="before")
    @classmethod
    def _start(cls, value: Any) -> Any:
        return value if value is None else _parse_start(value)

    @property
    def declared_hours(self) -> float:
        """The hours of a lease that isn't another's."""
        assert self.hours is not None
        return self.hours


class BootVolumeSpec(DeclarationTable):
    """A volume, created from the image, that the server boots from."""

    gib: int = Field(ge=1)
    delete_on_termination: bool = True
    """False keeps the volume when the server is deleted; `up` boots the next server from it."""
    type: str | None = None


class ServerSpec(DeclarationTable):
    """A virtual machine."""

    image: str = "CC-Ubuntu24.04"
    flavor: str = "m1.medium"
    network: str = "sharednet1"
    key: str
    """The key pair's name in the cloud."""
    user: str = Field("cc", pattern=USER)
    """The user that logs in."""
    private_key: Path | None = None
    """The private key on this machine; None lets OpenSSH choose."""
    security_groups: tuple[str, ...] = ("allow-ssh",)
    boot_volume: BootVolumeSpec | None = None

    @field_validator("private_key", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        if isinstance(value, str) and not value.isprintable():
            raise ValueError("holds control characters")
        return Path(value).expanduser() if isinstance(value, str) else value

    @field_validator("security_groups", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class FloatingIpSpec(DeclarationTable):
    """An address that can be reached from outside."""

    network: str = "public"
    reserve: bool = False
    """Whether the lease reserves it. Blazar then creates and deletes it with the lease."""


class NetworkSpec(DeclarationTable):
    """A network of its own for the server, which the lease reserves, with a subnet and a router."""

    name: str = Field(pattern=NAME)
    cidr: str = "192.168.100.0/24"
    physical_network: str = Field("physnet1", pattern=NODE_TYPE)
    """Blazar's property by which the site chooses a network segment."""
    usage_type: str | None = Field(None, pattern=NODE_TYPE)
    """Another one: storage is Chameleon's for networks that reach shares."""

    @field_validator("cidr")
    @classmethod
    def _cidr(cls, cidr: str) -> str:
        try:
            return str(ipaddress.IPv4Network(cidr))
        except ValueError:
            raise ValueError("must be a network such as 192.168.100.0/24") from None


class SecurityGroupSpec(DeclarationTable):
    """The TCP ports that are open, and for which sources."""

    name: str = Field(pattern=NAME)
    ports: tuple[int, ...]
    sources: tuple[str, ...] = (CALLER,)

    @field_validator("ports", "sources", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("ports")
    @classmethod
    def _ports(cls, ports: tuple[int, ...]) -> tuple[int, ...]:
        if not ports or not all(0 < port < 65536 for port in ports):
            raise ValueError("ports are numbers from 1 to 65535, at least one")
        return ports

    @field_validator("sources")
    @classmethod
    def _sources(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_source, sources))


class StorageSpec(DeclarationTable):
    """What volumes and shares have in common."""

    name: str = Field(pattern=NAME)
    gib: int = Field(ge=1)
    type: str | None = None
    mount: str | None = None
    """The mount point on the server; None only attaches the volume, or gives the server access to the share."""

    @field_validator("mount")
    @classmethod
    def _absolute(cls, mount: str | None) -> str | None:
        if mount is None:
            return mount
        if not re.match(r"^/[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$", mount):
            raise ValueError("must be an absolute path such as /mnt/block")
        if {".", ".."} & {*mount.split("/")}:  # systemd and findmnt know a mount point by one name only
            raise ValueError("must not contain . or .. as a folder")
        return mount


class VolumeSpec(StorageSpec):
    """A block volume that outlives the server."""


class ShareSpec(StorageSpec):
    """A file system of the site's NFS servers, which outlives the server and may serve several at once."""


class BucketSpec(DeclarationTable):
    """A container of the object store, which S3 calls a bucket."""

    name: str = Field(pattern=BUCKET)


class CredentialsSpec(DeclarationTable):
    """S3 keys for the object store, and the files to write them to."""

    env_file: Path = Path(".env")
    rclone_config: Path = Path("~/.config/rclone/rclone.conf")
    rclone_remote: str = Field("larder", pattern=NAME)
    s3_endpoint: str | None = None
    """The S3 address; None means the host and port of the site's Swift."""

    @field_validator("env_file", "rclone_config", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return Path(value) if isinstance(value, str) else value

    @field_validator("env_file", "rclone_config")
    @classmethod
    def _expanded(cls, value: Path) -> Path:
        return value.expanduser()


class HostSpec(DeclarationTable):
    """What to install on the server over SSH."""

    docker: bool = True
    rclone: bool = True
    nvidia: bool = True
    """NVIDIA's driver and container toolkit, if the server has a GPU."""
    tools: tuple[str, ...] = ("nload",)
    repository: str | None = None
    revision: str | None = None

    @field_validator("tools", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value


class TimeLimits(DeclarationTable):
    """Time limits of the steps, in seconds."""

    lease: float = Field(default=300, gt=0)
    server: float = Field(default=900, gt=0)
    volume: float = Field(default=300, gt=0)
    share: float = Field(default=600, gt=0)
    """Some sites grant access to shares every five minutes."""
    ssh: float = Field(default=600, gt=0)
    request: float = Field(default=60, gt=0)
    """For one request to the cloud."""


S = TypeVar("S", bound=StorageSpec)


class Declaration(DeclarationTable):
    """All parts of a stack."""

    name: str = Field(pattern=NAME, max_length=32)
    """The name in the mark of every created resource. It is short because tags are."""
    sites: Sites = Sites()
    lease: LeaseSpec | None = None
    server: ServerSpec | None = None
    floating_ip: FloatingIpSpec | None = None
    network: NetworkSpec | None = None
    security_groups: tuple[SecurityGroupSpec, ...] = Field((), alias="security_group")
    volumes: tuple[VolumeSpec, ...] = Field((), alias="volume")
    shares: tuple[ShareSpec, ...] = Field((), alias="share")
    bucket: BucketSpec | None = None
    credentials: CredentialsSpec | None = None
    host: HostSpec | None = None
    caller_service: str = Field("https://checkip.amazonaws.com", pattern=r"^https?://[!-~]+$")
    """A service that returns the client's address, used if this machine is behind a router."""
    limits: TimeLimits = TimeLimits()

    @field_validator("security_groups", "volumes", "shares", mode="before")
    @classmethod
    def _tuple(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    def volume(self, name: str) -> VolumeSpec:
        """Return the declared volume of that name."""
        return _named("volume", self.volumes, name)

    def share(self, name: str) -> ShareSpec:
        """Return the declared share of that name."""
        return _named("share", self.shares, name)


def _named(kind: str, declared: Sequence[S], name: str) -> S:
    """Return what is declared by that name. Raises ConfigurationError if nothing is."""
    matching = [item for item in declared if item.name == name]
    if not matching:
        names = ", ".join(item.name for item in declared) or "none"
        raise ConfigurationError(
            f"no {kind} {name!r} is declared (declared: {names})",
            next_step=f"name one of them, or declare it as [[{kind}]]",
        )
    return matching[0]


def _inconsistencies(table: dict[str, Any]) -> list[str]:
    """Return contradictions in a raw declaration, which may have other faults, too."""
    groups, volumes, shares = (_tables(table.get(name)) for name in ("security_group", "volume", "share"))
    faults = []
    for role, site in table["sites"].items() if isinstance(table.get("sites"), dict) else ():
        if isinstance(site, dict) and {"cloud", "auth_url"} <= {*site}:
            faults.append(f"sites.{role}: give cloud or auth_url; an entry of clouds.yaml has its own auth_url")
    if "server" not in table:
        faults += [f"[{name}] needs [server]" for name in ("lease", "floating_ip", "host") if name in table]
        faults += [
            f"{kind} {item.get('name')}: mount needs [server]"
            for kind, items in (("volume", volumes), ("share", shares))
            for item in items
            if "mount" in item
        ]
    faults += [fault for lease in _tables([table.get("lease")]) for fault in _lease_inconsistencies(lease)]
    if "lease" not in table and any(item.get("reserve") is True for item in _tables([table.get("floating_ip")])):
        faults.append("[floating_ip] reserve needs [lease]")
    if "network" in table and any("hours" not in lease for lease in _tables([table.get("lease")]) or [{}]):
        faults.append("[network] needs [lease] with `hours`, which reserves it")
    faults += _duplicates("[[security_group]] name", [item.get("name") for item in groups])
    faults += _duplicates("[[volume]] name", [item.get("name") for item in volumes])
    faults += _duplicates("[[share]] name", [item.get("name") for item in shares])
    taken = {item.get("name") for item in volumes if isinstance(item.get("name"), str)}
    faults += [
        f"share {item['name']}: the name is taken by a [[volume]]"
        for item in shares
        if isinstance(item.get("name"), str) and item["name"] in taken
    ]
    faults += _duplicates("the mount point", [item.get("mount") for item in [*volumes, *shares]])
    boots = any("boot_volume" in server for server in _tables([table.get("server")]))
    if boots and any(item.get("name") == "boot" for item in volumes):
        faults.append("volume boot: the name is taken by [server.boot_volume]")
    if "credentials" in table and "bucket" not in table:
        faults.append("[credentials] needs [bucket]")
    buckets = _tables([table.get("bucket")])
    names = [table.get("name"), *(item.get("name") for item in [*volumes, *shares, *buckets])]
    faults += [f"name {name!r}: replace it by your own netID" for name in names if PLACEHOLDER in str(name)]
    return faults


def _lease_inconsistencies(lease: dict[str, Any]) -> list[str]:
    if "use" in lease:
        others = [name for name in ("hours", "start", "node_type") if name in lease]
        return [f"lease.{name}: belongs to a new lease, and `use` names an existing one" for name in others]
    return [] if "hours" in lease else ["lease.hours: is missing; or name an existing lease with `use`"]


def _fill_in(table: dict[str, Any]) -> None:
    """Set defaults that depend on other tables: flavor and time limits of bare metal, and the reserved network."""
    (lease, server), limits = (_tables([table.get(name)]) for name in ("lease", "server")), table.get("limits", {})
    if any("node_type" in item for item in lease):
        for item in server:
            item.setdefault("flavor", BARE_METAL)
    for network in _tables([table.get("network")]):
        for item in server:
            item.setdefault("network", network.get("name"))
    if any(item.get("flavor") == BARE_METAL for item in server) and isinstance(limits, dict):
        table["limits"] = BARE_METAL_LIMITS | limits


def _parse_start(value: Any) -> datetime:
    """Return a start in UTC. Without a time zone, it is in UTC, as in Blazar."""
    try:
        start = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError('must be a time such as "2026-12-01 09:00" (UTC) or "2026-12-01 09:00-05:00"') from None
    if start.second or start.microsecond:
        raise ValueError("must be a whole minute")
    return start.astimezone(UTC) if start.tzinfo else start.replace(tzinfo=UTC)


def _tables(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _duplicates(what: str, values: list[Any]) -> list[str]:
    names = [value for value in values if isinstance(value, str)]
    return [f"{what} {name!r} is declared twice" for name in sorted({name for name in names if names.count(name) > 1})]


def _source(text: str) -> str:
    try:
        return text if text == CALLER else parse_network(text)
    except ValueError as error:
        raise ValueError(f"{error}, nor {CALLER!r}") from None


def parse_network(text: str) -> str:
    """Return an address or a network as a network: 192.0.2.7 is 192.0.2.7/32."""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(f"{text!r} is neither an address nor a network such as 192.0.2.0/24") from None


def load_declaration(path: Path) -> Declaration:
    """Read a declaration. Raises ConfigurationError with every fault."""
    see = "examples are in provision/examples/, and provision/README.md describes every key"
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no declaration {path}", next_step=f"copy one to it, or name yours with --file; {see}"
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be read: {error.strerror}", next_step="name another file with --file, or fix its mode"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} isn't valid TOML: {error}", next_step=see) from None
    _fill_in(table)
    faults = _inconsistencies(table)  # here, since pydantic skips model-level checks if a field is invalid
    try:
        declared = Declaration.model_validate(table)
    except ValidationError as error:
        faults = [_explain(fault) for fault in error.errors()] + faults
    if faults:
        raise ConfigurationError.of_faults([f"{path}: {fault}" for fault in faults], next_step=see)
    return declared


def _explain(fault: Any) -> str:
    """Describe a fault of pydantic by its key and what is expected there."""
    location = ".".join(str(part + 1) if isinstance(part, int) else str(part) for part in fault["loc"])
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    message = {"extra_forbidden": "no such key", "missing": "is missing"}.get(fault["type"], message)
    return f"{location}: {message}"
