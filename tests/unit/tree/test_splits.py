"""The names of splits, and how a dataset without splits is divided."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest

from larder.contract import IndexSummary, Manifest, SplitSummary
from larder.errors import ConfigurationError
from larder.tree.splits import Division, parse_split_names
from larder.tree.summary import split_table
from services.transform.settings import TransformSettings

SPLITS = ("training", "validation", "evaluation")
FILES = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]


def test_shares_hold_in_every_class() -> None:
    division = Division((0.8, 0.1, 0.1), 0)
    for first in range(0, len(FILES), 2000):
        counts = Counter(division.split(file) for file in FILES[first : first + 2000])
        assert 1540 <= counts["training"] <= 1660
        assert 150 <= counts["validation"] <= 250
        assert 150 <= counts["evaluation"] <= 250


def test_a_files_split_depends_on_seed_and_content_alone() -> None:
    some = {file: Division((0.8, 0.2), 7).split(file) for file in FILES[:1000]}
    assert some == {file: Division((0.8, 0.2), 7).split(file) for file in reversed(FILES[:1000])}
    assert some != {file: Division((0.8, 0.2), 8).split(file) for file in FILES[:1000]}
    more = {file: Division((0.9, 0.1), 7).split(file) for file in FILES[:1000]}
    assert {file for file in some if some[file] == "training"} < {file for file in more if more[file] == "training"}


def test_splits_stay_the_same_from_release_to_release() -> None:
    assert "".join(Division((0.5, 0.25, 0.25), 0).split(file)[0] for file in FILES[:20]) == RELEASED


RELEASED = "vttvetttevvtttttvtve"


@pytest.mark.parametrize(("shares", "splits"), [((1.0, 0.0), {"training"}), ((0.0, 0.0, 1.0), {"evaluation"})])
def test_shares_of_nothing_and_all(shares: tuple[float, ...], splits: set[str]) -> None:
    assert {Division(shares, 0).split(file) for file in FILES[:500]} == splits


@pytest.mark.parametrize(
    "text", ["0.8", "0.8,0.1", "0.8,0.1,0.05,0.05", "80,10,10", "a,b", "1.2,-0.2", "nan,1", ",", "inf,1"]
)
def test_shares_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"LARDER_SPLIT \(environment\)=.*two or three shares whose sum is 1"):
        TransformSettings.load("transform", [], {"LARDER_SPLIT": text})


@pytest.mark.parametrize("text", ["0.8,0.1,0.1", "0.7, 0.3", "0.333333,0.333333,0.333334"])
def test_shares(text: str) -> None:
    settings = TransformSettings.load("transform", [], {"LARDER_SPLIT": text})
    assert [float(share) for share in settings.split.split(",")] == [float(share) for share in text.split(",")]


@pytest.mark.parametrize(
    "text", ["dev", "dev=", "=validation", "a=b,a=c", "a=b/c", "a=..", "a=_larder", "a=.b", "a=x\ny"]
)
def test_names_that_are_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"LARDER_SPLITS \(environment\)="):
        TransformSettings.load("transform", [], {"LARDER_SPLITS": text})


def test_names() -> None:
    names = parse_split_names(" Dev = test, cre\u0300me=my own ,junk=-,")
    assert names.find("DEV ") == "evaluation", "the setting comes before the names that are known"
    assert names.find("Cr\u00e8me") == "my own"
    assert names.find("junk") == "-"
    assert names.find("Val") == "validation"
    assert names.find("cat") is None
    assert parse_split_names("None").find("train") is None


def manifest(classes: list[str], **splits: list[int]) -> Manifest:
    index = IndexSummary(bytes=0, sha256="")
    summaries = {
        name: SplitSummary(samples=sum(counts), bytes=0, samples_per_class=counts) for name, counts in splits.items()
    }
    return Manifest(
        artifact="tree",
        dataset="x",
        classes=classes,
        splits=summaries,
        input={},
        settings={},
        files=0,
        bytes=0,
        index=index,
    )


def test_table() -> None:
    tree = manifest(["cat", " dog", "a\x1bb"], evaluation=[1, 0, 0], training=[1200, 3, 4], holdout=[0, 0, 1])
    assert split_table(tree).splitlines() == [
        "  class     training  evaluation  holdout",
        "  cat          1,200           1        0",
        "  ' dog'           3           0        0",
        "  'a\\x1bb'         4           0        1",
        "  all          1,207           1        1",
        "  no images in evaluation of: ' dog', 'a\\x1bb'",
        "  no images in holdout of: cat, ' dog'",
    ]


def test_a_table_has_a_bound() -> None:
    classes = [f"{number:05}" + "x" * 500 for number in range(10_000)]
    text = split_table(manifest(classes, **{f"s{number}": [1] * 9_999 + [0] for number in range(50)}))
    assert len(text.splitlines()) < 40
    assert max(map(len, text.splitlines())) < 150
    assert "9,980 more" in text
    assert "and 44 more splits" in text
