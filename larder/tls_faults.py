"""Find the wrong setting behind a failed TLS connection, from the errors of all HTTP clients that larder uses."""

from __future__ import annotations

import functools
import socket
import ssl
from http.client import BadStatusLine
from typing import Literal
from urllib.parse import urlsplit

from larder.connections import error_chain

TlsFault = Literal["certificate", "speaks http", "speaks https", "bundle", ""]
"""Cause: the certificate isn't trusted; the address says https but the port speaks http; the address says http but the
port speaks https; the file with CA certificates can't be read; unknown ("")."""

_TLS_SECONDS = 5
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "x509: ")
_PLAIN = (
    "WRONG_VERSION_NUMBER",
    "UNKNOWN_PROTOCOL",
    "record layer failure",
    "server gave HTTP response to HTTPS client",
)
_TLS = (
    "HTTP request to an HTTPS server",
    "plain HTTP request was sent to HTTPS",
    "speaking plain HTTP to an SSL-enabled",
)
_ALERT = ("\x15\x03", "\\x15\\x03")
"""First bytes of the alert that a TLS server sends to a client that speaks http."""


def find_tls_fault(text: str) -> TlsFault:
    """Return the cause that the message of a client or server names, or ""."""
    if any(sign in text for sign in _UNTRUSTED):
        return "certificate"
    if any(sign in text for sign in _PLAIN):
        return "speaks http"
    if any(sign in text for sign in (*_TLS, *_ALERT)):
        return "speaks https"
    return ""


def tls_fault_of(error: BaseException) -> TlsFault:
    """Return the cause that a client's error, or an error wrapped in it, points to, or ""."""
    chain = list(error_chain(error))
    if any(isinstance(item, ssl.SSLCertVerificationError) for item in chain):
        return "certificate"
    if any(isinstance(item, FileNotFoundError | IsADirectoryError | PermissionError) for item in chain):
        return "bundle"  # a client opens no other file
    if any(isinstance(item, ssl.SSLError) and item.reason == "NO_CERTIFICATE_OR_CRL_FOUND" for item in chain):
        return "bundle"
    if any(isinstance(item, BadStatusLine) and str(item.args[0]).startswith(_ALERT) for item in chain):
        return "speaks https"
    return find_tls_fault(str(error))


@functools.cache
def speaks_tls(host: str, port: int) -> bool:
    """Connect to a port, and return whether it speaks TLS. Some servers just close the connection of an http client."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the server's identity doesn't matter here
    try:
        with socket.create_connection((host, port), _TLS_SECONDS) as connection:
            context.wrap_socket(connection, server_hostname=host).close()
    except (OSError, ValueError):  # ssl's errors are OSErrors, too
        return False
    return True


def speaks_tls_unasked(url: str) -> bool:
    """Return whether the address begins with http:// although its port speaks TLS."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and speaks_tls(parts.hostname or "", parts.port or 80)
    except ValueError:
        return False


def verify_fault(text: str) -> str:
    """Return OpenSSL's or Go's reason why a certificate isn't trusted, such as "self-signed certificate"."""
    _, _, tail = text.partition("certificate verify failed: ")
    return tail.partition(" (_ssl")[0] or text.partition("x509: ")[2].partition('"')[0] or "it is not trusted"
