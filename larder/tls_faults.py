"""Why no TLS connection comes about: what is wrong in the settings, by the errors of every HTTP client that we use."""

from __future__ import annotations

import functools
import socket
import ssl
from http.client import BadStatusLine
from typing import Literal
from urllib.parse import urlsplit

from larder.connections import chain

Fault = Literal["certificate", "speaks http", "speaks https", "bundle", ""]
"""What is wrong: the certificate isn't trusted; the address says https and the port speaks http, or the other way
round; the file with certificates can't be read."""

_TLS_SECONDS = 5
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "x509: ")
_PLAIN = (
    "WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "record layer failure", "server gave HTTP response to HTTPS client",
)  # fmt: skip
_TLS = (
    "HTTP request to an HTTPS server", "plain HTTP request was sent to HTTPS", "speaking plain HTTP to an SSL-enabled",
)  # fmt: skip
_ALERT = ("\x15\x03", "\\x15\\x03")
"""How a TLS server's alert begins, which it sends to who speaks http."""


def fault_in(text: str) -> Fault:
    """Return what is wrong by a client's or a server's words; "" where they don't tell."""
    if any(sign in text for sign in _UNTRUSTED):
        return "certificate"
    if any(sign in text for sign in _PLAIN):
        return "speaks http"
    if any(sign in text for sign in (*_TLS, *_ALERT)):
        return "speaks https"
    return ""


def fault_of(error: BaseException) -> Fault:
    """Return what is wrong by the error of a client, and those that are wrapped into it."""
    found = list(chain(error))
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in found):
        return "certificate"
    if any(isinstance(one, FileNotFoundError | IsADirectoryError | PermissionError) for one in found):
        return "bundle"  # a client opens no other file
    if any(isinstance(one, ssl.SSLError) and one.reason == "NO_CERTIFICATE_OR_CRL_FOUND" for one in found):
        return "bundle"
    if any(isinstance(one, BadStatusLine) and str(one.args[0]).startswith(_ALERT) for one in found):
        return "speaks https"
    return fault_in(str(error))


@functools.cache
def speaks_tls(host: str, port: int) -> bool:
    """Return whether a port speaks TLS, by trying: some servers only break off when they are asked in http."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whose it is doesn't matter here
    try:
        with socket.create_connection((host, port), _TLS_SECONDS) as connection:
            context.wrap_socket(connection, server_hostname=host).close()
    except (OSError, ValueError):  # ssl's errors are such, too
        return False
    return True


def speaks_tls_unasked(url: str) -> bool:
    """Return whether the port of an http:// address speaks TLS."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "http" and speaks_tls(parts.hostname or "", parts.port or 80)
    except ValueError:
        return False


def verify_fault(text: str) -> str:
    """Return why a certificate isn't trusted, in OpenSSL's words: "self-signed certificate"."""
    _, _, tail = text.partition("certificate verify failed: ")
    return tail.partition(" (_ssl")[0] or text.partition("x509: ")[2].partition('"')[0] or "it is not trusted"
