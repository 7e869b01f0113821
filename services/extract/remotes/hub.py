"""Data sets of the Hugging Face Hub, through its own library: it knows its tokens, mirrors and ways to resume."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import httpcore2
import httpx2
from huggingface_hub import HfApi, get_token, hf_hub_url, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils._http import default_client_factory, get_session, hf_raise_for_status

from larder.connections import Pace, StalledError
from larder.errors import ConfigurationError, InputError, LarderError, ServiceError
from larder.progress import Reporter
from larder.sources import TooLargeError
from larder.sources.kinds import is_hidden
from larder.sources.members import CHUNK_BYTES, UnsafeNameError, is_litter, refuse, safe_path
from larder.sources.patterns import WILD, as_pattern, fixed_folder
from services.extract.download import download
from services.extract.remotes import ChangedError, Response, StalledDownloadError, TransientError
from services.extract.remotes.addresses import Places
from services.extract.settings import HUB, HubAddress

DEFAULT_ENDPOINT = "https://huggingface.co"

_MOST_ANSWER_BYTES = 64 << 20
_TRIES = 2
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_WAIT_SECONDS = 120.0
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_limit: ContextVar[int] = ContextVar("limit", default=_MOST_ANSWER_BYTES)
"""How many bytes an answer may have: those of a file as it is listed, or what fits into memory."""


class HubFile(NamedTuple):
    """A file of a data set: its path, and what the hub says of it: a sha256, or git's digest of a blob."""

    path: str
    bytes: int
    sha256: str
    blob: str


class Hub:
    """A data set on a hub at one commit.

    Raises InputError when it isn't there, ConfigurationError when a token is missing or wrong.
    """

    def __init__(
        self, address: HubAddress, endpoint: str, token: str, max_files: int, max_download: int, stall_seconds: float
    ) -> None:  # fmt: skip
        self._address, self._max_files, self._max_download = address, max_files, max_download
        self._endpoint, self._token = endpoint or DEFAULT_ENDPOINT, token or None
        self.name = f"{HUB}{address.repository}"
        logging.getLogger("huggingface_hub").setLevel(
            logging.CRITICAL
        )  # what it warns of is raised, too, or is retried
        set_client_factory(_client_factory(self._endpoint, stall_seconds))
        self._api = HfApi(self._endpoint, token=self._token)
        with self._explained(f"looking up {self.name}"):
            info = self._api.dataset_info(address.repository, revision=address.revision or None)
        if not isinstance(info.sha, str) or not re.fullmatch("[0-9a-f]{40}", info.sha):
            raise self._senseless(f"looking up {self.name}", "it names no commit")
        self.commit: str = info.sha

    def files(self) -> list[HubFile]:
        """The files that the address names, without hidden ones. Raises InputError when there are none."""
        path = self._address.path
        with self._explained(f"listing {self.name}"):
            if not path or WILD.search(path):
                pattern = as_pattern(path) if path else None
                tree = self._tree(fixed_folder(path).rstrip("/"))
                found: Iterable[RepoFile] = (file for file in tree if not pattern or pattern.fullmatch(file.path))
            else:
                items = self._at(path)
                file = next((item for item in items if isinstance(item, RepoFile)), None)
                found = [file] if file is not None else self._tree(path) if items else ()
            files = list(self._checked(found))
        if not files:
            raise InputError(
                f"{self.name}{f'/{path}' if path else ''} holds no files at the commit {self.commit[:12]}",
                next_step=f"look at {self._endpoint}/datasets/{self._address.repository}/tree/{self.commit}",
            )
        return files

    def card(self) -> HubFile | None:
        """The data set's README.md, if it has one."""
        with self._explained(f"looking for the card of {self.name}"):
            return next(self._checked(item for item in self._at("README.md") if isinstance(item, RepoFile)), None)

    def _at(self, path: str) -> list[Any]:
        """The file or folder at a path, if any."""
        return list(
            self._api.get_paths_info(self._address.repository, [path], revision=self.commit, repo_type="dataset")
        )

    def _tree(self, folder: str) -> Iterator[RepoFile]:
        items: Iterable[Any] = self._api.list_repo_tree(
            self._address.repository, folder or None, recursive=True, revision=self.commit, repo_type="dataset"
        )
        for number, item in enumerate(items):
            if number >= 2 * self._max_files:  # files and folders: a listing without an end has one here
                raise self._too_many()
            if isinstance(item, RepoFile):
                yield item

    def _checked(self, files: Iterable[RepoFile]) -> Iterator[HubFile]:
        """What is listed, without hidden files. Raises BadSourceError for a path that leaves the folder."""
        met: set[str] = set()
        for file in files:
            sha256 = file.lfs.sha256 if file.lfs else ""
            size = file.lfs.size if file.lfs else file.size
            texts = isinstance(file.path, str) and isinstance(file.blob_id, str) and isinstance(sha256, str)
            if not texts or not isinstance(size, int) or size < 0:
                raise self._senseless(f"listing {self.name}", f"it lists {str(file.path)[:200]!r} of {size!r} bytes")
            if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
                raise self._senseless(f"listing {self.name}", f"{file.path!r} has the sha256 {sha256[:80]!r}")
            try:
                if safe_path(file.path) != file.path:
                    raise UnsafeNameError("is no plain path")
            except UnsafeNameError as fault:
                raise refuse(self.name, file.path, fault) from None
            if file.path in met:
                raise self._senseless(f"listing {self.name}", f"it lists {file.path!r} twice")
            met.add(file.path)
            if len(met) > self._max_files:
                raise self._too_many()
            if not is_hidden(file.path) and not is_litter(file.path):
                yield HubFile(file.path, size, sha256, file.blob_id)

    def fetch(self, file: HubFile, scratch: Path, reporter: Reporter) -> Path:
        """Bring a file to this machine, and check its bytes; what an earlier run brought of it is continued."""
        remote = _HubRemote(self, file)
        folder = scratch / hashlib.sha256(f"{self.commit} {file.path}".encode()).hexdigest()[:16]
        for _ in range(_TRIES):
            path = download(remote, folder, reporter, self._max_download)
            if path.stat().st_size == file.bytes and _has_digest(path, file):
                return path
            path.unlink()
        raise ServiceError(
            f"fetching {remote.name}: the hub sends other bytes than its listing says",
            next_step="run again; if it stays so, report it there",
        )

    @contextmanager
    def answer(self, file: HubFile, offset: int) -> Iterator[httpx2.Response]:
        """The hub's answer to a request for a file, from a byte on. Raises TransientError when another try may help."""
        url = hf_hub_url(
            self._address.repository, file.path, repo_type="dataset", revision=self.commit, endpoint=self._endpoint
        )
        headers = self._api._build_hf_headers() | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with ExitStack() as stack:
            with self._explained(f"fetching {self.name}/{file.path}"), _at_most(file.bytes):
                try:
                    answer = stack.enter_context(get_session().stream("GET", url, headers=headers))
                    if answer.status_code >= 400:
                        answer.read()
                except httpx2.TransportError as fault:
                    if _UNTRUSTED in str(fault):
                        raise
                    raise _transient(fault) from fault
                if answer.status_code == 416:
                    raise ChangedError("the hub has no bytes at the place where the download broke off")
                if answer.status_code in _PASSING:
                    wait = answer.headers.get("Retry-After", "")
                    seconds = min(float(wait), _LONGEST_WAIT_SECONDS) if wait.isdecimal() else 0.0
                    raise TransientError(f"the hub answers {answer.status_code}", seconds)
                hf_raise_for_status(answer)
            yield answer

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turn what the library raises into an error that says what to do."""
        page = f"{self._endpoint}/datasets/{self._address.repository}"
        try:
            yield
        except (LarderError, TransientError):
            raise
        except GatedRepoError as fault:
            raise ConfigurationError(
                f"{what}: its owner asks people to accept conditions, and this token's user hasn't"
                if self._has_token()
                else f"{what}: only people who have accepted its conditions may have it",
                next_step=f"accept them at {page}, and set HF_TOKEN to a token of yours",
            ) from fault
        except RepositoryNotFoundError as fault:
            known = "for this token's user" if self._has_token() else "in public"
            raise InputError(
                f"{what}: there is no such data set {known}",
                next_step=f"check the name at {page}; set HF_TOKEN if it is private",
            ) from fault
        except RevisionNotFoundError as fault:
            raise InputError(
                f"{what}: it has no branch, tag or commit {self._address.revision!r}",
                next_step=f"choose one at {page}/tree/main",
            ) from fault
        except OfflineModeIsEnabled as fault:
            raise ConfigurationError(f"{what}: HF_HUB_OFFLINE is set", next_step="unset it, then run again") from fault
        except EntryNotFoundError as fault:
            raise InputError(f"{what}: there is no such file", next_step=f"look at {page}/tree/main") from fault
        except HfHubHTTPError as fault:
            raise self._from_http(what, fault) from fault
        except httpx2.HTTPError as fault:
            raise self._silent(what, fault) from fault
        except HFValidationError as fault:
            raise ConfigurationError(f"{what}: {_short(fault)}", next_step="check LARDER_SOURCE") from fault
        except (ValueError, KeyError, TypeError, AttributeError, httpx2.InvalidURL) as fault:
            raise self._senseless(what, _short(fault)) from fault
        except OSError as fault:
            if fault.errno is not None:
                raise
            raise ServiceError(f"{what}: {_short(fault)}", next_step="run again: what has arrived stays") from fault

    def _from_http(self, what: str, fault: HfHubHTTPError) -> LarderError:
        status = fault.response.status_code
        if status in (401, 403):
            return ConfigurationError(
                f"{what}: the hub refuses {'this token' if self._has_token() else 'it without a token'} ({status})",
                next_step="set HF_TOKEN to a token that may read this data set",
            )
        if status == 404:
            return InputError(f"{what}: there is no such thing (404)", next_step="check LARDER_SOURCE")
        return ServiceError(f"{what}: the hub answers {status}", next_step="run again later: what has arrived stays")

    def _silent(self, what: str, fault: BaseException | None) -> LarderError:
        if fault is not None and _UNTRUSTED in str(fault):
            return ConfigurationError(
                f"{what}: the certificate of {self._endpoint} can't be verified",
                next_step="set SSL_CERT_FILE to a file with the certificate of the authority that signed it",
            )
        return ServiceError(
            f"{what}: {self._endpoint} doesn't answer, or breaks off ({_short(fault) or 'no answer'})",
            next_step="check the network and HF_ENDPOINT, or raise LARDER_STALL_SECONDS; then run again: what has "
            "arrived stays",
        )

    def _senseless(self, what: str, why: str) -> LarderError:
        return ServiceError(
            f"{what}: {self._endpoint} answers, but not as a hub does ({why})", next_step="check HF_ENDPOINT"
        )

    def _too_many(self) -> TooLargeError:
        return TooLargeError(
            f"{self.name} holds more than {self._max_files:,} files",
            next_step="if you trust it, raise LARDER_MAX_FILES and run again",
        )

    def _has_token(self) -> bool:
        return bool(self._token or get_token())


def _client_factory(endpoint: str, stall_seconds: float) -> Callable[[], httpx2.Client]:
    """The library's own client, with limits for silence and for an answer's bytes, and no way from https to http, nor
    from the internet into this machine's network.
    """
    host, places = httpx2.URL(endpoint).host, Places(endpoint)
    places.require_host(host)
    places.is_source = False

    def bound(request: httpx2.Request) -> None:
        limits = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {
            part: limits.get(part) or stall_seconds for part in ("connect", "read", "write", "pool")
        }
        if endpoint.startswith("https:") and request.url.scheme != "https":
            raise InputError(
                f"{endpoint} leads from https to {request.url.scheme}://{request.url.host}",
                next_step="check HF_ENDPOINT: nobody could tell whether such bytes are the hub's",
            )

        if request.url.host != host:
            places.require_host(request.url.host)  # which a proxy would connect to

    def cap(response: httpx2.Response) -> None:
        response.stream = _Capped(response.stream, _limit.get())

    def make() -> httpx2.Client:
        client = default_client_factory()
        client.event_hooks = {"request": [*client.event_hooks["request"], bound], "response": [cap]}
        # The client gives no access to its connections; the alternative is to rebuild the whole transport.
        _use(client._transport, _CheckedNetwork(places, httpx2.URL(endpoint).raw_host.decode(), stall_seconds))
        for proxy in filter(None, client._mounts.values()):
            _use(proxy, _PacedNetwork(stall_seconds))
        return client

    return make


def _use(transport: Any, network: httpcore2.NetworkBackend) -> None:
    transport._pool._network_backend = network


class _PacedNetwork(httpcore2.SyncBackend):
    """Connections whose answers must make progress."""

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds

    def connect_tcp(self, host: str, port: int, *arguments: Any, **named: Any) -> httpcore2.NetworkStream:
        """Connect to a host."""
        return _PacedStream(super().connect_tcp(host, port, *arguments, **named), self._stall_seconds)


class _CheckedNetwork(_PacedNetwork):
    """Connects to the hub wherever it is, and for others to addresses that redirects may lead to."""

    def __init__(self, places: Places, hub: str, stall_seconds: float) -> None:
        super().__init__(stall_seconds)
        self._places, self._hub = places, hub

    def connect_tcp(self, host: str, port: int, *arguments: Any, **named: Any) -> httpcore2.NetworkStream:
        """Connect to the first of the host's addresses that answers: to the very one that was checked."""
        try:
            resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as fault:
            raise httpcore2.ConnectError(f"{host}: {fault}") from fault
        found = dict.fromkeys(str(place[0]) for *_, place in resolved)
        for address in found:
            (self._places.add if host == self._hub else self._places.require_allowed)(address)
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in found:
            try:
                return super().connect_tcp(address, port, *arguments, **named)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as fault:
                failure = fault
        raise failure


class _PacedStream(httpcore2.NetworkStream):
    """A connection whose answers must make progress."""

    def __init__(self, stream: httpcore2.NetworkStream, stall_seconds: float) -> None:
        self._stream, self._stall_seconds = stream, stall_seconds
        self._pace = Pace(stall_seconds)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read what has arrived. Raises ReadTimeout when that is too little in the stall time."""
        begin = time.monotonic()
        data = self._stream.read(max_bytes, timeout)
        try:
            if data:
                self._pace.add(len(data), time.monotonic() - begin)
        except StalledError as fault:
            raise httpcore2.ReadTimeout(str(fault)) from fault
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send part of a request, and measure the pace of the answer from here on."""
        self._pace = Pace(self._stall_seconds)
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(self, *arguments: Any, **named: Any) -> httpcore2.NetworkStream:
        """Go on with TLS."""
        return _PacedStream(self._stream.start_tls(*arguments, **named), self._stall_seconds)

    def get_extra_info(self, info: str) -> Any:
        """What is known of the connection."""
        return self._stream.get_extra_info(info)


class _Capped(httpx2.SyncByteStream):
    """A body that may not be longer than a limit."""

    def __init__(self, stream: Any, most: int) -> None:
        self._stream, self._most = stream, most

    def __iter__(self) -> Iterator[bytes]:
        received = 0
        for chunk in self._stream:
            received += len(chunk)
            if received > self._most:
                raise ServiceError(
                    f"the hub sends more than the {self._most:,} bytes that are expected", next_step="check HF_ENDPOINT"
                )
            yield chunk

    def close(self) -> None:
        """Close the connection, or give it back."""
        self._stream.close()


@contextmanager
def _at_most(count: int) -> Iterator[None]:
    """Answers may have so many bytes, within this thread; a page with an error fits in any case."""
    token = _limit.set(max(count, 1 << 20))
    try:
        yield
    finally:
        _limit.reset(token)


def _has_digest(path: Path, file: HubFile) -> bool:
    with path.open("rb") as content:
        if file.sha256:
            return hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
        digest = hashlib.sha1(b"blob %d\0" % file.bytes, usedforsecurity=False)  # as git names a file's content
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == file.blob


def _short(fault: BaseException | None) -> str:
    """One line without the address's query, which may hold a signature."""
    return re.sub(r"\?\S*", "", " ".join(str(fault or "").split()))[:200]


class _HubRemote:
    """A file of a hub as a remote: see `Remote`. At one commit it never changes."""

    def __init__(self, hub: Hub, file: HubFile) -> None:
        self.name = f"{hub.name}/{file.path}"
        self._hub, self._file = hub, file

    @contextmanager
    def open(self, offset: int, validator: str) -> Iterator[Response]:
        """See `Remote.open`."""
        digest = self._file.sha256 or self._file.blob
        with self._hub.answer(self._file, offset if validator == digest else 0) as answer:
            match = re.fullmatch(r"bytes (\d{1,18})-\d+/(?:\d+|\*)", answer.headers.get("Content-Range", ""))
            if answer.status_code == 206 and match is None:
                raise TransientError("the hub sends a part of the file but does not say which")
            start = int(match[1]) if match and answer.status_code == 206 else 0
            yield Response(start, self._file.bytes, digest, _chunks(answer))


def _chunks(answer: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from answer.iter_raw(CHUNK_BYTES)
    except httpx2.TransportError as fault:
        raise _transient(fault) from fault


def _transient(fault: httpx2.TransportError) -> TransientError:
    if isinstance(fault, httpx2.ReadTimeout):
        return StalledDownloadError(_short(fault) or "the hub has stopped sending")
    return TransientError(_short(fault))
