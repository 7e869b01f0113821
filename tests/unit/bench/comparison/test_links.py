"""What is said of links before the store."""

from __future__ import annotations

import pytest

from larder.bench.comparison import compare
from larder.bench.comparison.settings import ComparisonSettings
from larder.distant.link import Link
from larder.errors import ConfigurationError
from larder.progress import Reporter


def reported(monkeypatch: pytest.MonkeyPatch, link: Link | None, *flags: str) -> None:
    monkeypatch.setattr(compare, "find_link", lambda endpoint: link)
    settings = ComparisonSettings.load("compare", flags, {"S3_ENDPOINT_URL": "http://store:9000"})
    compare._report_two_links(settings, Reporter("compare", "line"))


def test_two_links_are_told_with_both_figures_and_their_sum(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reported(monkeypatch, Link(0.02, 200_000_000), "--latency=40ms")
    [line] = capsys.readouterr().err.splitlines()
    assert "warning: " in line
    assert "add a link of 40 ms to a link of 20 ms and 200 Mbit/s of s3-up" in line
    assert "arms read through a link of 60 ms and 200 Mbit/s" in line


@pytest.mark.parametrize(
    ("link", "flags"),
    [(None, ["--latency=40ms"]), (Link(0.02, None), []), (Link(0.02, None), ["--latency=0ms"])],
    ids=["of the comparison alone", "of s3-up alone", "a proxy without delay"],
)
def test_a_single_link_needs_no_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], link: Link | None, flags: list[str]
) -> None:
    reported(monkeypatch, link, *flags)
    assert capsys.readouterr().err == ""


def test_without_a_store_the_command_that_starts_one_is_named() -> None:
    settings = ComparisonSettings.load("compare", ["--latency=40ms"], {})
    with pytest.raises(ConfigurationError) as refused:
        compare._require_means(settings)
    assert "start a store on this machine with `s3 up`" in refused.value.next_step
