"""Objects below a prefix as a source: what is listed, fetched, resumed and refused."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from larder.errors import ServiceError
from larder.sources import prefix_reader as prefixes
from larder.store import StoreSettings
from tests.conftest import Store, own_bucket
from tests.integration.conftest import Kill, Stage
from tests.integration.extract.conftest import Pack, Put, Raw
from tests.parquet import packed, picture


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    """A bucket for one test."""
    with own_bucket(s3.client) as name:
        yield name


@pytest.fixture
def put(s3: Store, bucket: str) -> Put:
    """Puts objects into the bucket."""

    def put(objects: dict[str, bytes]) -> None:
        for key, content in objects.items():
            s3.client.put_object(Bucket=bucket, Key=key, Body=content)

    return put


IMAGES = {
    f"{split}/{label}/图 {number}?#.jpg": f"{split}{label}{number}".encode()
    for split in ("train", "test")
    for label in ("cat", "dog")
    for number in range(20)
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("end", "workers"), [("", "1"), ("/", "2"), ("/**", "1")])
def test_a_prefix_of_images(stage: Stage, raw: Raw, s3: Store, bucket: str, put: Put, end: str, workers: str) -> None:
    put({f"my set/raw/{path}": content for path, content in IMAGES.items()})
    put({"my set/raw/": b"", "my set/raw/train/": b"", "my set/raw/.DS_Store": b"x", "my set/raw.txt": b"x"})
    env = s3.env | {"LARDER_SOURCE": f"s3://{bucket}/my set/raw{end}", "LARDER_WORKERS": workers}
    result = stage("extract", env=env)
    assert result.code == 0, result.stderr
    assert raw.content() == IMAGES
    manifest = json.loads(raw.meta("manifest.json"))
    assert manifest["input"]["kind"] == "objects"
    assert manifest["input"]["files"] == len(IMAGES)
    assert "up to date" in stage("extract", env=env).stderr
    first = raw.meta("manifest.json")
    assert stage("extract", "--force", env=env).code == 0
    assert raw.meta("manifest.json") == first


def test_a_key_that_looks_like_a_pattern(
    stage: Stage, raw: Raw, s3: Store, bucket: str, put: Any, packers: Any
) -> None:
    put({"q?/a [1].tar": packers["tar"](IMAGES), "qx/a 1.tar": b"another"})
    result = stage("extract", env=s3.env | {"LARDER_SOURCE": f"s3://{bucket}/q?/a [1].tar"})
    assert result.code == 0, result.stderr
    assert f"from s3://{bucket}/q?/a [1].tar" in result.stderr
    assert raw.content() == IMAGES


def test_a_whole_bucket_in_many_pages(stage: Stage, raw: Raw, lying: LyingStore) -> None:
    lying.objects = {f"class/{number}.jpg": b"%d" % number for number in range(50)}
    lying.page = 7
    result = stage("extract", env=lying.env | {"LARDER_SOURCE": "s3://bucket/"})
    assert result.code == 0, result.stderr
    assert raw.content() == lying.objects


def test_two_keys_for_one_path(stage: Stage, raw: Raw, lying: LyingStore) -> None:
    lying.objects = {"p/a//b": b"1", "p/a/b": b"2"}
    result = stage("extract", env=lying.env | {"LARDER_SOURCE": "s3://bucket/p/"})
    assert (result.code, "'a/b' is in it twice" in result.stderr) == (3, True), result.stderr
    assert not raw.folder.exists()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("source", ["shards/", "shards", "shards/*.tar"])
def test_a_prefix_of_shards(
    stage: Stage, raw: Raw, s3: Store, bucket: str, put: Put, packers: Mapping[str, Pack], source: str
) -> None:
    put(
        {
            f"shards/train-{number:06d}.tar": packers["tar"]({f"{number}.jpg": b"%d" % number, f"{number}.cls": b"3"})
            for number in range(5)
        }
    )
    result = stage("extract", env=s3.env | {"LARDER_SOURCE": f"s3://{bucket}/{source}", "LARDER_WORKERS": "2"})
    assert result.code == 0, result.stderr
    expected = {f"train/{number}.jpg": b"%d" % number for number in range(5)}
    assert raw.content() == expected | {f"train/{number}.cls": b"3" for number in range(5)}


def test_parquet_in_a_store(stage: Stage, raw: Raw, s3: Store, bucket: str, put: Put) -> None:
    put({"p/data/train-00000-of-00001.parquet": packed([(picture(1), 0), (picture(2), 1)])})
    for source in ("p/", "p/data/train-00000-of-00001.parquet"):
        result = stage("extract", env=s3.env | {"LARDER_SOURCE": f"s3://{bucket}/{source}"})
        assert result.code == 0, result.stderr
        assert {picture(1), picture(2)} < set(raw.content().values())


def test_a_killed_run_goes_on(
    stage: Stage, raw: Raw, s3: Store, bucket: str, put: Put, kill_at_random: Kill, volume: Path
) -> None:
    files = {f"p/a/{number}.jpg": b"%d" % number * 1000 for number in range(100)}
    put(files)
    flags = [f"--source=s3://{bucket}/p/"]
    first = stage("extract", *flags, env=s3.env)
    assert first.code == 0, first.stderr
    content, manifest = raw.content(), raw.meta("manifest.json")
    assert content == {path.removeprefix("p/"): data for path, data in files.items()}

    def check(_number: int, _complete: bool) -> None:
        assert (raw.content(), raw.meta("manifest.json")) == (content, manifest)

    kill_at_random("extract", lambda _: [*flags, "--force"], 3, first.seconds, check, env=s3.env)


@pytest.mark.parametrize(
    ("objects", "source", "code", "says"),
    [
        ({}, "nothing/", 3, "holds no objects"),
        ({}, "nothing", 3, "does not exist"),
        ({"p/": b""}, "p/", 3, "holds no objects"),
        ({"p/a.txt": b"x"}, "p/*.tar", 3, "holds no objects"),
        ({"p/a/b": b"1", "p/a": b"2"}, "p/", 3, "is a file and a folder at once"),
        ({"p/1.tar": b"no archive"}, "p/", 3, "is not an archive"),
    ],
)
def test_what_is_refused(
    stage: Stage,
    raw: Raw,
    s3: Store,
    bucket: str,
    put: Put,
    objects: dict[str, bytes],
    source: str,
    code: int,
    says: str,
) -> None:
    put(objects)
    result = stage("extract", env=s3.env | {"LARDER_SOURCE": f"s3://{bucket}/{source}"})
    assert (result.code, says in result.stderr) == (code, True), result.stderr
    assert not raw.folder.exists()


def test_limits_and_digests(stage: Stage, s3: Store, bucket: str, put: Put) -> None:
    put({f"p/{number}.jpg": b"12345" for number in range(4)})
    env = s3.env | {"LARDER_SOURCE": f"s3://{bucket}/p/"}
    assert "LARDER_MAX_FILES" in stage("extract", "--max-files=3", env=env).stderr
    assert "LARDER_MAX_UNPACKED" in stage("extract", "--max-unpacked=19", env=env).stderr
    assert "is a prefix" in stage("extract", f"--source-sha256={'0' * 64}", env=env).stderr
    wrong = stage("extract", env=env | {"LARDER_SOURCE": f"s3://{bucket}-none/p/"})
    assert (wrong.code, "no such bucket" in wrong.stderr) == (2, True), wrong.stderr


class LyingStore:
    """A store that describes its objects as a test wants."""

    def __init__(self, port: int) -> None:
        self.env = {
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
        }
        self.objects: dict[str, bytes] = {}
        self.etag: Callable[[bytes], str] = lambda content: hashlib.md5(content).hexdigest()
        self.size: Callable[[int], Any] = lambda size: size
        self.page = 100_000
        self.next = ""
        """The token that every page names."""
        self.truncated = False
        self.content: Callable[[bytes, int], bytes] = lambda content, _start: content
        """What is sent, given what is right and where the request starts."""
        self.headers: dict[str, str] = {}
        self.busy = 0
        """How many of the requests for objects are answered by 503."""
        self.asked: list[tuple[str, str | None]] = []

    def listing(self, prefix: str, start: int) -> bytes:
        keys = [key for key in self.objects if key.startswith(prefix) or self.truncated]
        more = self.truncated or start + self.page < len(keys)
        token = self.next or (str(start + self.page) if more and not self.truncated else "")
        items = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{self.size(len(content))}</Size>"
            f"<ETag>&quot;{self.etag(content)}&quot;</ETag></Contents>"
            for key in keys[start : start + self.page]
            for content in [self.objects[key]]
        )
        following = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
        return (
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{following}{items}</ListBucketResult>"
        ).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        store: LyingStore = self.server.store  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        key, query = unquote(url.path).split("/", 2)[2:], parse_qs(url.query)
        store.asked.append((unquote(url.path), self.headers.get("Range")))
        status, headers = 200, {"x-amz-request-id": "1"}
        if "list-type" in query:
            token = query.get("continuation-token", ["0"])[0]
            body = store.listing(query.get("prefix", [""])[0], int(token) if token.isdecimal() else 0)
            length = len(body)
        elif store.busy:
            store.busy -= 1
            status, body = 503, b"<Error><Code>SlowDown</Code></Error>"
            length = len(body)
        elif not key or key[0] not in store.objects:
            status, body = 404, b"<Error><Code>NoSuchKey</Code></Error>"
            length = len(body)
        else:
            whole = store.objects[key[0]]
            start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
            if self.headers.get("If-Match", store.etag(whole)).strip('"') != store.etag(whole):
                self._refuse()
                return
            body = store.content(whole, start)[start:]
            length = len(whole) - start
            headers |= {"ETag": f'"{store.etag(whole)}"'} | store.headers
            if start:
                status, headers["Content-Range"] = 206, f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        self._answer(status, headers, body, length)

    def _refuse(self) -> None:
        body = b"<Error><Code>PreconditionFailed</Code></Error>"
        self._answer(412, {}, body, len(body))

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = len(body) != length
        self.wfile.write(b"" if self.command == "HEAD" else body)

    do_HEAD = do_GET


@pytest.fixture
def lying() -> Iterator[LyingStore]:
    """A store on loopback that lies as a test wants."""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    listening.store = LyingStore(listening.server_port)  # type: ignore[attr-defined]
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield listening.store  # type: ignore[attr-defined]
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_a_broken_connection_is_continued(stage: Stage, raw: Raw, lying: LyingStore) -> None:
    lying.objects = {"p/a.jpg": b"0123456789" * 1000}
    lying.content = lambda content, start: content[:4000] if not start else content
    result = stage("extract", env=lying.env | {"LARDER_SOURCE": "s3://bucket/p/"})
    assert result.code == 0, result.stderr
    assert raw.content() == {"a.jpg": b"0123456789" * 1000}
    assert ("/bucket/p/a.jpg", "bytes=4000-") in lying.asked


PARTS = b"0123456789" * 20_000


def replaced(lying: LyingStore, key: str, with_one: bytes) -> Callable[[bytes, int], bytes]:
    """Answers of a server whose object is replaced while its first part is being sent."""

    def content(whole: bytes, _start: int) -> bytes:
        if lying.objects[key] == with_one:
            return whole
        lying.objects[key] = with_one
        return whole[:50_000]

    return content


@pytest.mark.parametrize("key", ["p/a?b #%41+é.jpg", "p/a?b #%41+é.tar"], ids=["prefix", "archive"])
def test_a_server_that_misbehaves(
    stage: Stage, raw: Raw, lying: LyingStore, packers: Mapping[str, Pack], key: str
) -> None:
    """The names of an object and of an archive contain characters that are special in a URL."""
    is_archive = key.endswith(".tar")

    def stored(content: bytes) -> bytes:
        return packers["tar"]({"a.jpg": content}) if is_archive else content

    def expected(content: bytes) -> dict[str, bytes]:
        return {"a.jpg" if is_archive else key.removeprefix("p/"): content}

    env = lying.env | {"LARDER_SOURCE": f"s3://bucket/{key}" if is_archive else "s3://bucket/p/"}
    lying.objects, lying.busy = {key: stored(PARTS)}, 2
    result = stage("extract", env=env)
    assert (result.code, raw.content()) == (0, expected(PARTS)), "busy, then fine"

    lying.content = replaced(lying, key, stored(PARTS[::-1]))
    result = stage("extract", "--force", env=env)
    if is_archive:  # is fetched from its start
        assert (result.code, raw.content()) == (0, expected(PARTS[::-1])), result.stderr
    else:
        assert (result.code, raw.content()) == (3, expected(PARTS)), result.stderr
        assert "has changed since it was listed" in result.stderr


def test_a_server_that_always_breaks_off(lying: LyingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefixes, "_PAUSES_SECONDS", (0.001,) * 3)
    lying.objects, lying.content = {"p/a?b.jpg": PARTS}, lambda content, _start: content[:50_000]
    prefix = prefixes.PrefixReader("s3://bucket/p/", StoreSettings.load("store", [], lying.env), 1)
    [entry] = prefix.list()
    with pytest.raises(ServiceError):
        list(prefix.read(entry))
    assert len(lying.asked) == 5, "one that lists, and four that read"


@pytest.mark.parametrize(
    ("headers", "code"), [({}, 5), ({"x-amz-server-side-encryption": "aws:kms"}, 0)], ids=["plain", "encrypted"]
)
def test_an_etag_is_compared_where_it_is_an_md5(
    stage: Stage, raw: Raw, lying: LyingStore, headers: dict[str, str], code: int
) -> None:
    lying.objects, lying.headers = {"p/a.jpg": b"right"}, headers
    lying.etag = lambda _: "0" * 32
    result = stage("extract", env=lying.env | {"LARDER_SOURCE": "s3://bucket/p/"})
    assert result.code == code, result.stderr
    assert ("isn't the ETag" in result.stderr) == (code == 5)


@pytest.mark.parametrize("key", ["p/../x", "p//../x", "p/a/../../x", "p/" + "a/" * 70 + "x"])
def test_keys_that_leave_the_folder(stage: Stage, raw: Raw, lying: LyingStore, key: str) -> None:
    lying.objects = {"p/good.jpg": b"1", key: b"2"}
    result = stage("extract", env=lying.env | {"LARDER_SOURCE": "s3://bucket/p/"})
    assert (result.code, "is refused" in result.stderr) == (3, True), result.stderr
    assert not raw.folder.exists()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("lie", ["same token", "no token", "cycle", "size", "negative", "other prefix", "no xml"])
def test_listings_that_lie(stage: Stage, raw: Raw, lying: LyingStore, lie: str) -> None:
    lying.objects = {"p/a.jpg": b"1", "p/b.jpg": b"2"}
    if lie in ("same token", "no token", "cycle"):
        lying.truncated, lying.next = True, "" if lie == "no token" else "again"
    elif lie == "size":
        lying.size = lambda _: "many"
    elif lie == "negative":
        lying.size = lambda _: -3
    elif lie == "other prefix":
        lying.truncated, lying.objects = True, {"q/a.jpg": b"1"}
    else:
        lying.listing = lambda *_: b"<html>"  # type: ignore[method-assign]
    result = stage("extract", env=lying.env | {"LARDER_SOURCE": "s3://bucket/p/"})
    assert result.code in (2, 5), result.stderr
    assert "next step" in result.stderr
    assert "Traceback" not in result.stderr
    assert not raw.folder.exists()


def test_more_keys_than_files_are_allowed(stage: Stage, lying: LyingStore) -> None:
    lying.objects = {f"p/{number:07d}.jpg": b"" for number in range(20_000)}
    result = stage("extract", "--max-files=19999", env=lying.env | {"LARDER_SOURCE": "s3://bucket/p/"})
    assert (result.code, "more than 19,999 objects" in result.stderr) == (3, True), result.stderr


def test_webdataset_shards_below_a_prefix_become_a_tree(
    stage: Stage, s3: Store, bucket: str, put: Put, volume: Path
) -> None:
    """Labels come from `.cls` files; their names are in a list beside the shards."""

    def shard(numbers: range) -> bytes:
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as archive:
            for number in numbers:
                members = {"jpg": picture(number), "cls": b"%d" % (number % 3), "json": b"{}"}
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"a{number:06}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
        return stream.getvalue()

    put(
        {
            "wds/train-000000.tar": shard(range(8)),
            "wds/train-000001.tar": shard(range(8, 12)),
            "wds/val-000000.tar": shard(range(12, 15)),
            "wds/classes.txt": b"ant\nbee\ncat\n",
        }
    )
    assert stage("extract", env=s3.env | {"LARDER_SOURCE": f"s3://{bucket}/wds/"}).code == 0
    ended = stage("transform")
    assert ended.code == 0, ended.stderr
    [tree] = [path for path in volume.iterdir() if path.name not in ("raw", ".larder")]
    manifest = json.loads((tree / "_larder/manifest.json").read_bytes())
    assert (manifest["classes"], manifest["settings"]["recipe"]) == (["ant", "bee", "cat"], "webdataset")
    counts = {name: split["samples_per_class"] for name, split in manifest["splits"].items()}
    assert counts == {"training": [4, 4, 4], "validation": [1, 1, 1]}
    assert (tree / "training/class_02/a000008.jpg").read_bytes() == picture(8)
