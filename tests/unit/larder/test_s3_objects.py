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


def test_aws_is_left_to_boto3() -> None:
    assert not isinstance(make_object_client(StoreSettings.load("store", [], KEYS)), ObjectClient)
