"""The bucket: a Swift container, which S3 shows under the same name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from openstack import exceptions as sdk

from larder.errors import InputError, ServiceError
from larder.terminal import join_lines
from provision import answers, marks
from provision.cloud_errors import RUN_AGAIN
from provision.clouds import poll_until
from provision.declaration import BUCKET
from provision.marks import Resource
from provision.stack import Stack

HEADER = f"X-Container-Meta-{marks.HEADER}"
REMOVED_HEADER = f"X-Remove-Container-Meta-{marks.HEADER}"
ACCEPTED = 202
"""Swift's status if the bucket to create already exists."""
PER_CALL = 1000
"""Names per bulk delete. Swift accepts 10,000, but then answers late."""
EMPTY_SECONDS = 60.0


def _api(stack: Stack) -> Any:
    return stack.clouds.objects.client("object-store")


def _read(stack: Stack, name: str) -> Resource | None:
    answer = _api(stack).head(f"/{quote(name)}")
    if answer.status_code == 404:
        return None
    sdk.raise_from_response(answer)
    count, size = (
        answers.validate_whole_number(answer.headers.get(f"X-Container-{what}", 0), f"{what} of the bucket {name}")
        for what in ("Object-Count", "Bytes-Used")
    )
    owner = answer.headers.get(HEADER, "")
    ours = owner == stack.owner_at(stack.clouds.objects)
    return Resource("bucket", name, name, "", f"{count} objects, {size} bytes", ours, answer.headers, owner)


def find(stack: Stack) -> Resource | None:
    """Return the declared bucket, or None."""
    assert stack.declaration.bucket
    with stack.translate_errors("look at the bucket", stack.clouds.objects):
        bucket = _read(stack, stack.declaration.bucket.name)
    return marks.select_one([bucket] if bucket else [], stack.adopt, unique_names=True)


def list_ours(stack: Stack) -> list[Resource]:
    """Return all buckets that carry our mark, declared or not."""
    with stack.translate_errors("list buckets", stack.clouds.objects):
        names = [item.name for item in _api(stack).containers() if re.fullmatch(BUCKET, str(item.name))]
        buckets = [_read(stack, name) for name in names]
    return [item for item in buckets if item is not None and item.ours]


def create(stack: Stack) -> None:
    """Create the bucket, or mark an adopted one. Raises InputError if someone else creates it at the same time."""
    assert stack.declaration.bucket
    name = stack.declaration.bucket.name
    with stack.translate_errors(f"make the bucket {name}", stack.clouds.objects):
        answer = _api(stack).put(f"/{quote(name)}", headers={HEADER: stack.owner_at(stack.clouds.objects)})
        sdk.raise_from_response(answer)
        if answer.status_code == ACCEPTED and not stack.adopt:
            answer = _api(stack).post(f"/{quote(name)}", headers={REMOVED_HEADER: "x"})
            sdk.raise_from_response(answer)
            raise InputError(
                f"the bucket {name} was created by someone else at this moment",
                next_step="run this again: it says whose the bucket is",
            )


def empty(stack: Stack, bucket: Resource) -> int:
    """Delete every object of a bucket, and return their number."""
    deleted = 0
    with stack.reporter.task(f"empty {bucket.name}", None, "objects") as task:
        for names in _pages(stack, bucket):
            _delete(stack, bucket, names)
            deleted += len(names)
            task.advance(len(names))
    return deleted


def _pages(stack: Stack, bucket: Resource) -> Iterator[list[str]]:
    """Yield pages of a bucket's object names, each time from the start, until the bucket is empty."""
    before: list[str] = []
    while True:
        with stack.translate_errors(f"list the bucket {bucket.name}", stack.clouds.objects):
            answer = _api(stack).get(f"/{quote(bucket.name)}", params={"format": "json", "limit": PER_CALL})
            sdk.raise_from_response(answer)
            names = [str(item["name"]) for item in answer.json()] if answer.status_code == 200 else []
        if not names:
            return
        if names == before:
            raise ServiceError(
                f"bucket {bucket.name}: {len(names)} objects stay although they were deleted", next_step=RUN_AGAIN
            )
        yield names
        before = names


def _delete(stack: Stack, bucket: Resource, names: Sequence[str]) -> None:
    """Delete objects. Swift's bulk delete always answers 200; the result is in the body."""
    with stack.translate_errors(f"empty the bucket {bucket.name}", stack.clouds.objects):
        listed = "\n".join(quote(f"{bucket.name}/{name}") for name in names)
        headers = {"Content-Type": "text/plain", "Accept": "application/json"}
        answer = _api(stack).post("?bulk-delete", data=listed.encode(), headers=headers)
        if answer.status_code in (404, 405, 501) or not _is_result(answer):
            errors = _delete_singly(stack, bucket, names)
        else:
            result = answer.json()
            errors = [f"{name}: {status}" for name, status in result["Errors"]]
            if not errors and not result["Response Status"].startswith("2"):
                errors = [result["Response Status"] + " " + result.get("Response Body", "")]
    if errors:
        shown = (f"  - {error}" for error in errors[:10])
        raise ServiceError(
            join_lines(f"bucket {bucket.name}: {len(errors)} objects could not be deleted:", *shown),
            next_step=f"see their causes above; {RUN_AGAIN}",
        )


def _is_result(answer: Any) -> bool:
    """Return whether the store supports bulk deletes; a store without them misreads the request."""
    sdk.raise_from_response(answer)
    try:
        return "Response Status" in answer.json()
    except ValueError:
        return False


def _delete_singly(stack: Stack, bucket: Resource, names: Sequence[str]) -> list[str]:
    errors = []
    for name in names:
        if {".", ".."} & {*name.split("/")}:  # such a path would be normalized on the way, and name another object
            errors.append(f"{name}: a name that can't be requested; delete it in the site's web interface")
            continue
        status = _api(stack).delete(f"/{quote(bucket.name)}/{quote(name)}").status_code
        errors += [f"{name}: {status}"] if status not in (204, 404) else []
    return errors


def delete(stack: Stack, bucket: Resource) -> None:
    """Delete an empty bucket. Raises InputError if it isn't empty."""

    def gone() -> bool | None:
        with stack.translate_errors(f"delete the bucket {bucket.name}", stack.clouds.objects):
            answer = _api(stack).delete(f"/{quote(bucket.name)}")
            if answer.status_code == 409:
                _refuse_if_full(stack, bucket)
                return None  # the store hasn't noticed yet that the bucket is empty
            if answer.status_code != 404:
                sdk.raise_from_response(answer)
        return True

    poll_until(stack.reporter, f"the bucket {bucket.name} is gone", gone, EMPTY_SECONDS, RUN_AGAIN)


def _refuse_if_full(stack: Stack, bucket: Resource) -> None:
    if any(_pages(stack, bucket)):
        raise InputError(
            f"the bucket {bucket.name} is not empty", next_step="`bucket empty` deletes its objects, after asking"
        )
