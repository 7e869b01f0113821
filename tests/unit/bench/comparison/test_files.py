"""The tables that compare prints and writes."""

from __future__ import annotations

from pathlib import Path

from larder.bench.comparison.files import as_markdown, as_table
from larder.bench.comparison_record import read_comparison
from larder.bench.report.read import read_record
from larder.bench.report.render import render_report

EXAMPLE = Path(__file__).parents[1] / "comparison.json"


def test_they_are_those_of_the_report() -> None:
    report = render_report(read_record(EXAMPLE), None, [])
    comparison = read_comparison(EXAMPLE)
    assert as_table(comparison) == report.text
    assert as_markdown(comparison) == report.markdown


def test_what_was_named_before_the_rounds_isnt_named_again() -> None:
    comparison = read_comparison(EXAMPLE)
    assert "mosaicml_streaming was left out" in as_table(comparison)
    assert "was left out" not in as_table(comparison, left_out=False)
