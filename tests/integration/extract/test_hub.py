"""Datasets of the Hugging Face Hub as sources, against a server that speaks its API."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from larder.errors import InputError
from services.extract.remotes.addresses import AddressPolicy
from tests import hub as hub_server
from tests.hub import COMMIT, OLDER, REPOSITORY
from tests.integration.conftest import Stage
from tests.integration.extract.conftest import Pack, Raw
from tests.liar import lying
from tests.parquet import packed, picture

Extract = Callable[..., Any]
SOURCE = f"hf://datasets/{REPOSITORY}"
ROWS = [(picture(number), number % 2) for number in range(8)]
PARQUET = {
    "data/train-00000-of-00002.parquet": packed(ROWS[:3]),
    "data/train-00001-of-00002.parquet": packed(ROWS[3:6]),
    "data/test-00000-of-00001.parquet": packed(ROWS[6:]),
    "README.md": b"# Pictures\n",
    ".gitattributes": b"x",
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[hub_server.Hub]:
    """A hub with Parquet files."""
    with hub_server.serve() as hub:
        hub.files = dict(PARQUET)
        yield hub


@pytest.fixture
def extract(stage: Stage, hub: hub_server.Hub, tmp_path: Path) -> Extract:
    """Runs extract on the hub: `extract("@v1.0", HF_TOKEN="…")`."""

    def extract(of: str = "", **env: str) -> Any:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "LARDER_SOURCE": SOURCE + of}
        return stage("extract", env=settings | env)

    return extract


def images(content: dict[str, bytes]) -> list[bytes]:
    return [content[path] for path in sorted(content) if path != "classes.json"]


def test_parquet_with_its_commit_and_a_second_run(extract: Extract, raw: Raw, hub: hub_server.Hub) -> None:
    result = extract()
    assert result.code == 0, result.stderr
    content = raw.content()
    assert sorted(images(content)) == sorted(image for image, _ in ROWS)
    assert {path.split("/")[0] for path in content} == {"train", "test", "classes.json"}
    assert json.loads(raw.meta("run.json"))["commit"] == COMMIT
    assert f"is at the commit {COMMIT}" in result.stderr
    asked = len(hub.asked)
    assert "up to date" in extract().stderr
    assert len(hub.asked) == asked, "nothing was asked for"


@pytest.mark.parametrize(
    ("of", "commit"), [("@v1.0", OLDER), ("@refs/convert/parquet", COMMIT), ("@refs%2Fconvert%2Fparquet", COMMIT)]
)
def test_revisions(extract: Extract, raw: Raw, of: str, commit: str) -> None:
    result = extract(of)
    assert result.code == 0, result.stderr
    assert json.loads(raw.meta("run.json"))["commit"] == commit


@pytest.mark.parametrize("path", ["/data/train-00000-of-00002.parquet", "/data/test-*", "/data/", "@main/data"])
def test_a_file_a_pattern_or_a_folder_alone(extract: Extract, raw: Raw, path: str) -> None:
    result = extract(path)
    assert result.code == 0, result.stderr
    assert len(raw.content()) == {"/data/train-00000-of-00002.parquet": 4, "/data/test-*": 3}.get(path, 9)


def test_images_tables_and_archives(
    extract: Extract, raw: Raw, hub: hub_server.Hub, packers: Mapping[str, Pack]
) -> None:
    hub.files = {
        "train/cat/1.jpg": picture(1),
        "test/dog/2.jpg": b"2" * 2000,
        "metadata.csv": b"file_name,label\n",
        "README.md": b"# hi",
        ".gitattributes": b"x",
        ".github/a.jpg": b"x",
    }
    hub.page = 2
    assert extract().code == 0
    visible = {path: content for path, content in hub.files.items() if not path.startswith(".")}
    assert raw.content() == visible
    hub.files = {
        "train.zip": packers["zip"]({"cat/1.jpg": b"1"}),
        "test.tar.gz": packers["tar.gz"]({"cat/2.jpg": b"2"}),
    }
    assert extract("@v1.0").code == 0
    assert raw.content() == {"train/cat/1.jpg": b"1", "test/cat/2.jpg": b"2"}


@pytest.mark.parametrize("place", ["setting", "file", "variable of the file"])
def test_tokens_from_their_usual_places(
    extract: Extract, raw: Raw, hub: hub_server.Hub, tmp_path: Path, place: str
) -> None:
    hub.token = "hf_s3cr3t"
    (tmp_path / "hf").mkdir()
    (tmp_path / ("hf/token" if place == "file" else "elsewhere")).write_text("hf_s3cr3t\n")
    env = {"setting": {"HF_TOKEN": "hf_s3cr3t"}, "file": {}}.get(place, {"HF_TOKEN_PATH": str(tmp_path / "elsewhere")})
    result = extract(**env)
    assert result.code == 0, result.stderr
    assert "s3cr3t" not in result.stderr + raw.meta("run.json").decode() + raw.meta("manifest.json").decode()
    assert {asked.token for asked in hub.asked if asked.path.startswith("/lfs/")} == {None}, "a CDN got the token"
    hub.token = "other"
    refused = extract("@v1.0", **env)
    assert (refused.code, "no such dataset for this token's user" in refused.stderr) == (3, True), refused.stderr
    assert "s3cr3t" not in refused.stderr


@pytest.mark.parametrize(
    ("of", "change", "code", "says", "step"),
    [
        ("", {"token": "x"}, 3, "there is no such dataset in public", "set HF_TOKEN if it is private"),
        ("-none", {}, 3, "there is no such dataset", "check the name"),
        ("@nothing", {}, 3, "no branch, tag or commit 'nothing'", "choose one"),
        ("/nothing", {}, 3, "holds no files", "look at http"),
        ("/nothing/*.parquet", {}, 3, "there is no such file", "look at http"),
        ("", {"gated": True}, 2, "only people who have accepted its conditions", "set HF_TOKEN"),
        ("", {"files": {"README.md": b"x", "load.py": b"x"}}, 3, "no Parquet files, images or", "@refs/convert"),
        ("", {"statuses": [404] * 9}, 3, "404", "LARDER_SOURCE"),
    ],
    ids=["private", "absent", "revision", "file", "pattern", "gated", "nothing to read", "gone"],
)
def test_what_is_not_there_for_you(
    extract: Extract, raw: Raw, hub: hub_server.Hub, of: str, change: dict[str, Any], code: int, says: str, step: str
) -> None:
    for name, value in change.items():
        setattr(hub, name, value)
    result = extract(of)
    assert (result.code, says in result.stderr, step in result.stderr) == (code, True, True), result.stderr
    assert len(result.stderr.strip().splitlines()) <= 4
    assert not raw.folder.exists()


def test_a_gated_set_with_a_token(extract: Extract, hub: hub_server.Hub) -> None:
    hub.gated = True
    result = extract(HF_TOKEN="hf_x")
    assert (result.code, "this token's user hasn't" in result.stderr) == (2, True), result.stderr


def ranges(asked: list[hub_server.Asked]) -> list[str | None]:
    return [request.range for request in asked if request.method == "GET" and request.path.startswith("/lfs/")]


def test_a_broken_download_goes_on(extract: Extract, raw: Raw, hub: hub_server.Hub) -> None:
    hub.files = {"train.parquet": packed([(os.urandom(1 << 20), number % 2) for number in range(4)])}
    hub.break_after = [2 << 20, 1 << 20]
    result = extract()
    assert result.code == 0, result.stderr
    assert len(raw.content()) == 5
    assert ranges(hub.asked) == [None, f"bytes={2 << 20}-", f"bytes={3 << 20}-"]


def test_another_run_goes_on_where_one_ended(extract: Extract, raw: Raw, hub: hub_server.Hub) -> None:
    hub.files = {"train.parquet": packed([(os.urandom(1 << 20), number % 2) for number in range(3)])}
    hub.break_after = [2 << 20]

    def refuse_next(path: str, content: bytes) -> bytes:
        hub.statuses.append(403)
        return content

    hub.content = refuse_next
    result = extract()
    assert (result.code, "(403)" in result.stderr) == (2, True), result.stderr
    asked = len(hub.asked)
    hub.content, hub.statuses = (lambda path, content: content), []
    result = extract()
    assert result.code == 0, result.stderr
    assert ranges(hub.asked[asked:]) == [f"bytes={2 << 20}-"]


def test_files_of_an_earlier_run_stay(extract: Extract, raw: Raw, hub: hub_server.Hub) -> None:
    del hub.files["README.md"]
    hub.statuses = [404]
    assert extract().code == 3
    asked = len(hub.asked)
    result = extract()
    assert result.code == 0, result.stderr
    fetched = len(ranges(hub.asked[asked:]))  # the one that was refused, and those that were under way beside it
    assert 1 <= fetched < len(ranges(hub.asked[:asked])), "what was there was fetched again"


LIES: dict[str, Any] = {
    "no commit": lambda path, answer: answer | {"sha": "main"} if isinstance(answer, dict) else answer,
    "no json": lambda path, answer: b"<html>",
    "size": lambda path, answer: [item | {"size": "many"} for item in answer] if "/tree/" in path else answer,
    "no size": lambda path, answer: [{"type": "file", "path": "a.parquet"}] if "/tree/" in path else answer,
    "another type": lambda path, answer: 7 if "/tree/" in path else answer,
    "digest": lambda path, answer: (
        [item | {"lfs": {"oid": "x" * 64, "size": 9, "pointerSize": 1}} for item in answer]
        if "/tree/" in path
        else answer
    ),
    "twice": lambda path, answer: answer * 2 if "/tree/" in path else answer,
    "endless answer": lambda path, answer: b" " * (65 << 20) if "/tree/" in path else answer,
}


MORE = {"no size", "another type", "twice"}


@pytest.mark.parametrize(
    "lie", [pytest.param(lie, marks=[pytest.mark.exhaustive] if lie in MORE else []) for lie in LIES]
)
def test_answers_that_lie(extract: Extract, raw: Raw, hub: hub_server.Hub, lie: str) -> None:
    hub.change = LIES[lie]
    result = extract()
    assert result.code == 5, result.stderr
    assert "HF_ENDPOINT" in result.stderr
    assert "Traceback" not in result.stderr
    assert not raw.folder.exists()


@pytest.mark.parametrize(("items", "says"), [(0, "50 empty pages in a row"), (1, "twice")])
def test_endless_pages(extract, raw, hub, items, says) -> None:
    hub.next = f"{hub.url}/api/datasets/{hub_server.REPOSITORY}/tree/{hub_server.COMMIT}?recursive=true"
    hub.change = lambda path, answer: answer[:items] if "/tree/" in path else answer
    result = extract()
    assert (result.code, says in result.stderr) == (5, True), result.stderr
    assert "HF_ENDPOINT" in result.stderr
    assert not raw.folder.exists()


def test_a_token_stays_with_the_hub(extract, hub) -> None:
    hub.token = "hf_secret"
    with lying() as liar:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
        liar.answer = lambda _, talk: talk.send(head + b"[]")
        hub.next = f"{liar.url}/api"
        extract(HF_TOKEN="hf_secret")
        assert liar.asked
        assert not any("authorization" in asked.headers for asked in liar.asked)


ODD_PATHS = [
    "../x.parquet",
    "a\0b",
    *(
        pytest.param(path, marks=pytest.mark.exhaustive)
        for path in ("/etc/x", "a/../../x", "a//b.parquet", "./x.parquet")
    ),
]


@pytest.mark.parametrize("path", ODD_PATHS)
def test_paths_that_leave_the_folder(extract: Extract, raw: Raw, hub: hub_server.Hub, path: str) -> None:
    hub.change = lambda asked, answer: [item | {"path": path} for item in answer[:1]] if "/tree/" in asked else answer
    result = extract()
    assert (result.code, "is refused" in result.stderr) == (3, True), result.stderr
    assert not raw.folder.exists()


@pytest.mark.parametrize("large", [1000, 1 << 30], ids=["kept aside", "in git"])
def test_other_bytes_than_listed(extract: Extract, raw: Raw, hub: hub_server.Hub, large: int) -> None:
    hub.large = large
    hub.content = lambda path, content: bytes(len(content)) if len(content) > 1000 else content
    result = extract()
    assert (result.code, "sends other bytes than its listing says" in result.stderr) == (5, True), result.stderr
    assert not raw.folder.exists()


@pytest.mark.parametrize(
    ("env", "code", "says"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, 5, "doesn't answer"),
        ({"HF_HUB_OFFLINE": "1"}, 2, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "ftp://x"}, 2, "must be http:// or https://"),
    ],
)
def test_no_hub(extract: Extract, env: dict[str, str], code: int, says: str) -> None:
    result = extract(**env)
    assert (result.code, says in result.stderr) == (code, True), result.stderr


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("http://169.254.169.254/latest", "link-local"),
        ("http://10.0.0.9:1", "private"),
        ("http://0xa000009:1", "private"),
    ],
)
def test_redirects_into_a_network_from_outside_are_not_followed(
    extract: Extract, hub: hub_server.Hub, where: str, kind: str
) -> None:
    hub.kept_at = where
    result = extract()
    assert (result.code, f"a {kind} address: not followed" in result.stderr) == (3, True), result.stderr


def test_names_that_lead_into_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """The address that was resolved and checked is the one that is connected to."""
    from services.extract.remotes import hub as hub_remote

    def resolve(host: str, port: int, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host.removeprefix("at-"), port))]

    monkeypatch.setattr(hub_remote.socket, "getaddrinfo", resolve)
    network = hub_remote._CheckedNetwork(AddressPolicy("hf://"), "at-127.0.0.1", 1)
    with pytest.raises(InputError, match=r"redirects to 127\.0\.0\.1, a loopback address"):
        network.connect_tcp("127.0.0.1", 9)
    with socket.create_server(("127.0.0.1", 0)) as server:
        network.connect_tcp("at-127.0.0.1", server.getsockname()[1]).close()


@pytest.mark.parametrize("what", ["head", "answer"])
def test_a_hub_that_crawls(extract: Extract, hub: hub_server.Hub, what: str) -> None:
    def crawl(_: Any, talk: Any) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n"
        talk.send(b"" if what == "head" else head + b"\r\n")
        talk.drip(head * 99)

    with lying() as liar:
        liar.answer = crawl
        result = extract(HF_ENDPOINT=liar.url, LARDER_STALL_SECONDS="1")
    assert (result.code, "bytes arrived in 1 s" in result.stderr) == (5, True), result.stderr
    assert "LARDER_STALL_SECONDS" in result.stderr
