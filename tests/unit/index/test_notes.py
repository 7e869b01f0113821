"""What index stores on disk: the listing of a source, and its images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from larder.contract import IndexEntry
from larder.sources.limits import TooLargeError
from larder.sources.members import BadSourceError
from larder.sources.prefix_reader import S3Object
from services.index.check_ledger import CheckLedger, CheckResult
from services.index.listing import ObjectListing

ENTRY = IndexEntry("a.tar/1.jpg", 1, "0" * 64, object="s3://bucket/a.tar", offset=512)


def test_of_an_archive_all_is_noted_or_nothing(tmp_path: Path) -> None:
    """After a kill halfway, images would be recorded without their archive."""

    def killed() -> Iterator[str]:
        yield "a.tar/notes.txt"
        raise KeyboardInterrupt

    with CheckLedger(tmp_path / "found.sqlite", "key") as found:
        with pytest.raises(KeyboardInterrupt):
            found.record(CheckResult([ENTRY], [("a.tar/2.jpg", "is empty")], killed(), "a.tar"))  # type: ignore[arg-type]
        assert (len(found), found.reject_count(), list(found.archives())) == (0, 0, [])
        assert found.record(CheckResult([ENTRY], [], ["a.tar/notes.txt"], "a.tar", {"3": 1, "4": 0})) is None
        assert (len(found), list(found.archives()), found.labelled_count()) == (1, ["a.tar"], 1)
        assert list(found.labels_of_archives()) == [("a.tar", "3"), ("a.tar", "4")]
        assert found.record(CheckResult([ENTRY], [], [], "b.tar")) == ENTRY
        assert list(found.archives()) == ["a.tar"]


@pytest.mark.parametrize(
    ("bucket", "key", "says"),
    [
        ("one", "in/a//b.jpg", "'a/b.jpg' is the path of both s3://one/in/a/b.jpg and s3://one/in/a//b.jpg"),
        ("two", "in/a/b.jpg", "'a/b.jpg' is the path of both s3://one/in/a/b.jpg and s3://two/in/a/b.jpg"),
        ("one", "in/a/b.jpg", "'a/b.jpg' is listed twice"),
    ],
)
@pytest.mark.parametrize("together", [True, False], ids=["one page", "two pages"])
def test_two_objects_of_one_path(tmp_path: Path, bucket: str, key: str, says: str, together: bool) -> None:
    listing = ObjectListing(tmp_path / "listing.sqlite", 10)
    first, second = S3Object("a/b.jpg", 1, "etag", "in/a/b.jpg"), S3Object("a/b.jpg", 1, "etag", key)
    pages = [("one", [first]), (bucket, [second])]
    if together and bucket == "one":
        pages = [("one", [S3Object("a/a.jpg", 1, "etag", "in/a/a.jpg"), first, second])]
    with pytest.raises(BadSourceError, match=says.replace("/", "\\/")):
        for where, found in pages:
            listing.add("s3://one/in/", where, found, len(found))


def test_more_objects_than_are_allowed(tmp_path: Path) -> None:
    listing = ObjectListing(tmp_path / "listing.sqlite", 1)
    with pytest.raises(TooLargeError, match="more than 1 objects"):
        listing.add("s3://one/in/", "one", [S3Object("a.jpg", 1, "", "in/a.jpg")], 2)
