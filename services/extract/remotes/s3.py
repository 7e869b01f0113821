"""Files in an S3 store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from urllib3.exceptions import HTTPError

from larder import store
from larder.errors import ConfigurationError, InputError
from larder.sources.members import CHUNK_BYTES
from services.extract.remotes import ChangedError, Response, TransientError

_CREDENTIAL_FAULTS = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "RequestTimeTooSkewed", "ExpiredToken", "403",
}  # fmt: skip
_ABSENT = {"NoSuchKey", "NoSuchBucket", "404"}
_CHANGED = {"PreconditionFailed", "InvalidRange", "412", "416"}


class S3Remote:
    """The object at an s3:// URI."""

    def __init__(self, uri: str, settings: store.StoreSettings) -> None:
        self.name = uri
        self._bucket, self._key = store.split_uri(uri)
        self._client = store.client(settings)

    @contextmanager
    def open(self, offset: int, validator: str) -> Iterator[Response]:
        """See `Remote.open`."""
        part = {"Range": f"bytes={offset}-", "IfMatch": validator} if offset and validator else {}
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key, **part)  # type: ignore[arg-type]
            start = offset if "ContentRange" in answer else 0
            body = answer["Body"]
            with body:
                yield Response(start, start + answer["ContentLength"], answer["ETag"], _chunks(body))
        except ClientError as fault:
            raise self._explain(fault) from fault
        except NoCredentialsError as fault:
            raise ConfigurationError(
                f"{self.name} needs credentials, and there are none",
                next_step="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            ) from fault
        except BotoCoreError as fault:
            raise TransientError(str(fault)) from fault

    def _explain(self, fault: ClientError) -> Exception:
        code = str(fault.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            return InputError(f"{self.name} does not exist ({code})", next_step="check LARDER_SOURCE")
        if code in _CREDENTIAL_FAULTS:
            return ConfigurationError(
                f"{self.name}: the store refuses these credentials ({code})",
                next_step="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, S3_ENDPOINT_URL and this machine's clock",
            )
        if code in _CHANGED:
            return ChangedError("the object has changed since the download began")
        return TransientError(f"the store answers {code}")


def _chunks(body: object) -> Iterator[bytes]:
    try:
        while chunk := body.read(CHUNK_BYTES):  # type: ignore[attr-defined]
            yield chunk
    except (BotoCoreError, HTTPError, OSError) as fault:
        raise TransientError(str(fault)) from fault
