"""Define the settings of an S3 store and a bucket, create clients, and parse S3 URIs."""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64encode
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, model_validator

from larder.errors import ConfigurationError
from larder.next_step import StageRun
from larder.settings import Settings

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_s3 import S3Client

DEFAULT_REGION = "us-east-1"
"""Default region. Most stores ignore it, but signatures need one."""
CONNECT_SECONDS = 30.0
MAX_CONNECTIONS = 64
REQUESTER_PAYS = {"x-amz-request-payer": "requester"}
"""Header that agrees to pay for a request."""


def validated_endpoint(url: str) -> str:
    """Return a store's address without a final slash; empty means "not set".

    Raises:
        ValueError: If the address is invalid.
    """
    if url and not re.fullmatch(r"https?://[^@\s/]+/?", url):
        raise ValueError(
            "must be http:// or https:// and a host, without user and password, which have their own settings"
        )
    return url.rstrip("/")


def validated_bucket(name: str) -> str:
    """Return a bucket's name; empty means "not set".

    Raises:
        ValueError: If the name is invalid.
    """
    if name and not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name):
        raise ValueError("must be a bucket's name: letters, digits, dots, hyphens and underscores")
    return name


def validated_prefix(prefix: str) -> str:
    """Return a prefix without slashes around it.

    Raises:
        ValueError: If the prefix is invalid.
    """
    parts = prefix.strip("/").split("/")
    if prefix and not all(part and part not in (".", "..") and part.isprintable() for part in parts):
        raise ValueError("must be names separated by slashes, as in team/food")
    return prefix.strip("/")


class StoreSettings(Settings):
    """Settings of an S3 store. Without keys, boto3 uses the profile or the instance role, as AWS tools do."""

    s3_endpoint_url: Annotated[str, AfterValidator(validated_endpoint)] = Field(
        "",
        validation_alias=AliasChoices("S3_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        description="the address of the S3 store; empty means AWS. AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL "
        "are other names for it",
    )
    aws_access_key_id: str = Field("", alias="AWS_ACCESS_KEY_ID", description="the S3 store's access key")
    aws_secret_access_key: SecretStr = Field(
        SecretStr(""), alias="AWS_SECRET_ACCESS_KEY", description="the S3 store's secret key; never shown"
    )
    aws_session_token: SecretStr = Field(
        SecretStr(""), alias="AWS_SESSION_TOKEN", description="the token of temporary keys; never shown"
    )
    aws_region: str = Field(
        "",
        validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"),
        description=f"the S3 store's region; empty is the profile's, or {DEFAULT_REGION}, which most stores take",
    )

    unsigned: bool = Field(
        False,
        alias="LARDER_UNSIGNED",
        description="send unsigned requests to the S3 store, as public buckets allow; `extract` does so by "
        "default if there are no keys",
    )
    requester_pays: bool = Field(
        False,
        alias="LARDER_REQUESTER_PAYS",
        description="pay for requests to buckets whose owners require it (requester pays)",
    )
    stall_seconds: int = Field(
        60,
        alias="LARDER_STALL_SECONDS",
        ge=1,
        le=86400,
        description="abort a transfer that stays below 1 KiB/s for this time",
        json_schema_extra={"unit": "seconds"},
    )

    @model_validator(mode="after")
    def _both_keys(self) -> StoreSettings:
        if bool(self.aws_access_key_id) != bool(self.aws_secret_access_key.get_secret_value()):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together: one of them is empty")
        return self


SET_STORE = f"set S3_BUCKET and your store in .env; without one, start a store here with {StageRun('s3', 'up')}"
"""The next step where a bucket is needed and none is set."""


class BucketSettings(StoreSettings):
    """Settings of a bucket in a store."""

    bucket: Annotated[str, AfterValidator(validated_bucket)] = Field(
        validation_alias=AliasChoices("S3_BUCKET", "RCLONE_CONTAINER"),
        min_length=1,
        description="the bucket; RCLONE_CONTAINER is another name for it",
        json_schema_extra={"if_unset": SET_STORE},
    )
    prefix: Annotated[str, AfterValidator(validated_prefix)] = Field(
        "", alias="S3_PREFIX", description="the prefix before the dataset's name in the bucket; empty for none"
    )


class OptionalBucketSettings(BucketSettings):
    """Settings of a bucket for stages that can also work without one."""

    bucket: Annotated[str, AfterValidator(validated_bucket)] = Field(
        "",
        validation_alias=AliasChoices("S3_BUCKET", "RCLONE_CONTAINER"),
        description="the bucket; RCLONE_CONTAINER is another name for it",
    )


def make_client(
    settings: StoreSettings,
    attempts: int = 1,
    style: Literal["auto", "path", "virtual"] | None = None,
    timeout_seconds: float | None = None,
    *,
    may_be_unsigned: bool = False,
) -> S3Client:
    """Create an S3 client. Create it in the process that uses it: it must not be forked.

    Checksums are sent only on request, since stores other than AWS need that. Signatures don't cover bodies, since over
    http botocore would hash each body once more; callers compare digests instead. Responses must keep a minimum
    rate, and lists and messages have a maximum size (`larder.s3_session`).

    Args:
        settings: The store.
        attempts: Number of attempts per request; 1 for callers that retry themselves.
        style: Style of addresses; by default "path" if the settings have an endpoint, else "auto".
        timeout_seconds: Timeout for connecting and for each read; by default 30 s and the stall time.
        may_be_unsigned: Don't sign requests if there are no keys. Otherwise only the settings can turn off signing.

    Raises:
        ConfigurationError: If botocore rejects the settings.
    """
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    from larder.s3_session import ModelLoader, Parsers, bound_client

    config = Config(
        s3={
            "addressing_style": style or ("path" if settings.s3_endpoint_url else "auto"),
            "payload_signing_enabled": False,
        },
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=timeout_seconds or CONNECT_SECONDS,
        read_timeout=timeout_seconds or settings.stall_seconds,
        max_pool_connections=MAX_CONNECTIONS,
    )
    try:
        core = botocore.session.get_session()
        core.register_component("data_loader", ModelLoader(core.get_config_variable("data_path")))
        core.register_component("response_parser_factory", Parsers())
        # Dates aren't used, and parsing them takes more than half of a listing's time.
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
        session = boto3.Session(
            botocore_session=core,
            aws_access_key_id=settings.aws_access_key_id or None,
            aws_secret_access_key=settings.aws_secret_access_key.get_secret_value() or None,
            aws_session_token=settings.aws_session_token.get_secret_value() or None,
        )
        if settings.unsigned or (may_be_unsigned and session.get_credentials() is None):
            config = config.merge(Config(signature_version=botocore.UNSIGNED))
        client = session.client(
            "s3",
            endpoint_url=settings.s3_endpoint_url or None,
            config=config,
            region_name=settings.aws_region or session.region_name or DEFAULT_REGION,
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"no S3 client for {settings.s3_endpoint_url or 'AWS'}: {error}", next_step="check the S3 settings"
        ) from error

    bound_client(client, timeout_seconds or settings.stall_seconds)
    client.meta.events.register("before-call.s3.DeleteObjects", _add_md5)
    if settings.requester_pays:
        client.meta.events.register("before-call.s3", _agree_to_pay)
    return client


def _add_md5(params: dict[str, Any], **_: Any) -> None:
    """Add the digest that OpenStack's Swift requires of a request that deletes several objects; boto3 sends a CRC."""
    digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
    params["headers"]["Content-MD5"] = b64encode(digest).decode()


def _agree_to_pay(params: dict[str, Any], **_: Any) -> None:
    params["headers"].update(REQUESTER_PAYS)


class Keys(NamedTuple):
    """Keys that don't change, as botocore's signatures take them."""

    access_key: str
    secret_key: str
    token: str | None

    def get_frozen_credentials(self) -> Keys:
        """Return the keys; botocore's credentials may renew theirs first."""
        return self


class Access(NamedTuple):
    """What requests to a store need besides its address."""

    region: str
    ca_bundle: str
    """Path of the CA certificates; empty for those of botocore."""
    keys: Keys | Credentials | None
    """None for unsigned requests, and if there are no keys."""


def find_access(settings: StoreSettings) -> Access:
    """Return what the settings, the environment and the AWS profile say, as `make_client` finds it.

    Raises:
        botocore.exceptions.BotoCoreError: If the profile doesn't exist, or is invalid.
    """
    secret, token = settings.aws_secret_access_key.get_secret_value(), settings.aws_session_token.get_secret_value()
    keys: Keys | Credentials | None = Keys(settings.aws_access_key_id, secret, token or None) if secret else None
    if (settings.unsigned or keys) and not has_profile():
        region, bundle = os.environ.get("AWS_DEFAULT_REGION"), os.environ.get("AWS_CA_BUNDLE")
    else:
        import botocore.session  # takes 30 ms, with the first session

        session = botocore.session.get_session()
        region, bundle = session.get_config_variable("region"), session.get_config_variable("ca_bundle")
        keys = keys or (None if settings.unsigned else session.get_credentials())
    return Access(
        settings.aws_region or region or DEFAULT_REGION,
        bundle or os.environ.get("REQUESTS_CA_BUNDLE") or "",
        None if settings.unsigned else keys,
    )


def has_profile() -> bool:
    """Return whether botocore would find a profile."""
    files = {"AWS_CONFIG_FILE": "~/.aws/config", "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials"}
    paths = (os.environ.get(name, usual) for name, usual in files.items())
    is_named = any(name in os.environ for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE"))
    return is_named or any(os.path.exists(os.path.expanduser(os.path.expandvars(path))) for path in paths)


def is_client_unsigned(client: S3Client) -> bool:
    """Return whether a client sends unsigned requests."""
    import botocore

    config: Any = client.meta.config
    return config.signature_version is botocore.UNSIGNED


def region_of(settings: StoreSettings) -> str:
    """Return the region for signatures: from the settings, the AWS profile, or the default."""
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        return settings.aws_region or botocore.session.get_session().get_config_variable("region") or DEFAULT_REGION
    except BotoCoreError:  # the profile doesn't exist, which `make_client` reports
        return DEFAULT_REGION


def ca_bundle() -> str:
    """Return the path of the CA certificates that boto3 trusts, from the environment or AWS profile; "" for none."""
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        bundle = botocore.session.get_session().get_config_variable("ca_bundle")
    except BotoCoreError:  # the profile doesn't exist, which `make_client` reports
        bundle = None
    return bundle or os.environ.get("REQUESTS_CA_BUNDLE") or ""


def split_uri(uri: str) -> tuple[str, str]:
    """Split `s3://bucket/key` into bucket and key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


@lru_cache(maxsize=64)
def with_bucket(settings: BucketSettings, bucket: str) -> BucketSettings:
    """Return the settings of another bucket of the same store, without a prefix."""
    return settings.model_copy(update={"bucket": bucket, "prefix": ""})


def only_bucket_settings(settings: BucketSettings) -> BucketSettings:
    """Return the settings of the bucket without those of a stage, to send them to workers."""
    shared = {field: getattr(settings, field) for field in BucketSettings.model_fields}
    return BucketSettings.model_validate(shared, by_name=True)


def parse_store_uri(settings: StoreSettings, uri: str) -> tuple[BucketSettings, str]:
    """Split the URI of a folder, `s3://bucket/[prefix/]name`, into the settings of its bucket and its name."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    prefix, _, name = key.rpartition("/")
    shared = {field: getattr(settings, field) for field in StoreSettings.model_fields}
    return BucketSettings.model_validate(shared | {"bucket": bucket, "prefix": prefix}, by_name=True), name


def make_store(
    *,
    endpoint_url: str = "",
    access_key_id: str = "",
    secret_access_key: str = "",
    session_token: str = "",
    region: str = "",
) -> StoreSettings:
    """Describe an S3 store for the library's loaders. Empty arguments are taken from the environment.

    Args:
        endpoint_url: Address of the store (S3_ENDPOINT_URL); empty for AWS.
        access_key_id: Access key (AWS_ACCESS_KEY_ID). Without keys, boto3 uses a profile or an instance role.
        secret_access_key: Secret key (AWS_SECRET_ACCESS_KEY).
        session_token: Token of temporary keys (AWS_SESSION_TOKEN).
        region: Region (AWS_REGION).

    Raises:
        ConfigurationError: If the address is invalid, or only one of the two keys is given.

    Example:
        >>> make_store(endpoint_url="http://127.0.0.1:9000").s3_endpoint_url
        'http://127.0.0.1:9000'
    """
    given = {
        "S3_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": access_key_id,
        "AWS_SECRET_ACCESS_KEY": secret_access_key,
        "AWS_SESSION_TOKEN": session_token,
        "AWS_REGION": region,
    }
    try:
        return StoreSettings.load("store", [], os.environ | {name: value for name, value in given.items() if value})
    except ConfigurationError as error:
        raise ConfigurationError(error.what, next_step="correct the store's settings, then run again") from None
