"""Host keys of a server, as the cloud's console log shows them.

cloud-init prints them at the end of a server's first boot. The log comes from the cloud through TLS and not from the
server's address, so it vouches for the key that SSH sees there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

MOST_CHARACTERS = 1 << 18
"""Of a console log; Nova keeps 100 KiB."""
_MOST_KEYS = 16
# Lines may have a time or a program's name in front.
_FINGERPRINT = re.compile(r"(?:^|[ \t])[0-9]{3,5} (SHA256:[A-Za-z0-9+/]{43})(?=[ \t\r]|$)", re.MULTILINE)
_TYPE = r"(?:ssh-(?:ed25519|rsa)|ecdsa-sha2-nistp(?:256|384|521)|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
_KEY = re.compile(rf"(?:^|[ \t])({_TYPE}) ([A-Za-z0-9+/]{{40,2000}}={{0,2}})(?=[ \t\r]|$)", re.MULTILINE)
_BEGAN, _ENDED = re.compile(r"Cloud-init v\. \S{1,40} running"), re.compile(r"Cloud-init v\. \S{1,40} finished")


def in_console(log: str) -> frozenset[str]:
    """The SHA256 fingerprints in a console log; of several boots the last one's. Empty where it shows none."""
    printed = _FINGERPRINT.findall(_last_block(log, "FINGERPRINTS"))[:_MOST_KEYS]
    keys = _KEY.findall(_last_block(log, "KEYS"))[:_MOST_KEYS]
    return frozenset(filter(None, [*printed, *(fingerprint(kind, key) for kind, key in keys)]))


def _last_block(log: str, name: str) -> str:
    """What stands between the last pair of cloud-init's marks; empty where the log has no whole pair."""
    begin, end = (f"-----{word} SSH HOST KEY {name}-----" for word in ("BEGIN", "END"))
    log = log[-MOST_CHARACTERS:]
    before = log[: max(log.rfind(end), 0)]
    at = before.rfind(begin)
    return before[at + len(begin) :] if at >= 0 else ""


def will_come(log: str) -> bool:
    """Whether cloud-init is at work still, by a console log, and may show the keys yet."""
    log = log[-MOST_CHARACTERS:]
    began, ended = ([match.start() for match in sign.finditer(log)] for sign in (_BEGAN, _ENDED))
    return bool(began) and (not ended or ended[-1] < began[-1])


def in_known_hosts(text: str) -> frozenset[str]:
    """The SHA256 fingerprints of the keys in a known_hosts file."""
    lines = [line.split() for line in text.splitlines() if line.strip() and line[0] not in "#@"]
    return frozenset(filter(None, (fingerprint(words[1], words[2]) for words in lines if len(words) >= 3)))


def fingerprint(kind: str, key: str) -> str:
    """The fingerprint of a public key, as OpenSSH writes it; empty where the text is no key of that kind."""
    try:
        blob = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return ""
    name = kind.encode()
    if blob[: 4 + len(name)] != len(name).to_bytes(4, "big") + name:
        return ""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
