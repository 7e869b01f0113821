"""Connect to the sites, and translate their errors.

openstacksdk is only partly typed. Its values are `Any` here and in the modules that call it, which return frozen
values.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import openstack
import os_service_types
from keystoneauth1.session import Session
from openstack.config import OpenStackConfig

from larder.errors import ConfigurationError, LarderError, ServiceError
from larder.progress import Reporter
from provision import hub
from provision.cloud_errors import (
    CLOUD_ERRORS,
    LOG_IN,
    TEMPORARY_STATUSES,
    TOKEN_METHODS,
    ServiceMissingError,
    may_have_succeeded,
    status_of,
    translate_cloud_error,
    translate_cloud_errors,
)
from provision.declaration import Site, Sites, TimeLimits
from provision.in_flight import Note

T = TypeVar("T")
_SERVICE_TYPES = os_service_types.ServiceTypes()
POLL_SECONDS = 0.3
SLOWEST_POLL_SECONDS = 3.0
SERVICES = {
    "identity": "S3 keys",
    "compute": "servers",
    "image": "images",
    "network": "networks",
    "block-storage": "volumes",
    "shared-file-system": "shares",
    "reservation": "leases",
    "object-store": "buckets",
}
"""The services that this package uses, as catalogs name them, and what they are for."""


class WaitTimeoutError(ServiceError):
    """A wait timed out."""


class SafeRetrySession(Session):  # type: ignore[misc,unused-ignore]
    """Retries only reads and logins after a lost connection or a temporary failure.

    A request that creates something may have succeeded even if its answer was lost: a retry would create a second one.
    """

    def request(self, url: str, method: str, **options: Any) -> Any:  # type: ignore[override]
        """Send a request; only those that change nothing are retried."""
        if method in ("GET", "HEAD") or url.endswith("/auth/tokens"):
            options["connect_retries"] = max(3, options.get("connect_retries") or 0)
            options["status_code_retries"] = max(3, options.get("status_code_retries") or 0)
            options["retriable_status_codes"] = TEMPORARY_STATUSES
        else:
            options["connect_retries"] = options["status_code_retries"] = 0
        return super().request(url, method, **options)


class Cloud:
    """A site, connected at first use."""

    def __init__(self, role: str, site: Site, request_seconds: float) -> None:
        self.role = role
        self.site = site
        self.request_seconds = request_seconds
        self._config: Any = None
        self.hub_fault = ""
        """Why a JupyterHub gives no new access token, if it was asked for one."""

    def __str__(self) -> str:
        address = f"the cloud at {self.site.auth_url}" if self.site.auth_url else "the cloud of OS_CLOUD or OS_*"
        name = f"cloud {self.site.cloud}" if self.site.cloud else address
        return f"{name}{f', region {self.site.region}' if self.site.region else ''}"

    @cached_property
    def connection(self) -> Any:
        """The authenticated openstacksdk connection."""
        with translate_cloud_errors(self, LOG_IN):
            self._config = self._settings()
            connection = openstack.connection.Connection(config=self._config)
            _log_in(connection.session)
            self._require_project(connection.session)
        return connection

    def _settings(self) -> Any:
        """Return the settings of clouds.yaml and OS_*. openstacksdk doesn't validate the shape of clouds.yaml."""
        options: dict[str, Any] = {"region_name": self.site.region} if self.site.region else {}
        options["auth"] = {"auth_url": self.site.auth_url} if self.site.auth_url else {}
        if self.site.cloud is None and hub.gives_tokens(os.environ):
            try:
                options["auth"]["access_token"] = hub.fetch_access_token(os.environ)
            except hub.HubError as error:  # the one in OS_ACCESS_TOKEN may still be valid
                self.hub_fault = str(error)
        try:
            config = OpenStackConfig(session_constructor=SafeRetrySession, app_name="larder")
            from_environment = config.cloud_config["clouds"].get(config.envvar_key)
            if from_environment and self.site.region:  # else no region but OS_REGION_NAME is accepted
                from_environment["region_name"] = self.site.region
            return config.get_one(cloud=self.site.cloud, api_timeout=self.request_seconds, **options)
        except (TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self}: clouds.yaml has another shape than expected ({error})",
                next_step="below `clouds:` each entry is a table, with a table `auth`: provision/README.md shows two",
            ) from error

    def _require_project(self, session: Any) -> None:
        """Raise ConfigurationError if the login is for no project: such a login has no catalog."""
        access = session.auth.get_access(session)
        if access.project_id:
            return
        base = str(self._config.get_auth_args()["auth_url"]).rstrip("/").removesuffix("/v3")
        answer = session.get(f"{base}/v3/auth/projects").json()
        names = sorted(str(project["name"]) for project in answer["projects"])
        raise ConfigurationError(
            f"{self}: the login names no project; {access.username} has: {', '.join(names) or 'none'}",
            next_step="set OS_PROJECT_NAME and OS_PROJECT_DOMAIN_NAME, or project_name and project_domain_name in "
            "clouds.yaml",
        )

    @property
    def access(self) -> Any:
        """Keystone's facts about our token: user, project, roles, catalog."""
        session = self.connection.session
        with translate_cloud_errors(self, LOG_IN):
            return session.auth.get_access(session)

    @property
    def project_id(self) -> str:
        """Id of the project that the credentials belong to."""
        return str(self.access.project_id)

    @property
    def user_id(self) -> str:
        """Id of the user that the credentials belong to."""
        return str(self.access.user_id)

    @property
    def region(self) -> str:
        """Name of the site's region; empty if it has none."""
        return str(self.connection.config.get_region_name() or "")

    @property
    def credential_kind(self) -> str:
        """The login method: password, token, application credential."""
        methods = self.access._data["token"].get("methods", [])
        return "application credential" if "application_credential" in methods else " and ".join(methods)

    @property
    def restricted(self) -> bool:
        """Whether this is an application credential that may not create keys and leases."""
        credential = self.access._data["token"].get("application_credential")
        return bool(credential and credential.get("restricted", True))

    @property
    def is_token_login(self) -> bool:
        """Whether the login uses a token, which expires within hours and can't be renewed."""
        kind = str(self._config.config.get("auth_type") or "") if self._config else ""
        return any(kind.endswith(method) for method in TOKEN_METHODS)

    def endpoint(self, service: str) -> str:
        """Return a service's address from the catalog, or "" if this site lacks the service."""
        config = self.connection.config
        if override := config.get_endpoint(service):
            return str(override)
        interface = str(config.get_interface(service) or "public").removesuffix("URL")
        # Not url_for(), which fails if two types of one service are in the catalog, and neither in this region.
        return next(
            (
                str(endpoint["url"])
                for item in self.access.service_catalog.normalize_catalog()
                if _SERVICE_TYPES.is_match(service, item["type"])
                for endpoint in item["endpoints"]
                if endpoint["interface"] == interface and self.region in ("", endpoint["region_name"])
            ),
            "",
        )

    def offers(self, service: str) -> bool:
        """Return whether this site has a service. Not every site has all of them."""
        return bool(self.endpoint(service))

    def missing_services(self) -> list[str]:
        """Return what this site doesn't offer: volumes, leases."""
        return [what for service, what in SERVICES.items() if not self.offers(service)]

    def require(self, *services: str) -> None:
        """Raise ServiceMissingError unless the site has all of these services."""
        if missing := [service for service in services if not self.offers(service)]:
            raise ServiceMissingError(
                f"{self} offers no {', no '.join(SERVICES[service] for service in missing)}: its catalog has no "
                f"service {', '.join(map(repr, missing))}{f' in region {self.region}' if self.region else ''}",
                next_step="remove what needs it from the declaration ([lease], [[volume]], [[share]], [bucket]); or "
                'name a site or region that has it: [sites] compute = { cloud = "…", region = "…" }, or objects',
            )

    def client(self, service: str) -> Any:
        """Return openstacksdk's client of a service. Raises ServiceMissingError if this site lacks the service."""
        self.require(service)
        with translate_cloud_errors(self, f"reach the service {service}"):
            return getattr(self.connection, service.replace("-", "_"))

    @property
    def regions(self) -> list[str]:
        """The regions in the catalog."""
        endpoints = self.access.service_catalog.get_endpoints(interface="public")
        return sorted({item.get("region_id") or item.get("region") for items in endpoints.values() for item in items})

    def check_region(self) -> None:
        """Raise ConfigurationError if the catalog lacks our region."""
        if self.region and self.region not in self.regions:
            raise ConfigurationError(
                f"{self}: there is no region {self.region!r}; the catalog has: {', '.join(self.regions) or 'none'}",
                next_step=f"set region_name in clouds.yaml, OS_REGION_NAME or [sites] {self.role} to one of them",
            )


def _log_in(session: Any) -> None:
    """Get a token, since openstacksdk's authorize() hides the cause of a failure."""
    try:
        session.get_token()
    except Exception as error:
        if type(error) is not Exception:
            raise
        # Keystoneauth's for a missing password.
        raise ConfigurationError(
            f"the login is incomplete: {error}", next_step="complete the entry in clouds.yaml, or the OS_* variables"
        ) from error


@dataclass(frozen=True)
class Clouds:
    """The two sites; the same object twice if they are one."""

    compute: Cloud
    objects: Cloud

    @property
    def both(self) -> list[Cloud]:
        """The sites, each once."""
        return [self.compute] if self.compute is self.objects else [self.compute, self.objects]


def configure_clouds(sites: Sites, limits: TimeLimits) -> Clouds:
    """Return the sites of a declaration, without connecting yet."""
    compute = Cloud("compute", sites.compute, limits.request)
    if sites.objects in (None, sites.compute):
        return Clouds(compute, compute)
    assert sites.objects
    return Clouds(compute, Cloud("objects", sites.objects, limits.request))


def create_once(
    cloud: Cloud, action: str, create: Callable[[], T], find: Callable[[], T | None], note: Note | None = None
) -> T:
    """Create or change something once. If the answer is lost, search for the result instead of asking again.

    Args:
        cloud: The site.
        action: What is done, for errors.
        create: Sends the request.
        find: Returns the result, if it is there.
        note: Tells the next run what to wait for if this one is killed; needed for all that could be created twice.
    """
    try:
        with note.kept_while_in_flight() if note else nullcontext():
            return create()
    except CLOUD_ERRORS as error:
        existing = None
        if may_have_succeeded(error):
            with translate_cloud_errors(cloud, action):
                existing = find()
        elif 400 <= status_of(error) < 500:  # another run may have been faster, and taken the name or the volume
            with suppress(LarderError), translate_cloud_errors(cloud, action):
                existing = find()
        if existing is not None:
            if note:
                note.remove()
            return existing
        raise translate_cloud_error(error, cloud, action) from error


def poll_until(reporter: Reporter, what: str, check: Callable[[], T | None], seconds: float, next_step: str) -> T:
    """Wait until `check` returns a value, and return it. Raises WaitTimeoutError after `seconds`.

    Polls at growing intervals, and reports on stderr.
    """
    begin = reported_at = time.monotonic()
    pause = POLL_SECONDS
    while True:
        result = check()
        if result is not None:
            return result
        now = time.monotonic()
        if now - begin >= seconds:
            raise WaitTimeoutError(f"{what}: not after {seconds:.0f} s", next_step=next_step)
        if now - reported_at >= 10:
            reported_at = now
            reporter.event("waiting", f"{what}: waiting for {now - begin:.0f} s")
        time.sleep(min(pause, max(0.01, begin + seconds - now)))
        pause = min(pause * 1.3, SLOWEST_POLL_SECONDS)
