"""Where archives are downloaded from: one module per protocol, all with one interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit, urlunsplit


class Response(NamedTuple):
    """The bytes of a remote file from `offset` on."""

    offset: int
    """Where the chunks really start: 0 when the server ignores ranges or the file has changed."""
    total: int | None
    """Bytes of the whole file, where the server says so."""
    validator: str
    """What identifies this version of the file (an ETag, or a date); empty when the server gives none."""
    chunks: Iterator[bytes]
    url: str = ""
    """Where it came from in the end, after redirects, without secrets."""
    etag: str = ""


class Remote(Protocol):
    """A file on a server."""

    name: str
    """What people are shown: the address without credentials or signatures."""

    def open(self, offset: int, validator: str) -> AbstractContextManager[Response]:
        """Ask for the bytes from `offset` on, of the version that `validator` names.

        Raises InputError when it isn't there or may not be read, ConfigurationError for wrong credentials, and
        TransientError, also while the chunks are read, when another try may help.
        """


class TransientError(Exception):
    """A failure that may pass. `wait_seconds` is how long the server asked to be left alone."""

    def __init__(self, why: str, wait_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


class StalledDownloadError(TransientError):
    """The server is silent, or sends so little that the download would never end."""


class ChangedError(TransientError):
    """The file is another than the one of which the first bytes are here: it must be fetched from its start."""


def shown(source: str) -> str:
    """A source as people are shown it. The key of an object may hold any character, and no secret."""
    return source if source.startswith("s3://") else redact(source)


def redact(url: str) -> str:
    """A URL without user, password, query and fragment, which may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
