"""The page: one file, safe with any text, and never larger than it may be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest

from larder.bench.report.changes import compare_records
from larder.bench.report.page import MAX_BYTES, STYLE_FILES, render_page
from larder.bench.report.read import SCHEMA_FILE, read_record
from larder.bench.report.render import render_report
from larder.errors import InputError
from tests.unit.bench.report.conftest import EXAMPLE, MakeRecord

COMMANDS = ["git checkout 0123456", "python3 -m larder compare"]
VOID = {"meta", "wbr", "line", "circle", "rect", "path", "polygon", "polyline"}
HOSTILE = "</script><script>alert(1)</script><!-- \u202e\x00\ud800 \" ' & --><img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """Tags of a page, with the content of its records."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.records: dict[str, Any] = {}
        self._open: list[str] = []
        self._record = ""
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        self._record = str(dict(attrs).get("id")) if tag == "script" else ""

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self._record = ""

    def handle_data(self, data: str) -> None:
        if self._record:
            self.records[self._record] = json.loads(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def texts(value: Any, change: str, key: str = "") -> Any:
    """Replace each text of a record, except those with few values."""
    if isinstance(value, dict):
        return {name: texts(inner, change, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [texts(inner, change, key) for inner in value]
    fixed = ("schema", "status", "step", "kind", "peak_memory_kind", "method", "verdict", "confidence")
    return f"{value}{change}" if isinstance(value, str) and key not in fixed else value


@pytest.fixture
def example() -> Outline:
    return Outline(render_page(read_record(EXAMPLE), None, COMMANDS))


def test_it_has_one_heading_landmarks_and_a_language(example: Outline) -> None:
    assert len(example.all("h1")) == len(example.all("main")) == len(example.all("nav")) == 1
    assert example.all("html") == [{"lang": "en"}]
    identifiers = [attributes["id"] for _, attributes in example.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    links = {str(link["href"]).removeprefix("#") for link in example.all("a")}
    assert links <= set(identifiers)
    assert len(example.all("caption")) == len(example.all("table"))
    assert all(cell.get("scope") in ("row", "col") for cell in example.all("th"))


def test_each_plot_is_followed_by_its_table(example: Outline) -> None:
    names = [tag for tag, attributes in example.tags if tag in ("figure", "details", "summary")]
    assert names.count("figure") == 6
    assert all(names[at + 1 : at + 3] == ["details", "summary"] for at, name in enumerate(names) if name == "figure")


def test_it_loads_nothing_and_runs_nothing(example: Outline) -> None:
    for _, attributes in example.tags:
        assert not {"src", "srcset", "style", "action"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
    assert all(script["type"] == "application/json" for script in example.all("script"))
    assert example.all("link") == []
    style = "".join(file.read_text() for file in STYLE_FILES)
    assert set(re.findall(r"url\((.*?)\)", style)) == {"#hatch-waits", "#hatch-batch", "#hatch-rest"}
    assert "@import" not in style


def test_the_record_is_embedded(example: Outline) -> None:
    assert example.records == {"record": json.loads(EXAMPLE.read_text())}


def test_commands_are_shown() -> None:
    page = render_page(read_record(EXAMPLE), None, ["larder compare A='<b>'"])
    assert "larder compare A=&#x27;&lt;b&gt;&#x27;" in page


def test_text_of_a_record_is_data(make_record: MakeRecord) -> None:
    before = make_record(lambda record: record.update(texts(record, HOSTILE)), f"before{HOSTILE}")
    now = make_record(lambda record: record.update({**texts(record, HOSTILE), "seconds": 1}), f"now{HOSTILE}")
    page = render_page(now, compare_records(now, before), [HOSTILE])
    outline = Outline(page)
    assert {script["id"] for script in outline.all("script")} == {"record", "record-2"}
    for name, record in (("record", now.content), ("record-2", before.content)):
        assert outline.records[name]["summary"] == record["summary"]
        assert outline.records[name]["failures"] == record["failures"]
    assert outline.all("img") == []
    assert not re.search("[\u202e\x00\ud800]", page)


def long_timelines(samples: int) -> Any:
    def change(record: dict[str, Any]) -> None:
        rates = [123456.789] * samples
        for one in record["rounds"]:
            for epoch in one["epochs"]:
                times = [0.25 * at for at in range(samples + 1)]
                epoch["timeline"] = {"t_s": times, "bytes_per_s": rates, "images_per_s": rates}

    return change


def kept_timelines(record: dict[str, Any]) -> Iterator[str]:
    for one in record["rounds"]:
        if one["epochs"][0]["timeline"]["t_s"]:
            yield one["arm"]


@pytest.mark.parametrize(
    ("samples", "kept", "rounds"), [(50, 47, 47), (400, 6, 47), (3000, 0, 47)], ids=["all", "plotted", "none"]
)
def test_a_page_never_exceeds_its_size(make_record: MakeRecord, samples: int, kept: int, rounds: int) -> None:
    page = render_page(make_record(long_timelines(samples)), None, COMMANDS)
    assert len(page.encode()) <= MAX_BYTES
    record = Outline(page).records["record"]
    jsonschema.validate(record, json.loads(SCHEMA_FILE.read_text()))
    assert (len(list(kept_timelines(record))), len(record["rounds"])) == (kept, rounds)
    assert ("it leaves out rates over time" in page) == (kept < 47)


def test_a_long_sweep_with_many_rounds_and_failures_fits(make_record: MakeRecord) -> None:
    def change(record: dict[str, Any]) -> None:
        first = [one for one in record["rounds"] if one["round"] > 0]
        record["rounds"] = [{**one, "workers": at} for at in range(12) for one in first * 20]
        arms = record["summary"]["arms"]
        record["summary"]["arms"] = [{**arm, "workers": at} for at in range(12) for arm in arms]
        record["failures"] = [{**record["failures"][0], "message": "x" * 5000}] * 500

    page = render_page(make_record(change), None, COMMANDS)
    assert len(page.encode()) <= MAX_BYTES
    assert "and 12 more rows" in page
    assert "and 480 more failures" in page


def test_a_record_with_too_much_text_is_refused(make_record: MakeRecord) -> None:
    def change(record: dict[str, Any]) -> None:
        record["settings"] = {"<" * 300 + str(at): "<" * 300 for at in range(100)}
        record["failures"] = [{**record["failures"][0], "message": "<" * 300}] * 100

    with pytest.raises(InputError, match="has too much text for a page of 300 KB"):
        render_page(make_record(change), None, COMMANDS)


@pytest.mark.parametrize(
    ("change", "caution"),
    [
        ({"quick": True}, "the run was quick"),
        ({"status": "partial"}, "the run is partial"),
        ({"repeated": None}, "there was no A/A test"),
        ({"verdict": "noisy"}, "the machine was noisy"),
        (
            {"instrument": {"seconds_per_batch": 1e-3, "share_of_fastest": 0.02}},
            "measuring itself took more of the time than it may",
        ),
    ],
    ids=["quick", "partial", "no test", "noisy", "heavy"],
)
def test_why_a_result_is_not_sure(make_record: MakeRecord, change: dict[str, Any], caution: str) -> None:
    def unsure(record: dict[str, Any]) -> None:
        record.update(status="complete")
        record["summary"]["confidence"] = "low"
        for name, value in change.items():
            holder = record if name in record else record["summary"]
            (holder if name != "verdict" else holder["repeated"])[name] = value

    page = render_page(make_record(unsure), None, COMMANDS)
    assert f"<strong>Low confidence</strong>: {caution}" in page

    def sure(record: dict[str, Any]) -> None:
        record.update(status="complete")

    assert 'class="caution"' not in render_page(make_record(sure), None, COMMANDS)


def test_what_changed_is_in_all_forms(make_record: MakeRecord) -> None:
    report = render_report(make_record(), make_record(name="before.json"), COMMANDS)
    for text in (report.html, report.markdown, report.text):
        assert "nothing changed beyond the noise of 3.6%" in text.replace("\\", "")
        assert "no change beyond the noise" in text


def test_the_same_records_give_the_same_page(make_record: MakeRecord) -> None:
    first, second = (render_report(make_record(), make_record(name="before.json"), COMMANDS) for _ in range(2))
    assert first == second


def test_the_style_covers_every_class(example: Outline) -> None:
    style = "".join(file.read_text() for file in STYLE_FILES)
    used = {name for _, attributes in example.tags for name in (attributes.get("class") or "").split()}
    assert {name for name in used if f".{name}" not in style} == set()
