"""Send requests to a store: retry temporary failures, and reject endless listings."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from larder.errors import ServiceError
from larder.next_step import StageRun
from larder.s3_faults import NO_CONTACT, S3_ERRORS, explain_s3_error

Page = list[dict[str, Any]]
"""The entries of one page of a listing."""
Q = TypeVar("Q")
R = TypeVar("R")

CHECK_STORE = f"check S3_ENDPOINT_URL; {StageRun('s3', 'check')} diagnoses the store"
"""Next step for an answer that no store should give."""
_PAUSES_SECONDS = (0.3, 1.0, 3.0, 9.0)
"""Pauses between the attempts of one request."""
_SPARSE_PAGES, _SPARSE_ITEMS = 1000, 10
"""After 1000 pages, a listing must have at least 10 entries per page on average; stores send a thousand."""


class S3Requests:
    """The requests to one store. It remembers whether the store has ever answered."""

    def __init__(self, endpoint: str) -> None:
        """Send requests to the store at `endpoint`, which is empty for AWS."""
        self._endpoint, self._answered = endpoint, False

    def send(self, what: str, request: Callable[[Q], R], argument: Q) -> R:
        """Return `request(argument)`, and retry temporary failures after growing pauses.

        Nothing is retried if the store has never answered: its address is more likely wrong than its network down.
        tenacity would save six lines, but takes 50 ms to import in each run that uses a store.

        Args:
            what: What is requested, for messages, as in "reading s3://bucket/key".
            request: Sends the request with a client of botocore.
            argument: Argument of `request`.

        Raises:
            ConfigurationError: If the store refuses the request.
            ServiceError: If the store fails, or its response lacks a field that `request` reads.
        """
        for pause in (*_PAUSES_SECONDS, None):
            try:
                response = request(argument)
            except KeyError as fault:
                raise ServiceError(
                    f"{what}: the store's answer has no {fault.args[0]}", next_step=CHECK_STORE
                ) from fault
            except S3_ERRORS as fault:
                error = explain_s3_error(fault, what, self._endpoint)
                is_transient = isinstance(error, ServiceError) and (self._answered or not isinstance(fault, NO_CONTACT))
                if pause is None or not is_transient:
                    raise error from fault
                time.sleep(pause * random.uniform(0.5, 1.5))
            else:
                self._answered = True
                return response
        raise AssertionError("unreachable")

    def pages(
        self, what: str, request: Callable[[dict[str, str]], Any], kind: str, next_parameters: dict[str, str]
    ) -> Iterator[Page]:
        """Yield the items of each page of a listing.

        Args:
            what: What is listed, for messages.
            request: Requests a page, given the parameters with which the listing continues.
            kind: Field of the response that holds the items.
            next_parameters: Field of the last response for each of those parameters.

        Raises:
            ServiceError: If the listing is endless: it repeats a page, gives no position to continue from, or has
                hardly any entries on many pages.
        """
        continuation: dict[str, str] = {}
        seen, pages, count = set[int](), 0, 0
        while True:
            page = self.send(what, request, continuation)
            items = page.get(kind) or []
            yield items
            if not page.get("IsTruncated"):
                return
            pages, count = pages + 1, count + len(items)
            continuation = {parameter: page.get(name) or "" for parameter, name in next_parameters.items()}
            marks = {hash(tuple(continuation.values())), *(hash(("first", str(item.get("Key")))) for item in items[:1])}
            if not next(iter(continuation.values())):
                raise _endless_listing_error(what, "it is incomplete and has no continuation token")
            if not marks.isdisjoint(seen):
                raise _endless_listing_error(what, "it gives the same page again")
            if pages > _SPARSE_PAGES and count < pages * _SPARSE_ITEMS:
                raise _endless_listing_error(what, f"{pages:,} pages have {count:,} entries")
            seen |= marks


def _endless_listing_error(what: str, why: str) -> ServiceError:
    return ServiceError(f"{what}: the store's listing is endless: {why}", next_step=CHECK_STORE)
