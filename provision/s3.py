"""A small S3 client for what Swift's API doesn't show: versions, delete markers and unfinished uploads of a bucket.

boto3 would be 15 MB more to install for seven requests. They go through keystoneauth's session, which knows the site's
certificates, the proxy and the time limits.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape as escape_xml

from keystoneauth1 import exceptions as ksa

from larder.errors import ServiceError
from provision.answers import validate_whole_number
from provision.cloud_errors import RUN_AGAIN, read_reason

REGION = "us-east-1"
"""Part of the signature. Swift's and Ceph's S3 APIs take any, or this one."""
PER_CALL = 1000
MAX_ANSWER_BYTES = 16 << 20
MAX_UPLOADS_MEASURED = 100
NOT_IN_PATH = "a name that can't be requested; delete it in the site's web interface"
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML can't express: a key with one can't be in a list of keys to delete."""
Xml = ElementTree.Element


@dataclass(frozen=True)
class Version:
    """A version of an object, or a delete marker."""

    key: str
    id: str
    bytes: int
    is_marker: bool
    is_latest: bool


@dataclass(frozen=True)
class Upload:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    id: str


class S3Client:
    """Sends signed requests about one bucket."""

    def __init__(self, session: Any, endpoint: str, access: str, secret: str, bucket: str) -> None:
        self._session, self._endpoint = session, endpoint.rstrip("/")
        self._access, self._secret, self.bucket = access, secret, bucket

    def _ask(self, method: str, query: Mapping[str, str], key: str = "", body: bytes = b"") -> Xml | None:
        """Send a request; return the answer's XML, or None if the store answers 404. Raises ServiceError."""
        path = "/" + quote(f"{self.bucket}/{key}" if key else self.bucket, safe="/-_.~")
        words = "&".join(f"{quote(name, safe='')}={quote(query[name], safe='')}" for name in sorted(query))
        what = f"{method} {self._endpoint}{path}"
        try:
            answer = self._session.request(
                f"{self._endpoint}{path}?{words}",
                method,
                headers=self._sign(method, path, words, body),
                data=body or None,
                authenticated=False,
                raise_exc=False,
                redirect=False,
            )
        except ksa.ClientException as error:
            raise ServiceError(f"{what}: {error}", next_step=RUN_AGAIN) from error
        if answer.status_code == 404:
            return None
        if answer.status_code >= 300 or len(answer.content) > MAX_ANSWER_BYTES:
            raise ServiceError(f"{what}: {answer.status_code}: {read_reason(answer)[:200]}", next_step=RUN_AGAIN)
        try:
            return ElementTree.fromstring(answer.content or b"<empty/>")
        except ElementTree.ParseError as error:
            raise ServiceError(f"{what}: the answer is no XML: {error}", next_step=RUN_AGAIN) from error

    def _sign(self, method: str, path: str, words: str, body: bytes) -> dict[str, str]:
        """Return the headers of a request with its signature (AWS's version 4)."""
        time, digest = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"), hashlib.sha256(body).hexdigest()
        headers = {"host": urlsplit(self._endpoint).netloc, "x-amz-content-sha256": digest, "x-amz-date": time}
        names = ";".join(headers)
        lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
        asked = f"{method}\n{path}\n{words}\n{lines}\n{names}\n{digest}"
        scope = f"{time[:8]}/{REGION}/s3/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{time}\n{scope}\n{hashlib.sha256(asked.encode()).hexdigest()}"
        key = f"AWS4{self._secret}".encode()
        for word in scope.split("/"):
            key = _hmac(key, word)
        signature = _hmac(key, text).hex()
        proof = f"Credential={self._access}/{scope}, SignedHeaders={names}, Signature={signature}"
        md5 = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()  # which ?delete requires
        sent = {name: value for name, value in headers.items() if name != "host"} | {
            "Authorization": f"AWS4-HMAC-SHA256 {proof}"
        }
        return sent | ({"Content-MD5": md5, "Content-Type": "application/xml"} if body else {})

    def is_versioned(self) -> bool:
        """Return whether the bucket has, or had, versioning."""
        answer = self._ask("GET", {"versioning": ""})
        return answer is not None and bool(_text(answer, "Status"))

    def list_versions(self) -> Iterator[list[Version]]:
        """Yield all versions and delete markers, in pages."""
        query = {"versions": "", "encoding-type": "url", "max-keys": str(PER_CALL)}
        for answer in self._pages(query, "key-marker", "version-id-marker"):
            yield [_version(item) for item in answer if _tag(item) in ("Version", "DeleteMarker")]

    def list_uploads(self) -> Iterator[list[Upload]]:
        """Yield all unfinished uploads, in pages."""
        query = {"uploads": "", "encoding-type": "url", "max-uploads": str(PER_CALL)}
        for answer in self._pages(query, "key-marker", "upload-id-marker"):
            yield [Upload(_key(item), _text(item, "UploadId")) for item in answer if _tag(item) == "Upload"]

    def _pages(self, query: dict[str, str], key_marker: str, id_marker: str) -> Iterator[Xml]:
        """Yield the answers of a listing. Each says with Next… where the next one begins."""
        while (answer := self._ask("GET", query)) is not None:
            yield answer
            named = {key_marker: _next_key(answer, key_marker), id_marker: _text(answer, _next_name(id_marker))}
            following = query | {marker: value for marker, value in named.items() if value}
            if _text(answer, "IsTruncated") != "true" or following == query:
                return
            query = following

    def upload_bytes(self, upload: Upload) -> int:
        """Return the size of the parts of an upload; of the first thousand, if there are more."""
        if not can_be_in_path(upload.key):
            return 0
        answer = self._ask("GET", {"uploadId": upload.id, "max-parts": str(PER_CALL)}, upload.key)
        parts = [item for item in answer if _tag(item) == "Part"] if answer is not None else []
        return sum(validate_whole_number(_text(part, "Size"), "the size of a part") for part in parts)

    def delete_versions(self, versions: Sequence[Version]) -> list[str]:
        """Delete up to 1000 versions and markers. Return the failures."""
        listable = [item for item in versions if not _NOT_IN_XML.search(item.key)]
        singly = [item for item in versions if _NOT_IN_XML.search(item.key)]
        failures = self._delete_listed(listable) if listable else []
        return failures + [failure for item in singly if (failure := self._delete(item.key, {"versionId": item.id}))]

    def _delete_listed(self, versions: Sequence[Version]) -> list[str]:
        listed = "".join(
            f"<Object><Key>{_escape(item.key)}</Key><VersionId>{_escape(item.id)}</VersionId></Object>"
            for item in versions
        )
        body = f'<?xml version="1.0" encoding="UTF-8"?><Delete><Quiet>true</Quiet>{listed}</Delete>'
        answer = self._ask("POST", {"delete": ""}, body=body.encode())
        errors = [item for item in answer if _tag(item) == "Error"] if answer is not None else []
        return [f"{_text(item, 'Key')}: {_text(item, 'Code')} {_text(item, 'Message')}" for item in errors]

    def abort(self, upload: Upload) -> str:
        """Delete an unfinished upload with its parts. Return why that failed, or ""."""
        return self._delete(upload.key, {"uploadId": upload.id})

    def _delete(self, key: str, query: dict[str, str]) -> str:
        if not can_be_in_path(key):
            return f"{key}: {NOT_IN_PATH}"
        self._ask("DELETE", query, key)
        return ""


def can_be_in_path(name: str) -> bool:
    """Return whether a request for a name reaches it. Folders . and .. would be resolved on the way to the store."""
    return not {".", ".."} & {*name.split("/")}


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def _tag(item: Xml) -> str:
    """Return an element's name without its namespace."""
    return str(item.tag).rpartition("}")[2]


def _text(item: Xml, name: str) -> str:
    """Return the text of a child, or ""."""
    return next((child.text or "" for child in item if _tag(child) == name), "")


def _key(item: Xml) -> str:
    """Return the key of a listed item, which is percent-encoded, as asked for."""
    return unquote_plus(_text(item, "Key"))


def _next_name(marker: str) -> str:
    """Return the element that has the next value of a marker: NextKeyMarker for key-marker."""
    return f"Next{''.join(map(str.title, marker.split('-')))}"


def _next_key(answer: Xml, marker: str) -> str:
    """Return the key that the next page begins after. Ceph's gateway encodes the listed keys, but not this one."""
    value = _text(answer, _next_name(marker))
    last = next((key for item in reversed(answer) if (key := _key(item))), "")
    return last if value == last else unquote_plus(value)


def _escape(text: str) -> str:
    """Return a text for XML. A parser would read a carriage return as a newline."""
    return escape_xml(text, {"\r": "&#13;"})


def _version(item: Xml) -> Version:
    return Version(
        _key(item),
        _text(item, "VersionId") or "null",
        validate_whole_number(_text(item, "Size") or "0", "the size of a version"),
        _tag(item) == "DeleteMarker",
        _text(item, "IsLatest") == "true",
    )
