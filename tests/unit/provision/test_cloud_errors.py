"""The reasons that services give, from recorded answers, and whether a retry makes sense."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
from keystoneauth1 import exceptions as ksa
from openstack import exceptions as sdk

from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from provision.cloud_errors import MAX_REASON, RUN_AGAIN, read_reason, translate_cloud_error
from provision.clouds import Cloud
from provision.declaration import Site

JSON, HTML, XML = "application/json", "text/html; charset=UTF-8", "application/xml"
LONG = "Lease duration of 3600000 seconds must be less than or equal to the maximum lease duration of 604800 seconds."
NO_ALLOCATION = "Reservation for project CH-1 would spend 1000.00 SUs, only 500.00 left"


def recorded(status: int, body: object, content_type: str = JSON) -> requests.Response:
    """An answer as a service sent it."""
    response = requests.Response()
    response.status_code, response.url = status, "http://cloud/v1/things"
    response.headers["Content-Type"] = content_type
    response._content = (body if isinstance(body, str) else json.dumps(body)).encode()
    response.request = cast(Any, SimpleNamespace(method="POST", url=response.url, headers={}))
    return response


def errors_of(response: requests.Response) -> list[Exception]:
    """Return the errors that keystoneauth and openstacksdk raise for an answer."""
    errors: list[Exception] = [ksa.from_response(response, "POST", response.url)]
    with pytest.raises(sdk.HttpException) as caught:
        sdk.raise_from_response(response)
    return [*errors, caught.value]


def translated(error: Exception, action: str = "create it", token: bool = False) -> LarderError:
    cloud = Cloud("compute", Site(cloud="kvm"), 1)
    cloud._config = SimpleNamespace(config={"auth_type": "v3oidcaccesstoken" if token else "password"})
    return translate_cloud_error(error, cloud, action)


@pytest.mark.parametrize(
    ("response", "reason", "kind"),
    [
        (recorded(400, {"error_code": 400, "error_message": LONG, "error_name": "BadRequest"}), LONG, InputError),
        (recorded(400, {"error_code": 400, "error_message": NO_ALLOCATION}), NO_ALLOCATION, InputError),
        (recorded(403, {"error_code": 403, "error_message": NO_ALLOCATION}), NO_ALLOCATION, ConfigurationError),
        (recorded(400, {"badRequest": {"code": 400, "message": "Invalid volume type"}}), "Invalid volume", InputError),
        (recorded(404, {"itemNotFound": {"code": 404, "message": "Server x is gone"}}), "Server x is gone", InputError),
        (recorded(409, {"conflictingRequest": {"message": "It is being deleted"}}), "being deleted", ServiceError),
        (recorded(413, {"overLimit": {"message": "VolumeLimitExceeded: 10"}}), "VolumeLimitExceeded", InputError),
        (recorded(429, {"overLimit": {"message": "Too many requests"}}), "Too many requests", ServiceError),
        (
            recorded(409, {"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for router"}}),
            "Quota exceeded for router",
            InputError,
        ),
        (
            recorded(400, {"NeutronError": {"type": "X", "message": "No such pool", "detail": ""}}),
            "No such",
            InputError,
        ),
        (
            recorded(403, {"error": {"code": 403, "message": "You may not", "title": "Forbidden"}}),
            "may not",
            ConfigurationError,
        ),
        (
            recorded(400, {"error_message": json.dumps({"faultstring": "Node is reserved", "debuginfo": None})}),
            "Node is reserved",
            InputError,
        ),
        (
            recorded(500, {"computeFault": {"code": 500, "message": "Unexpected API Error"}}),
            "Unexpected API",
            ServiceError,
        ),
        (
            recorded(503, "<html><title>503</title><h1>503 Service Unavailable</h1>No server</html>", HTML),
            "No server",
            ServiceError,
        ),
        (recorded(409, "<html><h1>Conflict</h1><p>There was a conflict.</p></html>", HTML), "a conflict", ServiceError),
        (recorded(403, {"Code": "AccessDenied", "RequestId": "tx1"}), "AccessDenied", ConfigurationError),
        (recorded(401, {"Code": "AccessDenied", "RequestId": "tx1"}), "AccessDenied", ConfigurationError),
        (recorded(400, "TooManyBuckets", "text/plain"), "quota is used up: TooManyBuckets", InputError),
        (
            recorded(404, "<?xml version='1.0'?><Error><Code>NoSuchBucket</Code><Message>None</Message></Error>", XML),
            "NoSuchBucket",
            InputError,
        ),
        (recorded(422, "Unprocessable: the flavor is private", "text/plain"), "the flavor is private", InputError),
        (
            recorded(400, {"errors": [{"title": "Bad", "detail": "Field amount is missing"}]}),
            "amount is missing",
            InputError,
        ),
    ],
)
def test_a_service_s_own_reason_is_shown_and_decides_about_a_retry(
    response: requests.Response, reason: str, kind: type[LarderError]
) -> None:
    for error in errors_of(response):
        shown = translated(error)
        assert reason in shown.what and "Unrecognized schema" not in shown.what
        assert type(shown) is kind
        assert (RUN_AGAIN in shown.next_step) == (kind is ServiceError)


def test_reasons_are_escaped_and_limited() -> None:
    shown = translated(errors_of(recorded(400, {"error_message": "a\nerror: \x1b[2Jdone" + "x" * 9999}))[0])
    assert "\n" not in shown.what and "\x1b" not in shown.what and len(shown.what) < MAX_REASON + 100


@pytest.mark.parametrize("body", ["", "[]", "{}", "3", "null", '{"a": {"b": {"c": {"d": {"e": "f"}}}}}'])
def test_answers_without_a_reason_have_none(body: str) -> None:
    assert read_reason(recorded(400, body)) in ("", body)
    for error in errors_of(recorded(400, body)):
        assert isinstance(translated(error), InputError)
    assert read_reason(recorded(400, "[" * 100_000)).startswith("[")


def test_a_wrong_address_of_keystone_is_named() -> None:
    for error in errors_of(recorded(404, "<html><h1>Not Found</h1></html>", HTML)):
        shown = translated(error, "log in")
        assert type(shown) is ConfigurationError and "auth_url" in shown.next_step and "password" not in shown.what


def test_a_refused_login_is_told_from_a_service_s_refusal() -> None:
    for error in errors_of(recorded(401, {"Code": "AccessDenied"})):
        assert "password" not in translated(error).what and "not allowed" in translated(error).what
        assert "new token" in translated(error, token=True).next_step
    of_keystone = recorded(401, {"error": {"code": 401, "message": "The request requires authentication."}})
    of_keystone.url = "http://cloud/v3/auth/tokens"
    for error in errors_of(of_keystone):
        assert "password is wrong" in translated(error).what


@pytest.mark.parametrize("status", [401, 404])
def test_a_token_that_has_expired_needs_a_new_login(status: int) -> None:
    answer = recorded(status, {"error": {"code": status, "message": "Could not find token", "title": "x"}})
    for error in errors_of(answer):
        shown = translated(error, "log in", token=True)
        assert type(shown) is ConfigurationError and "new token" in shown.next_step
        assert "run the same command again" not in shown.next_step and "password" not in shown.what
