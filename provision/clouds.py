"""Connect to the sites, and translate their errors.

openstacksdk is only partly typed. Its values are `Any` here and in the modules that call it, which return frozen
values.
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
from provision.declaration import Site, Sites, TimeLimits

T = TypeVar("T")
POLL_SECONDS = 0.3
SLOWEST_POLL_SECONDS = 3.0
RUN_AGAIN = "run the same command again: it finds what was created, and continues"
TEMPORARY_STATUSES = [502, 503, 504]
"""Statuses of temporary failures, independent of the request."""
MALFORMED_ANSWER_ERRORS = (ValueError, KeyError, IndexError, TypeError, AttributeError)
"""Exceptions caused by an answer that doesn't have the API's form."""


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

    def __str__(self) -> str:
        name = f"cloud {self.site.cloud}" if self.site.cloud else "the cloud of OS_CLOUD or OS_*"
        return f"{name}{f', region {self.site.region}' if self.site.region else ''}"

    @cached_property
    def connection(self) -> Any:
        """The authenticated openstacksdk connection."""
        with translate_cloud_errors(self, "log in"):
            connection = openstack.connection.Connection(config=self._settings())
            connection.session.get_token()  # authorize() hides the cause of a failure
        return connection

    def _settings(self) -> Any:
        """Return the settings of clouds.yaml and OS_*. openstacksdk doesn't validate the shape of clouds.yaml."""
        options: dict[str, Any] = {"region_name": self.site.region} if self.site.region else {}
        try:
            config = OpenStackConfig(session_constructor=SafeRetrySession, app_name="larder")
            return config.get_one(cloud=self.site.cloud, api_timeout=self.request_seconds, **options)
        except (TypeError, AttributeError) as error:
            raise ConfigurationError(
                f"{self}: clouds.yaml has another shape than expected ({error})",
                next_step="below `clouds:` each entry is a table, with a table `auth`: provision/README.md shows two",
            ) from error

    @property
    def access(self) -> Any:
        """Keystone's facts about our token: user, project, roles, catalog."""
        session = self.connection.session
        with translate_cloud_errors(self, "log in"):
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

    def endpoint(self, service: str) -> str:
        """Return a service's address from the catalog, or "" if this site lacks the service."""
        override = self.connection.config.get_endpoint(service)
        if override:
            return str(override)
        message = (
            self.access.service_catalog.url_for(
                service_type=service, interface="public", region_name=self.region or None
            )
            if self._offers(service)
            else ""
        )
        return str(message or "")

    def _offers(self, service: str) -> bool:
        endpoints = self.access.service_catalog.get_endpoints(service_type=service, interface="public")
        return any(
            not self.region or item.get("region_id", item.get("region")) == self.region
            for items in endpoints.values()
            for item in items
        )

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


@contextmanager
def translate_cloud_errors(cloud: Cloud, action: str) -> Iterator[None]:
    """Translate errors of openstacksdk and keystoneauth into errors with cause and next step."""
    try:
        yield
    except LarderError:
        raise
    except (sdk.SDKException, ksa.ClientException, *MALFORMED_ANSWER_ERRORS) as error:
        raise translate_cloud_error(error, cloud, action) from error


def translate_cloud_error(error: Exception, cloud: Cloud, action: str) -> LarderError:
    """Return the LarderError for a cloud's error during an action, such as "list servers"."""
    message = str(error).strip()
    head = f"{cloud}: can't {action}"
    if isinstance(error, MALFORMED_ANSWER_ERRORS) and not isinstance(error, sdk.SDKException | ksa.ClientException):
        return ServiceError(
            f"{head}: the answer has another form than expected ({type(error).__name__}: {message[:100]!r})",
            next_step=f"check the address in clouds.yaml; {RUN_AGAIN}",
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
            next_step="correct clouds.yaml or OS_*; create a new application credential in the site's web interface "
            "under Identity → Application Credentials",
        )
    if isinstance(error, ksa.EndpointNotFound | ksa.catalog.CatalogException):
        return ConfigurationError(
            f"{head}: {message or 'the catalog has no such service there'}",
            next_step="check the region: provision's command `doctor` lists those that the catalog has",
        )
    if isinstance(error, ksa.ConnectFailure | ksa.DiscoveryFailure | ksa.SSLError):
        return ServiceError(
            f"{head}: no connection: {message[:300]}", next_step=f"check network and address; then {RUN_AGAIN}"
        )
    if is_quota(message):
        return InputError(
            f"{head}: the project's quota is used up: {message[:300]}",
            next_step="delete resources (`doctor` shows the quota), declare fewer, or ask the site for more",
        )
    if status == 403:
        return ConfigurationError(
            f"{head}: not allowed: {message[:300]}",
            next_step="use an unrestricted application credential for leases and keys, or ask the site's operators",
        )
    if status == 413:
        return ServiceError(f"{head}: the cloud asks for fewer requests: {message[:200]}", next_step=RUN_AGAIN)
    if status and int(status) >= 500:
        return ServiceError(f"{head}: the cloud failed ({status}): {message[:300]}", next_step=RUN_AGAIN)
    return ServiceError(f"{head}: {message[:400] or type(error).__name__}", next_step=RUN_AGAIN)


def is_quota(message: str) -> bool:
    """Return whether a refusal is about quota. Services use different words and codes for that."""
    return any(
        word in message for word in ("uota exceeded", "ExceedsAvailableQuota", "LimitExceeded", "exceeds allowed")
    )


def may_have_succeeded(error: Exception) -> bool:
    """Return whether a failed request may have succeeded, because its answer was lost."""
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    is_answer_lost = isinstance(error, ksa.ConnectFailure | ksa.UnknownConnectionError)
    return (
        is_answer_lost
        or isinstance(error, MALFORMED_ANSWER_ERRORS)
        or (bool(status) and int(status or 0) in TEMPORARY_STATUSES)
    )


def create_once(cloud: Cloud, action: str, create: Callable[[], T], find: Callable[[], T | None]) -> T:
    """Create something once. If the answer is lost, search for the result instead of sending the request again."""
    try:
        return create()
    except (sdk.SDKException, ksa.ClientException, *MALFORMED_ANSWER_ERRORS) as error:
        if may_have_succeeded(error):
            with translate_cloud_errors(cloud, action):
                existing = find()
            if existing is not None:
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
