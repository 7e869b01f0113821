"""Datasets of the Hugging Face Hub, read with its own library, which handles tokens, mirrors and revisions."""

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
from larder.sources.members import BUFFER_BYTES, UnsafeNameError, is_litter, safe_path, unsafe_source_error
from larder.sources.patterns import WILD, as_pattern, fixed_folder
from services.extract.download import download
from services.extract.remotes import ChangedError, Response, StalledDownloadError, TransientError
from services.extract.remotes.addresses import AddressPolicy
from services.extract.settings import HUB, HubAddress

DEFAULT_ENDPOINT = "https://huggingface.co"

_MAX_RESPONSE_BYTES = 64 << 20
_TRIES = 2
_TRANSIENT_STATUSES = {408, 425, 429, 500, 502, 503, 504}
_MAX_WAIT_SECONDS = 120.0
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_limit: ContextVar[int] = ContextVar("limit", default=_MAX_RESPONSE_BYTES)
"""Maximum bytes of a response: the listed size for a file, else what fits into memory."""


class HubFile(NamedTuple):
    """A file of a dataset, with the Hub's sha256 or git blob digest."""

    path: str
    bytes: int
    sha256: str
    blob: str


class HubDataset:
    """A dataset on a hub, at one commit.

    Raises InputError if it doesn't exist, ConfigurationError if a token is missing or wrong.
    """

    def __init__(
        self, address: HubAddress, endpoint: str, token: str, max_files: int, max_download: int, stall_seconds: float
    ) -> None:
        self._address, self._max_files, self._max_download = address, max_files, max_download
        self._endpoint, self._token = endpoint or DEFAULT_ENDPOINT, token or None
        self.name = f"{HUB}{address.repository}"
        logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)  # it also raises or retries what it warns of
        set_client_factory(_client_factory(self._endpoint, stall_seconds))
        self._api = HfApi(self._endpoint, token=self._token)
        with self._map_hub_errors(f"looking up {self.name}"):
            info = self._api.dataset_info(address.repository, revision=address.revision or None)
        if not isinstance(info.sha, str) or not re.fullmatch("[0-9a-f]{40}", info.sha):
            raise self._malformed_response_error(f"looking up {self.name}", "it names no commit")
        self.commit: str = info.sha

    def files(self) -> list[HubFile]:
        """Return the files that the address names, without hidden ones. Raises InputError if there are none."""
        path = self._address.path
        with self._map_hub_errors(f"listing {self.name}"):
            if not path or WILD.search(path):
                pattern = as_pattern(path) if path else None
                tree = self._tree(fixed_folder(path).rstrip("/"))
                listed: Iterable[RepoFile] = (file for file in tree if not pattern or pattern.fullmatch(file.path))
            else:
                items = self._find_path(path)
                file = next((item for item in items if isinstance(item, RepoFile)), None)
                listed = [file] if file is not None else self._tree(path) if items else ()
            files = list(self._validate_files(listed))
        if not files:
            raise InputError(
                f"{self.name}{f'/{path}' if path else ''} holds no files at the commit {self.commit[:12]}",
                next_step=f"look at {self._endpoint}/datasets/{self._address.repository}/tree/{self.commit}",
            )
        return files

    def card(self) -> HubFile | None:
        """Return the dataset's README.md, or None."""
        with self._map_hub_errors(f"looking for the card of {self.name}"):
            return next(
                self._validate_files(item for item in self._find_path("README.md") if isinstance(item, RepoFile)), None
            )

    def _find_path(self, path: str) -> list[Any]:
        """Return the file or folder at a path, if any."""
        return list(
            self._api.get_paths_info(self._address.repository, [path], revision=self.commit, repo_type="dataset")
        )

    def _tree(self, folder: str) -> Iterator[RepoFile]:
        items: Iterable[Any] = self._api.list_repo_tree(
            self._address.repository, folder or None, recursive=True, revision=self.commit, repo_type="dataset"
        )
        for number, item in enumerate(items):
            if number >= 2 * self._max_files:  # files and folders; stops an endless listing
                raise self._too_many_files_error()
            if isinstance(item, RepoFile):
                yield item

    def _validate_files(self, files: Iterable[RepoFile]) -> Iterator[HubFile]:
        """Validate listed files and drop hidden ones. Raises BadSourceError for a path outside the folder."""
        seen: set[str] = set()
        for file in files:
            sha256 = file.lfs.sha256 if file.lfs else ""
            size = file.lfs.size if file.lfs else file.size
            texts = isinstance(file.path, str) and isinstance(file.blob_id, str) and isinstance(sha256, str)
            if not texts or not isinstance(size, int) or size < 0:
                raise self._malformed_response_error(
                    f"listing {self.name}", f"it lists {str(file.path)[:200]!r} of {size!r} bytes"
                )
            if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
                raise self._malformed_response_error(
                    f"listing {self.name}", f"{file.path!r} has the sha256 {sha256[:80]!r}"
                )
            try:
                if safe_path(file.path) != file.path:
                    raise UnsafeNameError("is not a plain path")
            except UnsafeNameError as fault:
                raise unsafe_source_error(self.name, file.path, fault) from None
            if file.path in seen:
                raise self._malformed_response_error(f"listing {self.name}", f"it lists {file.path!r} twice")
            seen.add(file.path)
            if len(seen) > self._max_files:
                raise self._too_many_files_error()
            if not is_hidden(file.path) and not is_litter(file.path):
                yield HubFile(file.path, size, sha256, file.blob_id)

    def fetch(self, file: HubFile, scratch: Path, reporter: Reporter) -> Path:
        """Download a file, resuming an earlier download, check its digest and return its path."""
        remote = _HubRemote(self, file)
        folder = scratch / hashlib.sha256(f"{self.commit} {file.path}".encode()).hexdigest()[:16]
        for _ in range(_TRIES):
            path = download(remote, folder, reporter, self._max_download)
            if path.stat().st_size == file.bytes and _has_digest(path, file):
                return path
            path.unlink()
        raise ServiceError(
            f"fetching {remote.name}: the hub sends other bytes than its listing says",
            next_step="run again; if it fails again, report it there",
        )

    @contextmanager
    def stream_file(self, file: HubFile, offset: int) -> Iterator[httpx2.Response]:
        """Request a file's bytes from `offset` on. Raises TransientError if a retry may help."""
        url = hf_hub_url(
            self._address.repository, file.path, repo_type="dataset", revision=self.commit, endpoint=self._endpoint
        )
        headers = self._api._build_hf_headers() | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with ExitStack() as stack:
            with self._map_hub_errors(f"fetching {self.name}/{file.path}"), _limit_response(file.bytes):
                try:
                    response = stack.enter_context(get_session().stream("GET", url, headers=headers))
                    if response.status_code >= 400:
                        response.read()
                except httpx2.TransportError as fault:
                    if _UNTRUSTED in str(fault):
                        raise
                    raise _transient(fault) from fault
                if response.status_code == 416:
                    raise ChangedError("the hub has no bytes at the offset where the download broke off")
                if response.status_code in _TRANSIENT_STATUSES:
                    wait = response.headers.get("Retry-After", "")
                    seconds = min(float(wait), _MAX_WAIT_SECONDS) if wait.isdecimal() else 0.0
                    raise TransientError(f"the hub answers {response.status_code}", seconds)
                hf_raise_for_status(response)
            yield response

    @contextmanager
    def _map_hub_errors(self, what: str) -> Iterator[None]:
        """Translate the library's errors into errors with a next step."""
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
                f"{what}: there is no such dataset {known}",
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
            raise self._http_error(what, fault) from fault
        except httpx2.HTTPError as fault:
            raise self._no_response_error(what, fault) from fault
        except HFValidationError as fault:
            raise ConfigurationError(f"{what}: {_short(fault)}", next_step="check LARDER_SOURCE") from fault
        except (ValueError, KeyError, TypeError, AttributeError, httpx2.InvalidURL) as fault:
            raise self._malformed_response_error(what, _short(fault)) from fault
        except OSError as fault:
            if fault.errno is not None:
                raise
            raise ServiceError(f"{what}: {_short(fault)}", next_step="run again: it resumes") from fault

    def _http_error(self, what: str, fault: HfHubHTTPError) -> LarderError:
        status = fault.response.status_code
        if status in (401, 403):
            return ConfigurationError(
                f"{what}: the hub refuses {'this token' if self._has_token() else 'it without a token'} ({status})",
                next_step="set HF_TOKEN to a token that may read this dataset",
            )
        if status == 404:
            return InputError(f"{what}: not found (404)", next_step="check LARDER_SOURCE")
        return ServiceError(f"{what}: the hub answers {status}", next_step="run again later: it resumes")

    def _no_response_error(self, what: str, fault: BaseException | None) -> LarderError:
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

    def _malformed_response_error(self, what: str, why: str) -> LarderError:
        return ServiceError(
            f"{what}: {self._endpoint} answers, but not as a hub does ({why})", next_step="check HF_ENDPOINT"
        )

    def _too_many_files_error(self) -> TooLargeError:
        return TooLargeError(
            f"{self.name} holds more than {self._max_files:,} files",
            next_step="if you trust it, raise LARDER_MAX_FILES and run again",
        )

    def _has_token(self) -> bool:
        return bool(self._token or get_token())


def _client_factory(endpoint: str, stall_seconds: float) -> Callable[[], httpx2.Client]:
    """Return a factory for the library's own client, with limits added.

    The client limits silence and the size of responses. It refuses to go from https to http, and from the internet into
    this machine's network.
    """
    host, policy = httpx2.URL(endpoint).host, AddressPolicy(endpoint)
    policy.require_host(host)
    policy.is_source = False

    def limit_request(request: httpx2.Request) -> None:
        limits = request.extensions.get("timeout") or {}
        request.extensions["timeout"] = {
            part: limits.get(part) or stall_seconds for part in ("connect", "read", "write", "pool")
        }
        if endpoint.startswith("https:") and request.url.scheme != "https":
            raise InputError(
                f"{endpoint} leads from https to {request.url.scheme}://{request.url.host}",
                next_step="check HF_ENDPOINT: such bytes can't be verified",
            )

        if request.url.host != host:
            policy.require_host(request.url.host)  # a proxy would connect to it unchecked

    def limit_response(response: httpx2.Response) -> None:
        response.stream = _LimitedStream(response.stream, _limit.get())

    def make() -> httpx2.Client:
        client = default_client_factory()
        client.event_hooks = {"request": [*client.event_hooks["request"], limit_request], "response": [limit_response]}
        # The client gives no access to its connections; the alternative is to rebuild the whole transport.
        _set_network(client._transport, _CheckedNetwork(policy, httpx2.URL(endpoint).raw_host.decode(), stall_seconds))
        for proxy in filter(None, client._mounts.values()):
            _set_network(proxy, _PacedNetwork(stall_seconds))
        return client

    return make


def _set_network(transport: Any, network: httpcore2.NetworkBackend) -> None:
    transport._pool._network_backend = network


class _PacedNetwork(httpcore2.SyncBackend):
    """Opens connections whose responses must make progress."""

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds

    def connect_tcp(self, host: str, port: int, *arguments: Any, **named: Any) -> httpcore2.NetworkStream:
        """Connect to a host."""
        return _PacedStream(super().connect_tcp(host, port, *arguments, **named), self._stall_seconds)


class _CheckedNetwork(_PacedNetwork):
    """Connects to the hub at any address, and to other hosts only at addresses that redirects may lead to."""

    def __init__(self, policy: AddressPolicy, hub: str, stall_seconds: float) -> None:
        super().__init__(stall_seconds)
        self._policy, self._hub = policy, hub

    def connect_tcp(self, host: str, port: int, *arguments: Any, **named: Any) -> httpcore2.NetworkStream:
        """Connect to the first of the checked addresses that answers."""
        try:
            resolved = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as fault:
            raise httpcore2.ConnectError(f"{host}: {fault}") from fault
        addresses = dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in resolved)
        for address in addresses:
            (self._policy.allow if host == self._hub else self._policy.require_allowed)(address)
        failure: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return super().connect_tcp(address, port, *arguments, **named)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as fault:
                failure = fault
        raise failure


class _PacedStream(httpcore2.NetworkStream):
    """A connection whose responses must make progress."""

    def __init__(self, stream: httpcore2.NetworkStream, stall_seconds: float) -> None:
        self._stream, self._stall_seconds = stream, stall_seconds
        self._pace = Pace(stall_seconds)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read available bytes. Raises ReadTimeout if too few arrive within the stall time."""
        begin = time.monotonic()
        data = self._stream.read(max_bytes, timeout)
        try:
            if data:
                self._pace.add(len(data), time.monotonic() - begin)
        except StalledError as fault:
            raise httpcore2.ReadTimeout(str(fault)) from fault
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send part of a request, and restart the measurement of the response's pace."""
        self._pace = Pace(self._stall_seconds)
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()

    def start_tls(self, *arguments: Any, **named: Any) -> httpcore2.NetworkStream:
        """Start TLS on the connection."""
        return _PacedStream(self._stream.start_tls(*arguments, **named), self._stall_seconds)

    def get_extra_info(self, info: str) -> Any:
        """Return information about the connection."""
        return self._stream.get_extra_info(info)


class _LimitedStream(httpx2.SyncByteStream):
    """A response body with a maximum length."""

    def __init__(self, stream: Any, max_bytes: int) -> None:
        self._stream, self._max_bytes = stream, max_bytes

    def __iter__(self) -> Iterator[bytes]:
        received = 0
        for chunk in self._stream:
            received += len(chunk)
            if received > self._max_bytes:
                raise ServiceError(
                    f"the hub sends more than the {self._max_bytes:,} bytes that are expected",
                    next_step="check HF_ENDPOINT",
                )
            yield chunk

    def close(self) -> None:
        """Close the connection, or give it back."""
        self._stream.close()


@contextmanager
def _limit_response(count: int) -> Iterator[None]:
    """Limit responses within the block to `count` bytes, but allow 1 MiB for an error page."""
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
    """Return the error in one line, without URL queries, which may hold signatures."""
    return re.sub(r"\?\S*", "", " ".join(str(fault or "").split()))[:200]


class _HubRemote:
    """A file of a hub as a `Remote`. At one commit, it never changes."""

    def __init__(self, hub: HubDataset, file: HubFile) -> None:
        self.name = f"{hub.name}/{file.path}"
        self._hub, self._file = hub, file

    @contextmanager
    def open(self, offset: int, validator: str) -> Iterator[Response]:
        """See `Remote.open`."""
        digest = self._file.sha256 or self._file.blob
        with self._hub.stream_file(self._file, offset if validator == digest else 0) as response:
            match = re.fullmatch(r"bytes (\d{1,18})-\d+/(?:\d+|\*)", response.headers.get("Content-Range", ""))
            if response.status_code == 206 and match is None:
                raise TransientError("the hub sends a part of the file without its offset")
            start = int(match[1]) if match and response.status_code == 206 else 0
            yield Response(start, self._file.bytes, digest, _read_body(response))


def _read_body(response: httpx2.Response) -> Iterator[bytes]:
    try:
        yield from response.iter_raw(BUFFER_BYTES)
    except httpx2.TransportError as fault:
        raise _transient(fault) from fault


def _transient(fault: httpx2.TransportError) -> TransientError:
    if isinstance(fault, httpx2.ReadTimeout):
        return StalledDownloadError(_short(fault) or "the hub has stopped sending")
    return TransientError(_short(fault))
