"""Emptying buckets of stores that show less by Swift's API than they hold, with recorded answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from larder.errors import InputError, ServiceError
from larder.progress import NullReporter
from provision import contents, objects
from provision.contents import Contents
from provision.marks import Resource
from provision.s3 import MAX_ANSWER_BYTES, S3Client, Upload, Version

BUCKET = Resource("bucket", "data", "data", "")


def answer(status: int, body: Any = None, **headers: str) -> Any:
    return SimpleNamespace(status_code=status, json=lambda: body, headers=headers, text="", content=b"")


class Rgw:
    """Ceph's Swift API before a bucket with versions: it lists none, and counts all but the delete markers."""

    def __init__(self, counted: int, markers: int = 0) -> None:
        self.counted, self.markers = counted, markers
        self.deleted: list[str] = []

    def head(self, path: str) -> Any:
        return answer(204, **{"X-Container-Object-Count": str(self.counted)}) if path == "/data" else answer(404)

    def get(self, path: str, params: Any) -> Any:
        return answer(200, []) if path == "/data" else answer(404)

    def delete(self, path: str) -> Any:
        self.deleted.append(path)
        return answer(409 if self.counted or self.markers else 204)


def stack_of(api: Any) -> Any:
    return cast(
        Any,
        SimpleNamespace(
            clouds=SimpleNamespace(objects=SimpleNamespace(client=lambda service: api)),
            declaration=SimpleNamespace(credentials=None),
            reporter=NullReporter(),
            translate_errors=lambda action, cloud: nullcontext(),
            report=lambda *words: None,
        ),
    )


def test_success_is_not_claimed_for_what_only_the_s3_api_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "EMPTY_SECONDS", 0)
    api = Rgw(counted=4)
    with pytest.raises(InputError, match="older versions, delete markers or unfinished uploads") as caught:
        objects.empty(stack_of(api), BUCKET)
    assert "`credentials create`, then `bucket empty`" in caught.value.next_step
    with pytest.raises(InputError, match="still holds something"):
        objects.delete(stack_of(api), BUCKET)
    assert api.deleted == []
    with pytest.raises(InputError, match="still holds something"):
        objects.delete(stack_of(Rgw(counted=0, markers=1)), BUCKET)
    assert objects.empty(stack_of(Rgw(counted=0)), BUCKET) == "0 objects deleted"
    objects.delete(stack_of(Rgw(counted=0)), BUCKET)


def test_versions_that_stay_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [{"name": "k", "version_id": "1", "is_latest": True, "bytes": 1, "content_type": "text/plain"}]
    api = SimpleNamespace(
        get=lambda path, params: answer(200, listed), delete=lambda path, params: SimpleNamespace(status_code=204)
    )
    with pytest.raises(ServiceError, match="1 versions stay although they were deleted"):
        contents.empty_by_swift_versions(stack_of(api), api, "data")
    api.delete = lambda path, params: SimpleNamespace(status_code=403)
    with pytest.raises(ServiceError, match="k: 403"):
        contents.empty_by_swift_versions(stack_of(api), api, "data")


@pytest.mark.parametrize(
    ("seen", "text"),
    [
        (Contents(3, 30), "3 objects, 30 bytes"),
        (Contents(0, 0, versions=1, version_bytes=5), "1 older version with 5 bytes, 0 delete markers"),
        (Contents(0, 0, markers=2), "0 older versions with 0 bytes, 2 delete markers"),
        (Contents(0, 0, uploads=1, upload_bytes=9), "1 unfinished upload with 9 bytes"),
        (Contents(0, 0, segments=2, segment_bytes=9), "2 segments of uploads with 9 bytes"),
        (Contents(0, 0, unknown="the S3 API fails"), "; the S3 API fails"),
        (Contents(0, 0, versions=7, is_partial=True), "at least 7 older versions"),
    ],
)
def test_contents_in_words(seen: Contents, text: str) -> None:
    assert text in str(seen)


def test_status_does_not_list_all_versions_of_a_large_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "MAX_COUNTED", 3)
    looked_at: list[int] = []

    def versions() -> Iterator[tuple[bool, bool, int]]:
        for number in range(100):
            looked_at.append(number)
            yield number % 2 == 0, False, 5

    seen = contents._count(Contents(100, 500), versions())
    assert (seen.versions, seen.version_bytes, seen.is_partial, len(looked_at)) == (1, 5, True, 4)
    assert (seen.objects, seen.bytes) == (100, 500)
    assert contents._count(Contents(3, 9), iter([(True, True, 0), (False, False, 9)])) == Contents(
        versions=1, version_bytes=9, markers=1
    )


def client_of(status: int, body: bytes) -> S3Client:
    sent = SimpleNamespace(status_code=status, content=body, text=body[:1000].decode(errors="replace"))
    session = SimpleNamespace(request=lambda url, method, **options: sent)
    return S3Client(session, "https://s3.example.org", "access", "secret", "data")


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"no XML", "the answer is no XML"),
        (200, b"<a>" + b" " * MAX_ANSWER_BYTES + b"</a>", "200"),
        (403, b"<Error><Code>AccessDenied</Code><Message>Not you</Message></Error>", "403: AccessDenied Not you"),
        (302, b"", "302"),
        (500, b"<html><h1>Oops</h1></html>", "500: Oops"),
    ],
    ids=["text", "large", "refused", "redirect", "broken"],
)
def test_unusable_answers_of_the_s3_api_are_errors(status: int, body: bytes, says: str) -> None:
    with pytest.raises(ServiceError, match=says):
        client_of(status, body).is_versioned()


def client_with(answers: list[bytes]) -> tuple[S3Client, list[tuple[str, str, bytes]]]:
    """A client, and the requests that it sends for these answers."""
    sent: list[tuple[str, str, bytes]] = []

    def request(url: str, method: str, data: bytes | None = None, **options: Any) -> Any:
        sent.append((method, url, data or b""))
        return SimpleNamespace(status_code=200, content=answers.pop(0), text="")

    return S3Client(SimpleNamespace(request=request), "https://s3.example.org", "access", "secret", "data"), sent


@pytest.mark.parametrize("marker", ["k+%41", "k%2B%2541"], ids=["as Ceph's gateway", "encoded"])
def test_the_next_page_begins_after_the_last_key(marker: str) -> None:
    page = (
        "<a><IsTruncated>true</IsTruncated><Upload><Key>k%2B%2541</Key><UploadId>2~a+b</UploadId></Upload>"
        f"<NextKeyMarker>{marker}</NextKeyMarker><NextUploadIdMarker>2~a+b</NextUploadIdMarker></a>"
    )
    client, sent = client_with([page.encode(), b"<a/>"])
    assert list(client.list_uploads()) == [[Upload("k+%41", "2~a+b")], []]
    assert "key-marker=k%2B%2541&" in sent[1][1] and "upload-id-marker=2~a%2Bb" in sent[1][1]


def test_keys_that_xml_cannot_express_are_deleted_one_by_one() -> None:
    client, sent = client_with([b"", b""])
    versions = [Version(key, "1", 0, False, True) for key in ("re\rturn", "con\x01trol", "plain")]
    assert client.delete_versions(versions) == []
    (posted, _, body), (deleted, url, _) = sent
    assert posted == "POST" and b"re&#13;turn" in body and b"plain" in body and b"trol" not in body
    assert deleted == "DELETE" and url == "https://s3.example.org/data/con%01trol?versionId=1"


def test_a_name_that_cannot_be_requested_is_named() -> None:
    assert "../a: a name that can't be requested" in client_of(204, b"").abort(Upload("../a", "1"))
    assert client_of(204, b"").abort(Upload("a", "1")) == ""
