"""A web server's answers, as extract reads them: a file within its limits, or an error of ours."""

from __future__ import annotations

import json
import random
from pathlib import Path
from unittest.mock import patch

from larder.machine import boot_id
from larder.progress import NullReporter
from services.extract import download
from services.extract.remotes.http import HttpRemote
from tests.fuzz.servers import NUMBERS, STALL_SECONDS, Say, answering, http_answer, without_pauses
from tests.liar import Request

_MAX_BYTES = 1 << 20
_STATUSES = (
    "200 OK",
    "200 OK",
    "206 Partial Content",
    "206 Partial Content",
    "404 Gone",
    "416 No",
    "503 Busy",
    "301 Away",
    "302 Away",
    "308 Away",
    "204 No Content",
    "999 Odd",
    "200",
    "500 \x1b[2J",
    "401 Who",
    "103 Early",
)
_PLACES = (
    "/x",
    "//",
    "",
    "http://[",
    "ftp://127.0.0.1/x",
    "file:///etc/passwd",
    "http://169.254.169.254/",
    "http://127.1:9/",
    "http://10.0.0.1/",
    "https://127.0.0.1:9/",
    "http://me:you@127.0.0.1:9/",
    "\xe9\x00",
    "http://0x7f000001:9/",
    "x" * 60_000,
    "http://localhost:99999/",
    "?a=\r\nb: c",
)


def fuzz(chance: random.Random, folder: Path) -> None:
    """Download a file from a server that answers at random."""
    url = answering(chance, _answer)
    if chance.random() < 0.3:  # go on with what is there
        (folder / "archive.part").write_bytes(bytes(5000))
        total = chance.choice([None, 9000, "x", -1])
        state = {"validator": '"a"', "total": total, "boot": boot_id()}
        (folder / "state.json").write_text(json.dumps(state))
    with without_pauses(download), patch.object(download, "TRIES", 3):
        path = download.download(HttpRemote(f"{url}/archive.zip", STALL_SECONDS), folder, NullReporter(), _MAX_BYTES)
    assert path.stat().st_size <= _MAX_BYTES


def _answer(chance: random.Random, request: Request) -> Say:
    status, headers = chance.choice(_STATUSES), {"ETag": chance.choice(['"a"', 'W/"a"', ""])}
    body = chance.randbytes(chance.choice([0, 1, 100, 70_000]))
    if status.startswith("206"):
        start = chance.choice(["5000", "0", *NUMBERS])
        total = chance.choice([str(5000 + len(body)), "*", *NUMBERS])
        headers["Content-Range"] = f"bytes {start}-{chance.choice([str(4999 + len(body)), *NUMBERS])}/{total}"
    if status.startswith("3"):
        headers["Location"] = chance.choice(_PLACES)
    if chance.random() < 0.2:
        headers["Retry-After"] = chance.choice(NUMBERS)
    return http_answer(chance, status, headers, body)
