"""Read a server's host keys from the cloud's console log.

cloud-init prints them at the end of the first boot. The log comes from the cloud over TLS and not from the server's
address, so it can verify the key that SSH receives there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

MAX_CONSOLE_CHARACTERS = 1 << 18
"""Limit of a console log; Nova keeps 100 KiB."""
_MAX_KEYS = 16
# Lines may begin with a time or a program's name.
_FINGERPRINT = re.compile(r"(?:^|[ \t])[0-9]{3,5} (SHA256:[A-Za-z0-9+/]{43})(?=[ \t\r]|$)", re.MULTILINE)
_TYPE = r"(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
_KEY = re.compile(rf"(?:^|[ \t])({_TYPE}) ([A-Za-z0-9+/]{{40,2000}}={{0,2}})(?=[ \t\r]|$)", re.MULTILINE)
_BEGAN, _ENDED = re.compile(r"Cloud-init v\. \S{1,40} running"), re.compile(r"Cloud-init v\. \S{1,40} finished")


def read_console_fingerprints(log: str) -> frozenset[str]:
    """Return the SHA256 fingerprints of the last boot in a console log, or an empty set."""
    printed = _FINGERPRINT.findall(_last_block(log, "FINGERPRINTS"))[:_MAX_KEYS]
    keys = _KEY.findall(_last_block(log, "KEYS"))[:_MAX_KEYS]
    return frozenset(filter(None, [*printed, *(fingerprint(kind, key) for kind, key in keys)]))


def _last_block(log: str, name: str) -> str:
    """Return the text between cloud-init's last pair of markers, or "" if there is no complete pair."""
    begin, end = (f"-----{word} SSH HOST KEY {name}-----" for word in ("BEGIN", "END"))
    log = log[-MAX_CONSOLE_CHARACTERS:]
    before = log[: max(log.rfind(end), 0)]
    at = before.rfind(begin)
    return before[at + len(begin) :] if at >= 0 else ""


def may_still_appear(log: str) -> bool:
    """Return whether, by the console log, cloud-init is still running and may yet print the keys."""
    log = log[-MAX_CONSOLE_CHARACTERS:]
    began, ended = ([match.start() for match in sign.finditer(log)] for sign in (_BEGAN, _ENDED))
    return bool(began) and (not ended or ended[-1] < began[-1])


def read_known_hosts_fingerprints(text: str) -> frozenset[str]:
    """Return the SHA256 fingerprints of the keys in a known_hosts file."""
    lines = [line.split() for line in text.splitlines() if line.strip() and line[0] not in "#@"]
    return frozenset(filter(None, (fingerprint(words[1], words[2]) for words in lines if len(words) >= 3)))


def fingerprint(kind: str, key: str) -> str:
    """Return a public key's fingerprint as OpenSSH writes it, or "" if it is no key of that kind."""
    try:
        blob = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return ""
    name = kind.encode()
    if blob[: 4 + len(name)] != len(name).to_bytes(4, "big") + name:
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
