"""The bucket: a Swift container, which S3 shows under the same name."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from openstack import exceptions as sdk

from larder.errors import InputError, ServiceError
from provision import contents, marks
from provision.cloud_errors import RUN_AGAIN
from provision.clouds import WaitTimeoutError, poll_until
from provision.declaration import BUCKET
from provision.marks import Resource
from provision.stack import Stack

HEADER = f"X-Container-Meta-{marks.HEADER}"
RUN_HEADER = f"X-Container-Meta-{marks.RUN_HEADER}-"
ACCEPTED = 202
"""Swift's status if the bucket to create already exists."""
PER_CALL = 1000
"""Names per bulk delete. Swift accepts 10,000, but then answers late."""
EMPTY_SECONDS = 60.0


def _api(stack: Stack) -> Any:
    return stack.clouds.objects.client("object-store")


def _read(stack: Stack, name: str, measure: bool) -> Resource | None:
    """Return a bucket, or None. `measure`: list its versions and uploads, if it is ours."""
    api = _api(stack)
    headers = contents.head(api, name)
    if headers is None:
        return None
    owner = headers.get(HEADER, "")
    ours = owner == stack.owner_at(stack.clouds.objects)
    if ours and measure:
        seen = contents.read_contents(stack, api, name, headers)
    else:
        seen = contents.Contents(*contents.read_counts(name, headers))
    return Resource("bucket", name, name, "", str(seen), ours, seen, owner)


def find(stack: Stack, measure: bool = False) -> Resource | None:
    """Return the declared bucket, or None. `measure`: list its versions and uploads."""
    assert stack.declaration.bucket
    with stack.translate_errors("look at the bucket", stack.clouds.objects):
        bucket = _read(stack, stack.declaration.bucket.name, measure)
    return marks.select_one([bucket] if bucket else [], stack.adopt, unique_names=True)


def list_ours(stack: Stack) -> list[Resource]:
    """Return all buckets that carry our mark, declared or not."""
    with stack.translate_errors("list buckets", stack.clouds.objects):
        names = [item.name for item in _api(stack).containers() if re.fullmatch(BUCKET, str(item.name))]
        buckets = [_read(stack, name, measure=True) for name in names]
    return [item for item in buckets if item is not None and item.ours]


def create(stack: Stack) -> None:
    """Create the bucket, or mark an adopted one. Raises InputError if someone else creates it at the same time."""
    assert stack.declaration.bucket
    name, owner = stack.declaration.bucket.name, stack.owner_at(stack.clouds.objects)
    run = RUN_HEADER + secrets.token_hex(4)
    with stack.translate_errors(f"make the bucket {name}", stack.clouds.objects):
        with stack.note("bucket", name).kept_while_in_flight():
            answer = _api(stack).put(f"/{quote(name)}", headers={HEADER: owner, run: owner})
            sdk.raise_from_response(answer)
        if answer.status_code == ACCEPTED and not stack.adopt:
            if _is_made_by_other_run(contents.head(_api(stack), name) or {}, owner, run):
                return
            removed = {header.replace("X-", "X-Remove-", 1): "x" for header in (HEADER, run)}
            answer = _api(stack).post(f"/{quote(name)}", headers=removed)
            sdk.raise_from_response(answer)
            raise InputError(
                f"the bucket {name} was created by someone else at this moment",
                next_step="run this again: it says whose the bucket is",
            )


def _is_made_by_other_run(headers: Mapping[str, str], owner: str, run: str) -> bool:
    """Return whether another run of this stack made the bucket: each leaves a header of its own."""
    return any(
        name.lower().startswith(RUN_HEADER.lower()) and name.lower() != run.lower() and value == owner
        for name, value in headers.items()
    )


def empty(stack: Stack, bucket: Resource) -> str:
    """Delete every object of a bucket, with versions, delete markers, uploads and segments. Return their numbers."""
    api, name = _api(stack), bucket.name
    with stack.translate_errors(f"empty the bucket {name}", stack.clouds.objects):
        more = contents.empty_by_s3(stack, name)
        if contents.VERSIONS_HEADER in (contents.head(api, name) or {}):
            more += contents.empty_by_swift_versions(stack, api, name)
        deleted = _empty_container(stack, name)
        segments = _empty_container(stack, name + contents.SEGMENTS)
    _wait_until_counted_empty(stack, name)
    texts = [f"{deleted} objects deleted"]
    texts += [f"{more} versions, delete markers and unfinished uploads"] if more else []
    texts += [f"{segments} segments of uploads"] if segments else []
    return ", ".join(texts)


def _empty_container(stack: Stack, name: str) -> int:
    """Delete every object of a container, which may not exist, and return their number."""
    deleted = 0
    with stack.reporter.task(f"empty {name}", None, "objects") as task:
        for names in _pages(stack, name):
            _delete(stack, name, names)
            deleted += len(names)
            task.advance(len(names))
    return deleted


def _pages(stack: Stack, container: str) -> Iterator[list[str]]:
    """Yield pages of a container's object names, each time from the start, until it is empty."""
    before: list[str] = []
    while True:
        answer = _api(stack).get(f"/{quote(container)}", params={"format": "json", "limit": PER_CALL})
        if answer.status_code == 404:
            return
        sdk.raise_from_response(answer)
        names = [str(item["name"]) for item in answer.json()] if answer.status_code == 200 else []
        if not names:
            return
        if names == before:
            raise ServiceError(
                f"bucket {container}: {len(names)} objects stay although they were deleted", next_step=RUN_AGAIN
            )
        yield names
        before = names


def _delete(stack: Stack, container: str, names: Sequence[str]) -> None:
    """Delete objects. Swift's bulk delete always answers 200; the result is in the body."""
    listed = "\n".join(quote(f"{container}/{name}") for name in names)
    headers = {"Content-Type": "text/plain", "Accept": "application/json"}
    answer = _api(stack).post("?bulk-delete", data=listed.encode(), headers=headers)
    if answer.status_code in (404, 405, 501) or not _is_result(answer):
        errors = _delete_singly(stack, container, names)
    else:
        result = answer.json()
        errors = [f"{name}: {status}" for name, status in result["Errors"]]
        if not errors and not result["Response Status"].startswith("2"):
            errors = [result["Response Status"] + " " + result.get("Response Body", "")]
    contents.raise_failures(container, "objects", errors)


def _is_result(answer: Any) -> bool:
    """Return whether the store supports bulk deletes; a store without them misreads the request."""
    sdk.raise_from_response(answer)
    try:
        return "Response Status" in answer.json()
    except ValueError:
        return False


def _delete_singly(stack: Stack, container: str, names: Sequence[str]) -> list[str]:
    api = _api(stack)
    return [failure for name in names if (failure := contents.delete_object(api, container, name))]


def _wait_until_counted_empty(stack: Stack, name: str) -> None:
    """Wait until the store counts no object. Raises InputError if it lists none but counts some."""

    def counted() -> bool | None:
        with stack.translate_errors(f"look at the bucket {name}", stack.clouds.objects):
            headers = contents.head(_api(stack), name)
        return None if headers is not None and contents.read_counts(name, headers)[0] else True

    try:
        poll_until(stack.reporter, f"the bucket {name} counts as empty", counted, EMPTY_SECONDS, RUN_AGAIN)
    except WaitTimeoutError:
        raise _hidden_error(name) from None


def _hidden_error(name: str) -> InputError:
    return InputError(
        f"the bucket {name} still holds something that Swift's API doesn't list: older versions, delete markers or "
        "unfinished uploads",
        next_step="its S3 API shows them: declare [credentials], run `credentials create`, then `bucket empty` again",
    )


def delete(stack: Stack, bucket: Resource) -> None:
    """Delete an empty bucket, and the container of its uploads' parts. Raises InputError if one isn't empty."""
    with stack.translate_errors(f"look at the bucket {bucket.name}", stack.clouds.objects):
        _refuse_if_full(stack, bucket.name)
        has_segments = contents.head(_api(stack), bucket.name + contents.SEGMENTS) is not None
    _wait_until_counted_empty(stack, bucket.name)  # since Ceph's gateway deletes a bucket with its unfinished uploads
    if has_segments:  # first: without the bucket, nobody would find them
        _delete_container(stack, bucket.name + contents.SEGMENTS, bucket.name)
    _delete_container(stack, bucket.name, bucket.name)


def _delete_container(stack: Stack, name: str, bucket: str) -> None:
    """Delete a bucket, or the container of its uploads' parts."""

    def gone() -> bool | None:
        with stack.translate_errors(f"delete the bucket {name}", stack.clouds.objects):
            answer = _api(stack).delete(f"/{quote(name)}")
            if answer.status_code == 409:
                _refuse_if_full(stack, bucket)
                return None  # the store hasn't noticed yet that the bucket is empty
            if answer.status_code != 404:
                sdk.raise_from_response(answer)
        return True

    try:
        poll_until(stack.reporter, f"the bucket {name} is gone", gone, EMPTY_SECONDS, RUN_AGAIN)
    except WaitTimeoutError:
        raise _hidden_error(bucket) from None


def _refuse_if_full(stack: Stack, name: str) -> None:
    """Raise InputError if a bucket holds something. What the store counts may be behind what it lists."""
    seen = contents.read_contents(stack, _api(stack), name, contents.head(_api(stack), name) or {})
    is_listed = any(any(_pages(stack, container)) for container in (name, name + contents.SEGMENTS))
    if is_listed or seen.versions or seen.markers or seen.uploads:
        raise InputError(
            f"the bucket {name} is not empty: {seen}", next_step="`bucket empty` deletes all of that, after asking"
        )
