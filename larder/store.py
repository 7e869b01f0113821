"""S3: the settings of a store and a bucket, the client, and URIs. `larder.bucket` works in a bucket."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, model_validator

from larder.errors import ConfigurationError
from larder.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

DEFAULT_REGION = "us-east-1"
"""Most stores ignore the region, but a signature needs one."""
_CONNECT_SECONDS = 30.0


def an_endpoint(url: str) -> str:
    """`url` without a slash at its end; raises ValueError when it isn't a server's address. Empty is for "not set"."""
    if url and not re.fullmatch(r"https?://[^@\s/]+/?", url):
        raise ValueError("must be http:// or https:// and a host, without user and password: those have settings")
    return url.rstrip("/")


def a_bucket(name: str) -> str:
    """`name`, when it may be a bucket's; raises ValueError otherwise. Empty is for "not set"."""
    if name and not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", name):
        raise ValueError("must be a bucket's name: letters, digits, dots, hyphens and underscores")
    return name


def a_prefix(prefix: str) -> str:
    """`prefix` without slashes around it; raises ValueError when it can't be one."""
    parts = prefix.strip("/").split("/")
    if prefix and not all(part and part not in (".", "..") and part.isprintable() for part in parts):
        raise ValueError("must be names with slashes between them, as in team/food")
    return prefix.strip("/")


class StoreSettings(Settings):
    """How to reach an S3 store. Without keys, boto3 looks where AWS tools look (profile, instance role)."""

    s3_endpoint_url: Annotated[str, AfterValidator(an_endpoint)] = Field(
        "", alias="S3_ENDPOINT_URL",
        description="the S3 store's address; empty is AWS itself",
    )  # fmt: skip
    aws_access_key_id: str = Field("", alias="AWS_ACCESS_KEY_ID", description="the S3 store's access key")
    aws_secret_access_key: SecretStr = Field(
        SecretStr(""), alias="AWS_SECRET_ACCESS_KEY", description="the S3 store's secret key; never shown"
    )
    aws_session_token: SecretStr = Field(
        SecretStr(""), alias="AWS_SESSION_TOKEN", description="the token of temporary keys; never shown"
    )
    aws_region: str = Field(
        "", validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"),
        description=f"the S3 store's region; empty is the profile's, or {DEFAULT_REGION}, which most stores take",
    )  # fmt: skip

    unsigned: bool = Field(
        False, alias="LARDER_UNSIGNED",
        description="ask the S3 store without keys and signatures, which public buckets allow; `extract` does so by "
        "itself where there are no keys",
    )  # fmt: skip
    requester_pays: bool = Field(
        False, alias="LARDER_REQUESTER_PAYS",
        description="agree to pay for requests to buckets whose owners want that (requester pays)",
    )  # fmt: skip
    stall_seconds: int = Field(
        60, alias="LARDER_STALL_SECONDS", ge=1, le=86400,
        description="a transfer is given up that makes no progress for so long; below 1 KiB/s is none",
        json_schema_extra={"unit": "seconds"},
    )  # fmt: skip

    @model_validator(mode="after")
    def _both_keys(self) -> StoreSettings:
        if bool(self.aws_access_key_id) != bool(self.aws_secret_access_key.get_secret_value()):
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together: one of them is empty")
        return self


class BucketSettings(StoreSettings):
    """Where in the store."""

    bucket: Annotated[str, AfterValidator(a_bucket)] = Field(
        validation_alias=AliasChoices("S3_BUCKET", "RCLONE_CONTAINER"), min_length=1,
        description="the bucket; RCLONE_CONTAINER is another name for it",
    )  # fmt: skip
    prefix: Annotated[str, AfterValidator(a_prefix)] = Field(
        "", alias="S3_PREFIX", description="what stands before the data set's name in the bucket; empty for nothing"
    )


class OptionalBucketSettings(BucketSettings):
    """The same where a bucket may be missing, since not all that the stage does needs one."""

    bucket: Annotated[str, AfterValidator(a_bucket)] = Field(
        "", validation_alias=AliasChoices("S3_BUCKET", "RCLONE_CONTAINER"),
        description="the bucket; RCLONE_CONTAINER is another name for it",
    )  # fmt: skip


def client(
    settings: StoreSettings, attempts: int = 1, style: Literal["auto", "path", "virtual"] | None = None,
    timeout_seconds: float | None = None, *, may_be_unsigned: bool = False,
) -> S3Client:  # fmt: skip
    """An S3 client for the store of `settings`. Open it in the process that uses it; it must not be forked.

    Path-style addresses (unless `style` names another) and checksums only on request, since stores
    that aren't AWS need both. Signatures leave bodies out, since over http botocore would hash each once more: whoever
    writes compares digests. By default one attempt a request, for callers with retries of their own.
    `timeout_seconds` are for a connection, and for each piece of an answer; by default the stall time.

    Requests are signed unless the settings say otherwise, or `may_be_unsigned` and there are no keys. Answers must make
    progress; lists and messages have a limit (larder.s3_session).
    """
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    from larder.s3_session import Parsers, bound

    config = Config(
        s3={
            "addressing_style": style or ("path" if settings.s3_endpoint_url else "auto"),
            "payload_signing_enabled": False,
        },
        request_checksum_calculation="when_required", response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=timeout_seconds or _CONNECT_SECONDS,
        read_timeout=timeout_seconds or settings.stall_seconds, max_pool_connections=64,
    )  # fmt: skip
    try:
        core = botocore.session.get_session()
        core.register_component("response_parser_factory", Parsers())
        # Nobody looks at dates, and parsing them takes more than half of a listing's time.
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=str)
        session = boto3.Session(
            botocore_session=core,
            aws_access_key_id=settings.aws_access_key_id or None,
            aws_secret_access_key=settings.aws_secret_access_key.get_secret_value() or None,
            aws_session_token=settings.aws_session_token.get_secret_value() or None,
        )
        if settings.unsigned or (may_be_unsigned and session.get_credentials() is None):
            config = config.merge(Config(signature_version=botocore.UNSIGNED))
        made = session.client(
            "s3", endpoint_url=settings.s3_endpoint_url or None, config=config,
            region_name=region_of(settings),
        )  # fmt: skip
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(
            f"no S3 client for {settings.s3_endpoint_url or 'AWS'}: {error}", next_step="check the S3 settings"
        ) from error

    bound(made, timeout_seconds or settings.stall_seconds)
    if settings.requester_pays:
        made.meta.events.register("before-call.s3", _agree_to_pay)
    return made


def _agree_to_pay(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"


def is_unsigned(made: S3Client) -> bool:
    """Return whether a client signs no requests."""
    import botocore

    config: Any = made.meta.config
    return config.signature_version is botocore.UNSIGNED


def region_of(settings: StoreSettings) -> str:
    """The region that requests are signed for: the setting's, the profile's, or the one that most stores take."""
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return settings.aws_region or boto3.Session().region_name or DEFAULT_REGION
    except BotoCoreError:  # a profile that isn't there, which `client` reports
        return DEFAULT_REGION


def ca_bundle() -> str:
    """The file with the certificates of authorities that boto3 trusts: the environment's, or the AWS profile's."""
    import botocore.session
    from botocore.exceptions import BotoCoreError

    try:
        found = botocore.session.get_session().get_config_variable("ca_bundle")
    except BotoCoreError:  # a profile that isn't there, which `client` reports
        found = None
    return found or os.environ.get("REQUESTS_CA_BUNDLE") or ""


def split_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def place_in_store(settings: StoreSettings, uri: str) -> tuple[BucketSettings, str]:
    """The bucket's settings for a folder `s3://bucket/[prefix/]name`, and the folder's name."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    prefix, _, name = key.rpartition("/")
    shared = {field: getattr(settings, field) for field in StoreSettings.model_fields}
    return BucketSettings.model_validate(shared | {"bucket": bucket, "prefix": prefix}, by_name=True), name


def make_store(
    *, endpoint_url: str = "", access_key_id: str = "", secret_access_key: str = "", session_token: str = "",
    region: str = "",
) -> StoreSettings:  # fmt: skip
    """Describe an S3 store for the library's loaders. What is empty is taken from the environment, as AWS tools do.

    Args:
        endpoint_url: The store's address; S3_ENDPOINT_URL. Empty is AWS itself.
        access_key_id: AWS_ACCESS_KEY_ID. Without keys, boto3 looks for a profile or an instance role.
        secret_access_key: AWS_SECRET_ACCESS_KEY.
        session_token: AWS_SESSION_TOKEN, of temporary keys.
        region: AWS_REGION.

    Raises:
        ConfigurationError: If the address is none, or one of the keys is missing.

    Example:
        >>> make_store(endpoint_url="http://127.0.0.1:9000").s3_endpoint_url
        'http://127.0.0.1:9000'
    """
    given = {
        "S3_ENDPOINT_URL": endpoint_url, "AWS_ACCESS_KEY_ID": access_key_id, "AWS_SECRET_ACCESS_KEY": secret_access_key,
        "AWS_SESSION_TOKEN": session_token, "AWS_REGION": region,
    }  # fmt: skip
    try:
        return StoreSettings.load("store", [], os.environ | {name: value for name, value in given.items() if value})
    except ConfigurationError as error:
        raise ConfigurationError(error.what, next_step="correct the store's settings, then run again") from None
