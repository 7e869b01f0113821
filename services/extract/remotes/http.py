"""Files on an http(s) server. Ranges and validators: RFC 9110, sections 13.1.5 and 14."""

from __future__ import annotations

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
from larder.connections import StalledError, cause_of, paced
from larder.errors import ConfigurationError, InputError, LarderError
from larder.sources.members import CHUNK_BYTES
from services.extract.remotes import ChangedError, Response, StalledDownloadError, TransientError, redact
from services.extract.remotes.addresses import Places, checked_pools

_CONNECT_SECONDS = 15
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT_SECONDS = 120.0
_MOST_REDIRECTS = 10
_MOST_MESSAGE_BYTES = 4096
_LARGEST_BYTES = (1 << 63) - 1


class HttpRemote:
    """A file at an http(s) URL. Proxies, .netrc and CA settings are taken from the environment, as curl does."""

    def __init__(self, url: str, stall_seconds: float = 60) -> None:
        self.url, self.name = url, redact(url)
        self._stall_seconds = stall_seconds

    @contextmanager
    def open(self, offset: int, validator: str) -> Iterator[Response]:
        """See `Remote.open`."""
        headers = {"Accept-Encoding": "identity", "User-Agent": f"larder/{__version__}"}
        if offset and validator:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        places = Places(self.name)
        with _Session() as session:
            adapter = _Adapter(places, self._stall_seconds)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            with self._follow(session, places, headers) as answer:
                self._raise_for_status(answer)
                start, total = range_of(answer.status_code, answer.headers)
                found = Response(start, total, _validator(answer), self._chunks(answer), redact(str(answer.url)))
                yield found._replace(etag=answer.headers.get("ETag", ""))

    def _follow(self, session: requests.Session, places: Places, headers: dict[str, str]) -> requests.Response:
        """Ask, and go where the server redirects to, as far as that may be."""
        url = self.url
        for _ in range(_MOST_REDIRECTS + 1):
            places.require_host(_host(url))
            answer = self._ask(session, places, url, headers)
            if not answer.is_redirect:
                return answer
            answer.close()
            url = self._next(session, url, answer.headers["location"])
            places.is_source = False
        raise InputError(
            f"{self.name}: more than {_MOST_REDIRECTS} redirects, the last one to {redact(url)}",
            next_step="check LARDER_SOURCE: does the address open in a browser, without logging in?",
        )

    def _next(self, session: requests.Session, url: str, target: str) -> str:
        """The URL that a redirect leads to. User and password stay with the host that they are for."""
        try:
            found = urljoin(url, target.encode("latin-1").decode())  # header lines come as Latin-1
            old, new = urlsplit(url), urlsplit(found)
            if new.scheme not in ("http", "https") or not new.hostname:
                raise ValueError(new.scheme)
            user, at, _ = old.netloc.rpartition("@")
            strips: Any = session.should_strip_auth
            if at and "@" not in new.netloc and not strips(url, found):
                found = new._replace(netloc=f"{user}@{new.netloc}").geturl()
        except ValueError as fault:
            raise InputError(
                f"{self.name} redirects to what is no usable URL: {target[:200]!r}", next_step="check LARDER_SOURCE"
            ) from fault
        if (old.scheme, new.scheme) == ("https", "http"):
            raise InputError(
                f"{self.name} redirects from https to {redact(found)}, without encryption: not followed",
                next_step="check LARDER_SOURCE; if you trust the network, give the http address as LARDER_SOURCE",
            )
        return found

    def _ask(self, session: requests.Session, places: Places, url: str, headers: dict[str, str]) -> requests.Response:
        timeout = (_CONNECT_SECONDS, self._stall_seconds)
        try:
            return session.get(
                url, headers=headers, stream=True, timeout=timeout, allow_redirects=False, verify=_authorities()
            )
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as fault:
            raise InputError(
                f"{self.name} is not a usable URL, or leads to one", next_step="check LARDER_SOURCE"
            ) from fault
        except requests.RequestException as fault:
            silent = places.is_source and cause_of(fault, ConnectionError) is not None
            if silent and tls_faults.speaks_tls_unasked(url):
                raise self._speaks_tls() from fault
            raise self._explained(fault) from fault
        except OSError as fault:  # a bundle of certificates that isn't there
            raise _bad_bundle(fault) from fault

    def _explained(self, fault: Exception) -> LarderError | TransientError:
        """The error for one of a client's: final where another try can't help."""
        found = tls_faults.fault_of(fault)
        if found == "bundle":
            return _bad_bundle(fault)
        if found == "speaks http":
            return ConfigurationError(
                f"{self.name}: the server doesn't speak TLS: it is a plain http port",
                next_step="write LARDER_SOURCE with http://, or give the port that speaks TLS",
            )
        if found == "speaks https":
            return self._speaks_tls()
        if found == "certificate":
            return ConfigurationError(
                f"{self.name}: the server's certificate can't be verified: {tls_faults.verify_fault(str(fault))}",
                next_step="set AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE to a file with the certificate of the authority "
                "that signed it; check the address and this machine's clock",
            )
        return transient(fault)

    def _speaks_tls(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self.name}: the server speaks TLS, and the address says http://",
            next_step="write LARDER_SOURCE with https://",
        )

    def _raise_for_status(self, answer: requests.Response) -> None:
        status = answer.status_code
        if status == 416:
            raise ChangedError("the server has no bytes at the place where the download broke off")
        if status in _TRANSIENT:
            raise TransientError(f"the server answers {status} {answer.reason}", _retry_after(answer))
        if status == 400 and tls_faults.fault_in(_message(answer)) == "speaks https":
            raise self._speaks_tls()
        if status not in (200, 203, 206):
            raise InputError(
                f"{self.name}: the server answers {status} {answer.reason}",
                next_step="check LARDER_SOURCE: does the address open in a browser, without logging in?",
            )

    @staticmethod
    def _chunks(answer: requests.Response) -> Iterator[bytes]:
        try:
            while chunk := answer.raw.read(CHUNK_BYTES, decode_content=False):
                yield chunk
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as fault:
            raise transient(fault) from fault


class _Session(requests.Session):
    """Leaves redirects alone: requests parses them even where it doesn't follow."""

    def resolve_redirects(self, *_: Any, **__: Any) -> Any:
        """Return no redirects."""
        return iter(())


class _Adapter(HTTPAdapter):
    """Connects to checked addresses alone, and requires progress."""

    def __init__(self, places: Places, stall_seconds: float) -> None:
        pools = checked_pools(places)
        self._direct = {scheme: paced(pool, stall_seconds) for scheme, pool in pools.items()}
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
                scheme: paced(pool, self._stall_seconds) for scheme, pool in classes.items()
            }
            manager.paced = True
        return manager


def range_of(status: int, headers: Any) -> tuple[int, int | None]:
    """Return where the body begins in the whole file, and how long that is, None where the server doesn't say.

    Raises TransientError for an answer that contradicts itself, or whose numbers are none.
    """
    length = headers.get("Content-Length")
    found = None if length is None else _number(length, "length")
    if status != 206:
        return 0, found
    match = re.fullmatch(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)", headers.get("Content-Range", "").strip())
    if match is None:
        raise TransientError("the server sends a part of the file but does not say which")
    first, last = _number(match[1], "range"), _number(match[2], "range")
    total = None if match[3] == "*" else _number(match[3], "length")
    if last < first or (total is not None and last >= total) or (found is not None and found != last - first + 1):
        raise TransientError(f"the server contradicts itself: Content-Range: {match[0]}, Content-Length: {length}")
    return first, total


def _number(text: str, of: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > _LARGEST_BYTES:
        raise TransientError(f"the server gives no usable {of}: {text[:40]!r}")
    return int(text)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # which asking for it says
        return ""


def _authorities() -> str | bool:
    """The authorities to trust. requests knows REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE by itself, as True."""
    others = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return True if others else os.environ.get("AWS_CA_BUNDLE") or True


def _bad_bundle(fault: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"the file with certificates can't be read: {_brief(fault)}",
        next_step="correct AWS_CA_BUNDLE (or REQUESTS_CA_BUNDLE), or unset it",
    )


def transient(fault: Exception) -> TransientError:
    """Return the error for what may pass."""
    if stalled := cause_of(fault, StalledError):
        return StalledDownloadError(str(stalled))
    if cause_of(fault, urllib3.exceptions.ReadTimeoutError):
        return StalledDownloadError("the server has stopped sending")
    return TransientError(_brief(fault))


def _message(answer: requests.Response) -> str:
    """The beginning of an answer's body, for people."""
    try:
        return bytes(answer.raw.read(_MOST_MESSAGE_BYTES, decode_content=False)).decode(errors="replace")
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        return ""


def _validator(answer: requests.Response) -> str:
    """A strong ETag, else the date: a weak ETag may not be used for ranges."""
    etag = answer.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else answer.headers.get("Last-Modified", "")


def _retry_after(answer: requests.Response) -> float:
    value = answer.headers.get("Retry-After", "")
    return min(float(value), _LONGEST_WAIT_SECONDS) if re.fullmatch("[0-9]{1,9}", value) else 0.0


def _brief(fault: BaseException) -> str:
    """The innermost cause, without object addresses and query strings."""
    reason = getattr(fault, "reason", None) or (fault.args[0] if fault.args else None)
    if isinstance(reason, BaseException):
        return _brief(reason)
    first = fault.args[0] if fault.args and isinstance(fault.args[0], str) else str(fault)
    text = re.sub(r"<[^>]*>:? ?", "", first)
    return re.sub(r"\?\S*", "", text)[:300] or type(fault).__name__
