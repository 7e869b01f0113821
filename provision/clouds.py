"""One connection per site, and what clouds answer put in words.

openstacksdk is typed in parts only: what comes from it is `Any` here and in the modules that call it, and leaves
them as frozen values.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import openstack
from keystoneauth1 import exceptions as ksa
from keystoneauth1.session import Session
from openstack import exceptions as sdk
from openstack.config import OpenStackConfig

from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.progress import Reporter
from provision.declaration import Limits, Site, Sites

T = TypeVar("T")
POLL_SECONDS = 0.3
SLOWEST_POLL_SECONDS = 3.0
AGAIN = "run the same command again: it finds what was made and goes on"
PASSING = [502, 503, 504]
"""Statuses that say nothing about the request itself."""
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What comes of an answer that has another form than the API's."""


class TooLate(ServiceError):
    """What was waited for didn't come about in its time."""


class CarefulSession(Session):  # type: ignore[misc,unused-ignore]
    """Repeats what is safe to repeat, reading and logging in, after a lost connection or a passing fault; nothing else.

    A request that makes something may have been carried out when its answer got lost: repeating it would make a second.
    """

    def request(self, url: str, method: str, **options: Any) -> Any:  # type: ignore[override]
        if method in ("GET", "HEAD") or url.endswith("/auth/tokens"):
            options["connect_retries"] = max(3, options.get("connect_retries") or 0)
            options["status_code_retries"] = max(3, options.get("status_code_retries") or 0)
            options["retriable_status_codes"] = PASSING
        else:
            options["connect_retries"] = options["status_code_retries"] = 0
        return super().request(url, method, **options)


class Cloud:
    """A site: its connection, made at first use."""

    def __init__(self, role: str, site: Site, request_seconds: float) -> None:
        self.role = role
        self.site = site
        self.request_seconds = request_seconds

    def __str__(self) -> str:
        name = f"cloud {self.site.cloud}" if self.site.cloud else "the cloud of OS_CLOUD or OS_*"
        return f"{name}{f', region {self.site.region}' if self.site.region else ''}"

    @cached_property
    def connection(self) -> Any:
        """The openstacksdk connection, with a token."""
        with explained(self, "log in"):
            connection = openstack.connection.Connection(config=self._settings())
            connection.session.get_token()  # authorize() hides what went wrong
        return connection

    def _settings(self) -> Any:
        """Of clouds.yaml and OS_*; openstacksdk takes the first for what it should be."""
        options: dict[str, Any] = {"region_name": self.site.region} if self.site.region else {}
        try:
            config = OpenStackConfig(session_constructor=CarefulSession, app_name="larder")
            return config.get_one(cloud=self.site.cloud, api_timeout=self.request_seconds, **options)
        except (TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self}: clouds.yaml has another shape than expected ({error})",
                next_step="below `clouds:` each entry is a table, with a table `auth`: provision/README.md shows two",
            ) from error

    @property
    def access(self) -> Any:
        """What Keystone says of our token: user, project, roles, catalog."""
        session = self.connection.session
        with explained(self, "log in"):
            return session.auth.get_access(session)

    @property
    def project_id(self) -> str:
        return str(self.access.project_id)

    @property
    def user_id(self) -> str:
        return str(self.access.user_id)

    @property
    def region(self) -> str:
        return str(self.connection.config.get_region_name() or "")

    @property
    def credential_kind(self) -> str:
        """How we logged in: password, token, application credential."""
        methods = self.access._data["token"].get("methods", [])
        return "application credential" if "application_credential" in methods else " and ".join(methods)

    @property
    def restricted(self) -> bool:
        """Whether this is an application credential that may make no keys and no leases."""
        credential = self.access._data["token"].get("application_credential")
        return bool(credential and credential.get("restricted", True))

    def endpoint(self, service: str) -> str:
        """A service's address from the catalog, empty when this site doesn't have it."""
        override = self.connection.config.get_endpoint(service)
        if override:
            return str(override)
        found = self.access.service_catalog.url_for(
            service_type=service, interface="public", region_name=self.region or None
        ) if self._offers(service) else ""  # fmt: skip
        return str(found or "")

    def _offers(self, service: str) -> bool:
        endpoints = self.access.service_catalog.get_endpoints(service_type=service, interface="public")
        return any(not self.region or item.get("region_id", item.get("region")) == self.region
                   for items in endpoints.values() for item in items)  # fmt: skip

    @property
    def regions(self) -> list[str]:
        """The regions that the catalog names."""
        endpoints = self.access.service_catalog.get_endpoints(interface="public")
        return sorted({item.get("region_id") or item.get("region") for items in endpoints.values() for item in items})

    def check_region(self) -> None:
        """ConfigurationError when the catalog doesn't know our region."""
        if self.region and self.region not in self.regions:
            raise ConfigurationError(
                f"{self}: there is no region {self.region!r}; the catalog has: {', '.join(self.regions) or 'none'}",
                next_step=f"set region_name in clouds.yaml, OS_REGION_NAME or [sites] {self.role} to one of them",
            )


@dataclass(frozen=True)
class Clouds:
    """The two sites; the same object twice when they are one."""

    compute: Cloud
    objects: Cloud

    @property
    def both(self) -> list[Cloud]:
        return [self.compute] if self.compute is self.objects else [self.compute, self.objects]


def connect(sites: Sites, limits: Limits) -> Clouds:
    """The sites of a declaration. Nothing is asked before it is used."""
    compute = Cloud("compute", sites.compute, limits.request)
    if sites.objects in (None, sites.compute):
        return Clouds(compute, compute)
    assert sites.objects
    return Clouds(compute, Cloud("objects", sites.objects, limits.request))


@contextmanager
def explained(cloud: Cloud, doing: str) -> Iterator[None]:
    """Turn what openstacksdk and keystoneauth raise into an error with its cause and the next step."""
    try:
        yield
    except LarderError:
        raise
    except (sdk.SDKException, ksa.ClientException, *UNREADABLE) as error:
        raise explain(error, cloud, doing) from error


def explain(error: Exception, cloud: Cloud, doing: str) -> LarderError:
    """The LarderError for what a cloud answered while we were `doing` something."""
    message = str(error).strip()
    head = f"{cloud}: can't {doing}"
    if isinstance(error, UNREADABLE) and not isinstance(error, sdk.SDKException | ksa.ClientException):
        return ServiceError(
            f"{head}: the answer has another form than expected ({type(error).__name__}: {message[:100]!r})",
            next_step=f"check the address in clouds.yaml; {AGAIN}",
        )
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    if isinstance(error, sdk.ConfigException | ksa.AuthPluginException | ksa.MissingRequiredOptions):
        return ConfigurationError(
            f"{head}: {message}",
            next_step="name an entry of clouds.yaml (in . or ~/.config/openstack; one that can't be read or is no YAML "
            "is passed over), or set the OS_* variables",
        )
    if status == 401:
        return ConfigurationError(
            f"{head}: Keystone refuses the login: the password is wrong, or the application credential is wrong, "
            "expired or deleted (Keystone doesn't say which)",
            next_step="correct clouds.yaml or OS_*; a new application credential is made in the site's web interface "
            "under Identity → Application Credentials",
        )  # fmt: skip
    if isinstance(error, ksa.EndpointNotFound | ksa.catalog.CatalogException):
        return ConfigurationError(
            f"{head}: {message or 'the catalog has no such service there'}",
            next_step="check the region: provision's command `doctor` lists those that the catalog has",
        )
    if isinstance(error, ksa.ConnectFailure | ksa.DiscoveryFailure | ksa.SSLError):
        return ServiceError(
            f"{head}: no connection: {message[:300]}", next_step=f"check network and address; then {AGAIN}"
        )
    if is_quota(message):
        return InputError(
            f"{head}: the project's quota is used up: {message[:300]}",
            next_step="free something (`doctor` shows the quota), declare less, or ask the site for more",
        )
    if status == 403:
        return ConfigurationError(
            f"{head}: not allowed: {message[:300]}",
            next_step="an application credential must be unrestricted to make leases and keys; else ask who runs it",
        )
    if status == 413:
        return ServiceError(f"{head}: the cloud asks for fewer requests: {message[:200]}", next_step=AGAIN)
    if status and int(status) >= 500:
        return ServiceError(f"{head}: the cloud failed ({status}): {message[:300]}", next_step=AGAIN)
    return ServiceError(f"{head}: {message[:400] or type(error).__name__}", next_step=AGAIN)


def is_quota(message: str) -> bool:
    """Whether a refusal is about quota, which each service words and numbers differently."""
    return any(
        word in message for word in ("uota exceeded", "ExceedsAvailableQuota", "LimitExceeded", "exceeds allowed")
    )


def passing(error: Exception) -> bool:
    """Whether a request may have been carried out although it failed: its answer got lost."""
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    lost = isinstance(error, ksa.ConnectFailure | ksa.UnknownConnectionError)
    return lost or isinstance(error, UNREADABLE) or (bool(status) and int(status or 0) in PASSING)


def make(cloud: Cloud, doing: str, create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Create something once. When the answer gets lost, look whether it was made instead of asking again."""
    try:
        return create()
    except (sdk.SDKException, ksa.ClientException, *UNREADABLE) as error:
        if passing(error):
            with explained(cloud, doing):
                found = find()
            if found is not None:
                return found
        raise explain(error, cloud, doing) from error


def wait(reporter: Reporter, what: str, look: Callable[[], T | None], seconds: float, next_step: str) -> T:
    """Wait until `look` returns something. TooLate after `seconds`.

    Polls at growing intervals and says on stderr what is waited for.
    """
    begin = said = time.monotonic()
    pause = POLL_SECONDS
    while True:
        found = look()
        if found is not None:
            return found
        now = time.monotonic()
        if now - begin >= seconds:
            raise TooLate(f"{what}: not after {seconds:.0f} s", next_step=next_step)
        if now - said >= 10:
            said = now
            reporter.event("waiting", f"{what}: waiting for {now - begin:.0f} s")
        time.sleep(min(pause, max(0.01, begin + seconds - now)))
        pause = min(pause * 1.3, SLOWEST_POLL_SECONDS)
