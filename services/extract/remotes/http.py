"""Files on an http(s) server. For ranges and validators see RFC 9110, sections 13.1.5 and 14."""

from __future__ import annotations

import http.client
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from larder import __version__, tls_faults
from larder.connections import StalledError, error_chain, find_cause, pace_pool
from larder.errors import ConfigurationError, InputError, LarderError
from larder.sources.members import BUFFER_BYTES
from services.extract.remotes import ChangedError, Response, StalledDownloadError, TransientError, redact
from services.extract.remotes.addresses import AddressPolicy, checked_pools

_CONNECT_SECONDS = 15
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_MAX_WAIT_SECONDS = 120.0
_MAX_REDIRECTS = 10
_MAX_MESSAGE_BYTES = 4096
_NOT_HTTP_ERRORS = (http.client.BadStatusLine, http.client.UnknownProtocol, http.client.LineTooLong)
_MAX_BYTES = (1 << 63) - 1


class HttpRemote:
    """A file at an http(s) URL. Takes proxies, .netrc and CA settings from the environment, as curl does."""

    def __init__(self, url: str, stall_seconds: float = 60) -> None:
        self.url, self.name = url, redact(url)
        self._stall_seconds = stall_seconds

    @contextmanager
    def open(self, offset: int, validator: str) -> Iterator[Response]:
        """See `Remote.open`."""
        headers = {"Accept-Encoding": "identity", "User-Agent": f"larder/{__version__}"}
        if offset and validator:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        policy = AddressPolicy(self.name)
        with _Session() as session:
            adapter = _Adapter(policy, self._stall_seconds)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            with self._follow(session, policy, headers) as response:
                self._raise_for_status(response)
                start, total = parse_content_range(response.status_code, response.headers)
                answer = Response(
                    start, total, _validator(response), self._read_body(response), redact(str(response.url))
                )
                yield answer._replace(etag=response.headers.get("ETag", ""))

    def _follow(self, session: requests.Session, policy: AddressPolicy, headers: dict[str, str]) -> requests.Response:
        """Send the request and follow allowed redirects."""
        url = self.url
        for _ in range(_MAX_REDIRECTS + 1):
            policy.require_host(_host(url))
            response = self._send_request(session, policy, url, headers)
            if not response.is_redirect:
                return response
            response.close()
            url = self._redirect_url(session, url, response.headers["location"])
            policy.is_source = False
        raise InputError(
            f"{self.name}: more than {_MAX_REDIRECTS} redirects, the last one to {redact(url)}",
            next_step="check LARDER_SOURCE: does the address open in a browser, without logging in?",
        )

    def _redirect_url(self, session: requests.Session, url: str, target: str) -> str:
        """Return the URL that a redirect leads to. Send user and password only to their own host."""
        try:
            redirect = urljoin(url, target.encode("latin-1").decode())  # http.client decodes headers as Latin-1
            old, new = urlsplit(url), urlsplit(redirect)
            if new.scheme not in ("http", "https") or not new.hostname:
                raise ValueError(new.scheme)
            user, at, _ = old.netloc.rpartition("@")
            strips: Any = session.should_strip_auth
            if at and "@" not in new.netloc and not strips(url, redirect):
                redirect = new._replace(netloc=f"{user}@{new.netloc}").geturl()
        except ValueError as fault:
            raise InputError(
                f"{self.name} redirects to an invalid URL: {target[:200]!r}", next_step="check LARDER_SOURCE"
            ) from fault
        if (old.scheme, new.scheme) == ("https", "http"):
            raise InputError(
                f"{self.name} redirects from https to {redact(redirect)}, without encryption: not followed",
                next_step="check LARDER_SOURCE; if you trust the network, give the http address as LARDER_SOURCE",
            )
        return redirect

    def _send_request(
        self, session: requests.Session, policy: AddressPolicy, url: str, headers: dict[str, str]
    ) -> requests.Response:
        timeout = (_CONNECT_SECONDS, self._stall_seconds)
        try:
            return session.get(
                url, headers=headers, stream=True, timeout=timeout, allow_redirects=False, verify=_ca_bundle()
            )
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as fault:
            raise InputError(
                f"{self.name} is an invalid URL, or redirects to one", next_step="check LARDER_SOURCE"
            ) from fault
        except requests.RequestException as fault:
            silent = policy.is_source and find_cause(fault, ConnectionError) is not None
            if silent and tls_faults.speaks_tls_unasked(url):
                raise self._tls_expected_error() from fault
            raise self._translate_error(fault) from fault
        except OSError as fault:  # the CA bundle doesn't exist
            raise _ca_bundle_error(fault) from fault

    def _translate_error(self, fault: Exception) -> LarderError | TransientError:
        """Translate a client's error: a LarderError if a retry can't help, else a TransientError."""
        tls_fault = tls_faults.tls_fault_of(fault)
        if tls_fault == "bundle":
            return _ca_bundle_error(fault)
        if tls_fault == "speaks http":
            return ConfigurationError(
                f"{self.name}: the server doesn't speak TLS: it is a plain http port",
                next_step="write LARDER_SOURCE with http://, or give the port that speaks TLS",
            )
        if tls_fault == "speaks https":
            return self._tls_expected_error()
        if tls_fault == "certificate":
            return ConfigurationError(
                f"{self.name}: the server's certificate can't be verified: {tls_faults.verify_fault(str(fault))}",
                next_step="set AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE to a file with the certificate of the authority "
                "that signed it; check the address and this machine's clock",
            )
        return to_transient_error(fault)

    def _tls_expected_error(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self.name}: the server speaks TLS, and the address says http://",
            next_step="write LARDER_SOURCE with https://",
        )

    def _raise_for_status(self, response: requests.Response) -> None:
        status = response.status_code
        if status == 416:
            raise ChangedError("the server has no bytes at the offset where the download broke off")
        if status in _TRANSIENT:
            raise TransientError(f"the server answers {status} {response.reason}", _retry_after(response))
        if status == 400 and tls_faults.find_tls_fault(_message(response)) == "speaks https":
            raise self._tls_expected_error()
        if status not in (200, 203, 206):
            raise InputError(
                f"{self.name}: the server answers {status} {response.reason}",
                next_step="check LARDER_SOURCE: does the address open in a browser, without logging in?",
            )

    @staticmethod
    def _read_body(response: requests.Response) -> Iterator[bytes]:
        try:
            while chunk := response.raw.read(BUFFER_BYTES, decode_content=False):
                yield chunk
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as fault:
            raise to_transient_error(fault) from fault


class _Session(requests.Session):
    """Ignores redirects: requests parses them even if it doesn't follow them."""

    def resolve_redirects(self, *_: Any, **__: Any) -> Any:
        """Return no redirects."""
        return iter(())


class _Adapter(HTTPAdapter):
    """Connects only to checked addresses, and requires progress."""

    def __init__(self, policy: AddressPolicy, stall_seconds: float) -> None:
        pools = checked_pools(policy)
        self._direct = {scheme: pace_pool(pool, stall_seconds) for scheme, pool in pools.items()}
        self._stall_seconds = stall_seconds
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **named: Any) -> None:
        super().init_poolmanager(*arguments, **named)
        self.poolmanager.pool_classes_by_scheme = self._direct

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        manager: Any = super().proxy_manager_for(proxy, **named)
        if "paced" not in vars(manager):
            classes = manager.pool_classes_by_scheme
            manager.pool_classes_by_scheme = {
                scheme: pace_pool(pool, self._stall_seconds) for scheme, pool in classes.items()
            }
            manager.paced = True
        return manager


def parse_content_range(status: int, headers: Any) -> tuple[int, int | None]:
    """Return the body's offset in the file, and the file's length, or None if the server doesn't state it.

    Raises TransientError for a response with contradictory or invalid numbers.
    """
    length = headers.get("Content-Length")
    size = None if length is None else _number(length, "length")
    if status != 206:
        return 0, size
    match = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)", headers.get("Content-Range", "").strip())
    if match is None:
        raise TransientError("the server sends a part of the file without its offset")
    first, last = _number(match[1], "range"), _number(match[2], "range")
    total = None if match[3] == "*" else _number(match[3], "length")
    if last < first or (total is not None and last >= total) or (size is not None and size != last - first + 1):
        raise TransientError(f"the server contradicts itself: Content-Range: {match[0]}, Content-Length: {length}")
    return first, total


def _number(text: str, of: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > _MAX_BYTES:
        raise TransientError(f"the server gives no usable {of}: {text[:40]!r}")
    return int(text)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # the request will report it
        return ""


def _ca_bundle() -> str | bool:
    """Return requests' `verify`: True lets it read REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE itself."""
    requests_bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return True if requests_bundle else os.environ.get("AWS_CA_BUNDLE") or True


def _ca_bundle_error(fault: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"the file with certificates can't be read: {_describe(fault)}",
        next_step="correct AWS_CA_BUNDLE (or REQUESTS_CA_BUNDLE), or unset it",
    )


def to_transient_error(fault: Exception) -> TransientError:
    """Return the TransientError for a client's error."""
    if stalled := find_cause(fault, StalledError):
        return StalledDownloadError(str(stalled))
    if find_cause(fault, urllib3.exceptions.ReadTimeoutError):
        return StalledDownloadError("the server has stopped sending")
    if any(
        isinstance(error, _NOT_HTTP_ERRORS) and not isinstance(error, ConnectionError) for error in error_chain(fault)
    ):
        return TransientError("the server's answer isn't HTTP")
    return TransientError(_describe(fault))


def _message(response: requests.Response) -> str:
    """Return the beginning of a response's body as text."""
    try:
        return bytes(response.raw.read(_MAX_MESSAGE_BYTES, decode_content=False)).decode(errors="replace")
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        return ""


def _validator(response: requests.Response) -> str:
    """Return a strong ETag, else the date. A weak ETag is not valid for ranges."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _retry_after(response: requests.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), _MAX_WAIT_SECONDS) if re.fullmatch("[0-9]{1,9}", value) else 0.0


def _describe(fault: BaseException) -> str:
    """Describe the innermost cause, without object addresses and query strings."""
    reason = getattr(fault, "reason", None) or (fault.args[0] if fault.args else None)
    if isinstance(reason, BaseException):
        return _describe(reason)
    first = fault.args[0] if fault.args and isinstance(fault.args[0], str) else str(fault)
    text = re.sub(r"<[^>]*>:? ?|^\w+\(host=[^)]*\): ?", "", first)
    return re.sub(r"\?\S*", "", text)[:300] or type(fault).__name__
