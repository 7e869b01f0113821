"""The fast client for objects finds what boto3's client finds: region, certificates, keys and proxy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from larder.errors import ConfigurationError
from larder.s3_objects import ObjectClient, make_object_client
from larder.store import StoreSettings, make_client

ENDPOINT = {"S3_ENDPOINT_URL": "http://127.0.0.1:9"}
KEYS = {"AWS_ACCESS_KEY_ID": "a-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}
PROFILE = """[default]
region = eu-far-1
ca_bundle = /of/the/profile.pem
aws_access_key_id = profile-key
aws_secret_access_key = profile-secret
[profile other]
region = eu-other-1
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(("LARDER_", "AWS_", "S3_", "REQUESTS_", "CURL_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def found_by(client: Any) -> dict[str, Any]:
    """What a client uses, in terms of botocore."""
    if isinstance(client, ObjectClient):
        region, keys, session = client._access.region, client._access.keys, client._session._session
    else:
        region, keys = client.meta.region_name, client._request_signer._credentials
        session = client._endpoint.http_session._session
    frozen = keys and keys.get_frozen_credentials()
    return {
        "region": region,
        "keys": frozen and (frozen.access_key, frozen.secret_key, frozen.token),
        "certificates": session._verify,
        "proxies": session._proxy_config._proxies,
        "timeout": (session._timeout.connect_timeout, session._timeout.read_timeout),
        "connections": session._max_pool_connections,
    }


@pytest.mark.parametrize("profile", ["", "~/.aws/config", "elsewhere"])
@pytest.mark.parametrize(
    "environ",
    [
        {},
        KEYS,
        KEYS | {"AWS_SESSION_TOKEN": "token", "AWS_DEFAULT_REGION": "eu-near-2", "LARDER_STALL_SECONDS": "7"},
        KEYS | {"AWS_REGION": "eu-near-2", "AWS_CA_BUNDLE": "/some.pem"},
        KEYS | {"REQUESTS_CA_BUNDLE": "/other.pem", "HTTP_PROXY": "http://proxy.test:3128"},
        KEYS | {"HTTP_PROXY": "http://proxy.test:3128", "NO_PROXY": "127.0.0.1"},
        {"LARDER_UNSIGNED": "true", "AWS_DEFAULT_REGION": "eu-near-2"},
    ],
    ids=["nothing", "keys", "token", "region", "proxy", "no-proxy", "unsigned"],
)
def test_both_clients_find_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environ: dict[str, str], profile: str
) -> None:
    if profile:
        path = tmp_path / profile.removeprefix("~/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(PROFILE)
    if profile == "elsewhere":
        monkeypatch.setenv("AWS_CONFIG_FILE", str(path))
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings = StoreSettings.load("store", [], dict(os.environ) | ENDPOINT)
    fast = make_object_client(settings)
    assert isinstance(fast, ObjectClient)
    expected = found_by(make_client(settings))
    if settings.unsigned:
        expected["keys"] = None  # boto3 finds them, and doesn't use them
    assert found_by(fast) == expected


def test_a_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match="nobody"):
        make_object_client(StoreSettings.load("store", [], ENDPOINT | KEYS))


class SentError(Exception):
    """A request was sent."""


def address_of(client: Any, bucket: str) -> str:
    """The address to which boto3's client sends a request for an object."""

    def stop(request: Any, **_: Any) -> None:
        raise SentError(request.url)

    client.meta.events.register("before-send.s3", stop)
    with pytest.raises(SentError) as sent:
        client.get_object(Bucket=bucket, Key="a b/\u00fc~.tar")
    return str(sent.value)


@pytest.mark.parametrize("region", ["us-east-1", "us-west-2", "eu-central-1", "ap-southeast-4", "il-central-1"])
def test_the_address_on_aws_is_that_of_boto3(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    settings = StoreSettings.load("store", [], KEYS | {"AWS_REGION": region})
    fast = make_object_client(settings)
    assert isinstance(fast, ObjectClient)
    assert found_by(fast) == found_by(make_client(settings))

    def stop(request: Any) -> None:
        raise SentError(request.url)

    monkeypatch.setattr(fast._session, "send", stop)
    for bucket in ("my-bucket", "abc"):
        with pytest.raises(SentError) as sent:
            fast.get_object(Bucket=bucket, Key="a b/\u00fc~.tar")
        assert str(sent.value) == address_of(make_client(settings), bucket)
    for bucket in ("a.b.c", "Old_Bucket", "my--bucket", "some-point-s3alias", "fast--use1-az4--x-s3"):
        assert not fast._address(bucket), "boto3 finds it"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AWS_REGION": "cn-north-1"},
        {"AWS_REGION": "us-gov-west-1"},
        {"AWS_REGION": "eu-west-1", "AWS_USE_FIPS_ENDPOINT": "true"},
        {"AWS_REGION": "eu-west-1", "AWS_PROFILE": "default"},
    ],
    ids=["no-region", "china", "government", "fips", "profile"],
)
def test_unusual_addresses_on_aws_are_left_to_boto3(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    if "AWS_PROFILE" in environ:
        (Path.home() / ".aws").mkdir()
        (Path.home() / ".aws/config").write_text(PROFILE)
    assert not isinstance(make_object_client(StoreSettings.load("store", [], KEYS | environ)), ObjectClient)
