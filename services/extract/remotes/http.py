"""Files on an http(s) server. Ranges and validators: RFC 9110, sections 13.1.5 and 14."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import requests
import urllib3

from larder import __version__
from larder.errors import ConfigurationError, InputError
from larder.sources.members import CHUNK_BYTES
from services.extract.remotes import ChangedError, Response, TransientError, redact

_TIMEOUT_SECONDS = (15, 60)  # to connect, between bytes
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT_SECONDS = 120.0


class HttpRemote:
    """A file at an http(s) URL. Proxies, .netrc and CA settings are taken from the environment, as curl does."""

    def __init__(self, url: str) -> None:
        self.url, self.name = url, redact(url)

    @contextmanager
    def open(self, offset: int, validator: str) -> Iterator[Response]:
        """See `Remote.open`."""
        headers = {"Accept-Encoding": "identity", "User-Agent": f"larder/{__version__}"}
        if offset and validator:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        with self._ask(headers) as answer:
            self._raise_for_status(answer)
            start, total = _range(answer)
            yield Response(start, total, _validator(answer), self._chunks(answer))

    def _ask(self, headers: dict[str, str]) -> requests.Response:
        try:
            return requests.get(self.url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as fault:
            raise InputError(
                f"{self.name} is not a usable URL, or leads to one", next_step="check LARDER_SOURCE"
            ) from fault
        except requests.exceptions.SSLError as fault:
            if "CERTIFICATE_VERIFY_FAILED" not in str(fault):
                raise TransientError(_brief(fault)) from fault
            raise InputError(
                f"{self.name}: the server's certificate is not trusted ({_brief(fault)})",
                next_step="check the address and this machine's clock; REQUESTS_CA_BUNDLE names other authorities",
            ) from fault
        except requests.RequestException as fault:
            raise TransientError(_brief(fault)) from fault
        except OSError as fault:  # a bundle of certificates that isn't there
            raise ConfigurationError(str(fault), next_step="correct REQUESTS_CA_BUNDLE, or unset it") from fault

    def _raise_for_status(self, answer: requests.Response) -> None:
        status = answer.status_code
        if status == 416:
            raise ChangedError("the server has no bytes at the place where the download broke off")
        if status in _TRANSIENT:
            raise TransientError(f"the server answers {status} {answer.reason}", _retry_after(answer))
        if status >= 400:
            raise InputError(
                f"{self.name}: the server answers {status} {answer.reason}",
                next_step="check LARDER_SOURCE: does the address open in a browser, without logging in?",
            )

    @staticmethod
    def _chunks(answer: requests.Response) -> Iterator[bytes]:
        try:
            while chunk := answer.raw.read(CHUNK_BYTES, decode_content=False):
                yield chunk
        except (urllib3.exceptions.HTTPError, OSError) as fault:
            raise TransientError(_brief(fault)) from fault


def _range(answer: requests.Response) -> tuple[int, int | None]:
    """Where the body starts in the whole file, and how long that is."""
    if answer.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match is None:
            raise TransientError("the server sends a part of the file but does not say which")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdecimal() else None


def _validator(answer: requests.Response) -> str:
    """A strong ETag, else the date: a weak ETag may not be used for ranges."""
    etag = answer.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _retry_after(answer: requests.Response) -> float:
    value = answer.headers.get("Retry-After", "")
    return min(float(value), _LONGEST_WAIT_SECONDS) if value.isdecimal() else 0.0


def _brief(fault: BaseException) -> str:
    """The innermost cause, without object addresses and query strings."""
    reason = getattr(fault, "reason", None) or (fault.args[0] if fault.args else None)
    if isinstance(reason, BaseException):
        return _brief(reason)
    first = fault.args[0] if fault.args and isinstance(fault.args[0], str) else str(fault)
    text = re.sub(r"<[^>]*>:? ?", "", first)
    return re.sub(r"\?\S*", "", text) or type(fault).__name__
