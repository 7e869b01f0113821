"""Servers that archives are downloaded from: one module per protocol, one interface for all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit


class Response(NamedTuple):
    """The bytes of a remote file from `offset` on."""

    offset: int
    """Where the chunks start: 0 if the server ignores ranges or the file has changed."""
    total: int | None
    """Bytes of the whole file, if the server states them."""
    validator: str
    """Identifies this version of the file (an ETag or a date); empty if the server sends none."""
    chunks: Iterator[bytes]
    url: str = ""
    """The final URL, after redirects and without secrets."""
    etag: str = ""


class Remote(Protocol):
    """A file on a server."""

    name: str
    """The address for display, without credentials or signatures."""

    def open(self, offset: int, validator: str) -> AbstractContextManager[Response]:
        """Request the bytes from `offset` on, of the version that `validator` names.

        Raises:
            InputError: If the file doesn't exist or may not be read.
            ConfigurationError: If the credentials are wrong.
            TransientError: If a retry may help. Reading the chunks may raise it, too.
        """


class TransientError(Exception):
    """A temporary failure. `wait_seconds` is the pause that the server asked for."""

    def __init__(self, why: str, wait_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


class StalledDownloadError(TransientError):
    """The server sends nothing, or too little for the download to ever finish."""


class ChangedError(TransientError):
    """The file has changed since the download began, and must be downloaded from its start."""


def redact_source(source: str) -> str:
    """Return a source for display. Object keys may hold any character, but no secret."""
    return source if source.startswith("s3://") else redact(source)


def redact(url: str) -> str:
    """Return a URL without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
