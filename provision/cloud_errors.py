"""Translate errors of clouds into errors with cause and next step.

The reason that a service gives is shown, whatever the form of its answer. Its kind decides whether a retry makes sense:
what a service refuses stays refused (exit codes 2 and 3), and what failed may succeed later (exit code 5).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from keystoneauth1 import exceptions as ksa
from openstack import exceptions as sdk

from larder.errors import ConfigurationError, InputError, LarderError, ServiceError

if TYPE_CHECKING:
    from provision.clouds import Cloud

RUN_AGAIN = "run the same command again: it finds what was created, and continues"
REFUSED = "the service refuses it, so a retry won't help: change the declaration as the reason says, or ask the site"
UNRESTRICTED = "use an unrestricted application credential for leases and keys, or ask the site's operators"
LOG_IN = "log in"
TEMPORARY_STATUSES = [502, 503, 504]
"""Statuses of temporary failures, independent of the request."""
GATEWAY_STATUSES = (502, 504)
"""Statuses by which a gateway gives up, although the service behind it may go on."""
TRY_LATER_STATUSES = (409, 413, 423, 425, 429)
"""Statuses of requests that may be accepted later: a resource is busy, or there were too many requests."""
MALFORMED_ANSWER_ERRORS = (ValueError, KeyError, IndexError, TypeError, AttributeError)
"""Exceptions caused by an answer that doesn't have the API's form."""
CLOUD_ERRORS = (sdk.SDKException, ksa.ClientException, *MALFORMED_ANSWER_ERRORS)
MAX_REASON = 400
_REASONS = ("error_message", "faultstring", "message", "detail", "title", "Message", "reason", "Code")
"""Names of the reason in JSON answers, the most telling first: Blazar's, Ironic's, those of most services, RGW's."""
_MAX_DEPTH = 4
NO_QUOTA = (
    "uota exceeded",
    "ExceedsAvailableQuota",
    "LimitExceeded",
    "exceeds allowed",
    "over quota",
    "TooManyBuckets",
)
TOKEN_METHODS = ("token", "oidcaccesstoken", "openid", "admin_token")


class ServiceMissingError(ConfigurationError):
    """A site doesn't offer a service that a command needs."""


@contextmanager
def translate_cloud_errors(cloud: Cloud, action: str) -> Iterator[None]:
    """Translate errors of openstacksdk and keystoneauth into errors with cause and next step."""
    try:
        yield
    except LarderError:
        raise
    except CLOUD_ERRORS as error:
        raise translate_cloud_error(error, cloud, action) from error


def translate_cloud_error(error: Exception, cloud: Cloud, action: str) -> LarderError:
    """Return the LarderError for a cloud's error during an action, such as "list servers"."""
    head, reason = f"{cloud}: can't {action}", reason_of(error)
    if isinstance(error, MALFORMED_ANSWER_ERRORS) and not isinstance(error, sdk.SDKException | ksa.ClientException):
        if action == LOG_IN and cloud.is_token_login:  # a site may lead to its login page instead
            return _login_error(401, head, "the site answers with something else than a token", cloud)
        return ServiceError(
            f"{head}: the answer has another form than expected ({type(error).__name__}: {reason[:100]!r})",
            next_step=f"check the address in clouds.yaml; {RUN_AGAIN}",
        )
    if isinstance(error, sdk.ConfigException | ksa.AuthPluginException | ksa.MissingRequiredOptions):
        return ConfigurationError(
            f"{head}: {reason}",
            next_step="name an entry of clouds.yaml (in . or ~/.config/openstack; one that can't be read or is no YAML "
            'is passed over), or set the OS_* variables; "Log in" in provision/README.md shows one',
        )
    if isinstance(error, ksa.ConnectFailure | ksa.ConnectTimeout | ksa.DiscoveryFailure | ksa.SSLError):
        return ServiceError(
            f"{head}: no connection: {reason}", next_step=f"check network and address; then {RUN_AGAIN}"
        )
    status = status_of(error)
    if status == 401 and _is_refused_in_spite_of_login(error, action, cloud):
        return _translate_refusal(403, head, reason, cloud)
    if status == 401 or (status == 404 and action == LOG_IN):
        return _login_error(status, head, reason, cloud)
    return _translate_refusal(status, head, reason, cloud)


def _is_refused_in_spite_of_login(error: Exception, action: str, cloud: Cloud) -> bool:
    """Return whether a service answers 401 although Keystone has just renewed the login.

    Ceph's gateway does so if none of the user's roles is among those that it accepts. keystoneauth logs in again at the
    first 401; if Keystone refuses that, the answer is Keystone's. A login by a token can't be renewed.
    """
    response = getattr(error, "response", None)
    address = str(getattr(response, "url", None) or "")
    return action != LOG_IN and not cloud.is_token_login and bool(address) and "/auth/tokens" not in address


def _translate_refusal(status: int, head: str, reason: str, cloud: Cloud) -> LarderError:
    """Return the error for an answer with a status; 0 for errors without one."""
    if is_quota(reason):
        return InputError(
            f"{head}: the project's quota is used up: {reason}",
            next_step="delete resources (`doctor` shows the quota), declare fewer, or ask the site for more",
        )
    if status == 403:
        is_restricted = "connection" in cloud.__dict__ and cloud.restricted  # else the login itself was refused
        return ConfigurationError(
            f"{head}: not allowed: {reason}", next_step=UNRESTRICTED if is_restricted else REFUSED
        )
    if status == 404:
        return InputError(
            f"{head}: not found: {reason}",
            next_step="it may have been deleted meanwhile: see `status`, then run the same command again",
        )
    if status in (413, 429):
        return ServiceError(
            f"{head}: the cloud asks for fewer requests: {reason}", next_step=f"wait a minute, then {RUN_AGAIN}"
        )
    if status in TRY_LATER_STATUSES:
        return ServiceError(f"{head}: not in its present state: {reason}", next_step=f"wait a minute, then {RUN_AGAIN}")
    if 400 <= status < 500:
        return InputError(f"{head}: refused ({status}): {reason}", next_step=REFUSED)
    if status >= 500:
        return ServiceError(f"{head}: the cloud failed ({status}): {reason}", next_step=RUN_AGAIN)
    return ServiceError(f"{head}: {reason}", next_step=RUN_AGAIN)


def _login_error(status: int, head: str, reason: str, cloud: Cloud) -> ConfigurationError:
    if cloud.is_token_login:  # Keystone answers 404 or 401 if it has expired
        hub = f"; the JupyterHub gives no new one: {cloud.hub_fault}" if cloud.hub_fault else ""
        return ConfigurationError(
            f"{head}: the token is refused, since it has expired or was revoked: {reason}{hub}",
            next_step="get a new token by a new login at the site (at Chameleon's Jupyter: File, Hub Control Panel, "
            "log out and in, and start the server again), or use an application credential, which doesn't expire "
            "within hours",
        )
    if status == 404:
        return ConfigurationError(
            f"{head}: no Keystone answers at this address: {reason}",
            next_step="correct auth_url in clouds.yaml, or OS_AUTH_URL; it often ends with /v3",
        )
    return ConfigurationError(
        f"{head}: Keystone refuses the login: the password is wrong, or the application credential is wrong, "
        "expired or deleted (Keystone doesn't say which)",
        next_step="correct clouds.yaml or OS_*; create a new application credential in the site's web interface "
        "under Identity → Application Credentials",
    )


def status_of(error: Exception) -> int:
    """Return the HTTP status of an answer that is an error, or 0."""
    status = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    return int(status or 0)


def reason_of(error: Exception) -> str:
    """Return the reason that a service gives, in one line; without one, what the client library says."""
    response = getattr(error, "response", None)
    given = read_reason(response) if response is not None else ""
    return " ".join((given or str(error).strip() or type(error).__name__).split())[:MAX_REASON]


def read_reason(response: Any) -> str:
    """Return the reason in an answer that is an error, or ""."""
    try:
        text = str(response.text or "").strip()
    except (AttributeError, ValueError, LookupError):
        return ""
    try:
        return _find_reason(json.loads(text), _MAX_DEPTH)
    except (ValueError, RecursionError):
        return _strip_markup(text) if text.startswith("<") else text


def _find_reason(value: Any, depth: int) -> str:
    """Return the reason in a JSON value. Some services nest it, or put JSON into a string."""
    if isinstance(value, str):
        if depth and value.startswith("{"):
            try:
                return _find_reason(json.loads(value), depth - 1) or value
            except (ValueError, RecursionError):
                return value
        return value
    if not depth or not isinstance(value, dict | list):
        return ""
    inner = [value[name] for name in _REASONS if name in value] if isinstance(value, dict) else []
    inner += list(value.values() if isinstance(value, dict) else value)
    found = (_find_reason(item, depth - 1) for item in inner if isinstance(item, str | dict | list))
    return next((text for text in found if text), "")


def _strip_markup(text: str) -> str:
    """Return the text of an HTML or XML answer, without its title, which repeats the heading."""
    text = re.sub(r"<(title|script|style)\b.*?</\1>", " ", text, flags=re.DOTALL | re.IGNORECASE)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


def is_quota(reason: str) -> bool:
    """Return whether a refusal is about quota. Services use different words and codes for that."""
    return any(words in reason for words in NO_QUOTA)


def may_have_succeeded(error: Exception) -> bool:
    """Return whether a failed request may have succeeded, because its answer was lost."""
    is_malformed = isinstance(error, MALFORMED_ANSWER_ERRORS)
    return _is_answer_lost(error) or is_malformed or status_of(error) in TEMPORARY_STATUSES


def may_still_be_working(error: Exception) -> bool:
    """Return whether a cloud may go on with a failed request, because nobody has told us how it ended."""
    return _is_answer_lost(error) or status_of(error) in GATEWAY_STATUSES


def _is_answer_lost(error: Exception) -> bool:
    """Return whether a connection ended without an answer, or it took too long."""
    return isinstance(error, ksa.ConnectFailure | ksa.ConnectTimeout | ksa.UnknownConnectionError)
