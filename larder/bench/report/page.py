"""Render a comparison as one HTML page without scripts, fonts, or other external resources."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from larder import __version__
from larder.bench.report import changes, facts, html, plots, tables
from larder.bench.report.changes import Changes
from larder.bench.report.embed import Embedded, embed_records
from larder.bench.report.facts import Record, number, size, title_of
from larder.bench.report.figure import Figure
from larder.bench.report.html import escape_html
from larder.bench.report.read import RecordFile
from larder.bench.report.tables import Table
from larder.errors import InputError

MAX_BYTES = 300_000
"""Limit of a page, which can be attached to a mail or an issue."""
STYLE_FILES = tuple(Path(__file__).with_name(name) for name in ("plot.css", "page.css"))
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_LONGEST_NOTE = 900  # bytes that the sentence on shortened records may take


def render_page(record: RecordFile, changed: Changes | None, commands: Sequence[str]) -> str:
    """Return the page.

    Args:
        record: The record.
        changed: What changed since another record; None without one.
        commands: Lines of shell that reproduce the comparison.

    Raises:
        InputError: If the record has more text than fits into a page.
    """
    content = record.content
    figures = plots.draw_all(content)
    sections = [
        *([("changes", "What changed", _changes(changed))] if changed else []),
        ("table", "All figures", "".join(html.table(table) for table in tables.all_tables(content))),
        *((figure.name, figure.title, _figure(figure)) for figure in figures),
        ("checks", "Noise, faults and what was left out", html.items(tables.notes(content)[:-1] or ["Nothing."])),
        ("provenance", "Provenance", _provenance(content)),
        ("reproduce", "Reproduce", _reproduce(commands)),
    ]
    head, body = _head(content), _body(content, sections)
    records = [record, changed.before] if changed else [record]
    used = len((head + body).encode("utf-8", "replace")) + _LONGEST_NOTE
    if used > MAX_BYTES:
        raise InputError(
            f"{record.name} has too much text for a page of {MAX_BYTES // 1000} KB",
            next_step="compare fewer arms or numbers of workers",
        )
    embedded = embed_records(records, MAX_BYTES - used)
    return f"{head}{body}{_records(records, embedded)}</main>\n{embedded.html}</body>\n</html>\n"


def _head(record: Record) -> str:
    title, style = escape_html(title_of(record)), "".join(file.read_text(encoding="utf-8") for file in STYLE_FILES)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n"
    )


def _body(record: Record, sections: Sequence[tuple[str, str, str]]) -> str:
    links = "".join(f'<li><a href="#{name}">{escape_html(title)}</a></li>' for name, title, _ in sections)
    shown = "".join(
        f'<section id="{name}" aria-labelledby="{name}-heading"><h2 id="{name}-heading">{escape_html(title)}</h2>'
        f"{content}</section>\n"
        for name, title, content in sections
    )
    return (
        f'<body>\n<header>\n<p class="kind">larder comparison</p>\n<h1>{escape_html(title_of(record))}</h1>\n'
        f'<p class="answer">{html.long_text(record["summary"]["answer"])}</p>\n{_caution(record)}'
        f"{html.definitions(_key_facts(record))}\n</header>\n"
        f'<nav aria-label="Contents"><ul>{links}<li><a href="#records">Records</a></li></ul></nav>\n<main>\n{shown}'
    )


def _caution(record: Record) -> str:
    """Return a box that tells why the result isn't sure, or nothing."""
    repeated, instrument = record["summary"]["repeated"], record["summary"]["instrument"]
    is_heavy = instrument is not None and instrument["share_of_fastest"] >= tables.MAX_INSTRUMENT_SHARE
    reasons = [
        reason
        for reason, applies in (
            ("the run was quick", record["quick"]),
            ("the run is partial: it was interrupted, or arms failed", record["status"] == "partial"),
            ("there was no A/A test", repeated is None),
            ("the machine was noisy", repeated is not None and repeated["verdict"] == "noisy"),
            ("measuring itself took more of the time than it may", is_heavy),
        )
        if applies
    ]
    if record["summary"]["confidence"] == "high" and not reasons:
        return ""
    name = "Low confidence" if record["summary"]["confidence"] == "low" else "Note"
    why = f": {'; '.join(reasons)}" if reasons else ""
    return f'<p class="caution"><strong>{name}</strong>{why}.</p>\n'


def _key_facts(record: Record) -> Iterator[tuple[str, str]]:
    data = record["data"]
    rounds = max((one["rounds"] for one in facts.summaries(record)), default=0)
    yield "data", f"{number(data['samples'])} images of {data['split']}, {size(data['image_bytes'])}"
    yield "store", facts.store_of(record)
    yield "rounds", f"{rounds}, interleaved; {number(record['seconds'])} s in all"
    runs = facts.runs_of(record)
    yield "measured", facts.time_of(record) + (f", {runs} runs put together" if runs > 1 else "")


def _figure(figure: Figure) -> str:
    legend = "".join(f"<li>{_sample(kind)}{escape_html(meaning)}</li>" for kind, meaning in figure.legend)
    return (
        f"{html.paragraph(figure.lead)}<figure>"
        + (f'<ul class="legend">{legend}</ul>' if legend else "")
        + f"{figure.svg}</figure><details><summary>Table: {escape_html(figure.table.caption)}</summary>"
        f"{html.table(figure.table)}</details>"
    )


def _sample(kind: str) -> str:
    """Return a sample of a mark, for a legend."""
    shapes = {
        "dot": '<circle cx="12" cy="8" r="3.5" class="dot"/>',
        "ring": '<circle cx="12" cy="8" r="4.5" class="ring"/>',
        "warm": '<rect x="7.5" y="3.5" width="9" height="9" class="warm"/>',
        "interval": '<path d="M2 8H22" class="interval"/><path d="M12 1V15" class="median"/>',
    }
    shape = shapes.get(kind, f'<rect x="1" y="2" width="22" height="12" class="{kind}"/>')
    return f'<svg width="24" height="16" aria-hidden="true">{shape}</svg>'


def _changes(changed: Changes) -> str:
    noise = (
        "A change counts if the 95% interval of its ratio is further from 1 than those of both records' A/A tests, in "
        "which an arm is compared with itself. Runs at different times differ more than the rounds of one run, so look "
        "for the reason of a change."
    )
    others = changed.software
    return (
        f'<p class="answer">{html.long_text(changes.headline(changed))}</p>{html.paragraph(noise)}'
        f"{html.table(changes.changes_table(changed))}"
        + (html.items(changes.remarks(changed)) if changes.remarks(changed) else "")
        + (html.table(others) if others.rows else html.paragraph("Code, versions, layouts and settings are the same."))
    )


def _provenance(record: Record) -> str:
    machine, data = record["provenance"], record["data"]
    limit = machine["memory_limit_bytes"]
    quota = "" if machine["cpu_quota_cores"] is None else f", limited to {machine['cpu_quota_cores']:g}"
    pairs = [
        ("CPU", f"{machine['cpu_model']}, {machine['cores']:g} cores{quota}"),
        ("memory", size(machine["memory_bytes"]) + ("" if limit is None else f", limited to {size(limit)}")),
        ("accelerator", machine["accelerator"]),
        ("storage", machine["storage"]),
        ("store", facts.store_of(record)),
        ("system", machine["kernel"] + (", in a container" if machine["in_container"] else "")),
        ("load at start", ", ".join(f"{load:g}" for load in machine["load_average"][:3])),
        ("larder", f"{machine['larder']}, revision {machine['revision']}"),
        ("Python", machine["python"]),
        ("libraries", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())),
        (
            "dataset",
            f"{data['dataset']}, {data['split']}: {number(data['samples'])} samples, {data['classes']} classes",
        ),
        ("samples", f"digest {data['samples_digest']}"),
        ("comparison", f"{record['id']}, {record['status']}"),
    ]
    settings = [(str(name), str(value)) for name, value in record["settings"].items()]
    return (
        html.definitions(pairs)
        + "".join(html.table(table) for table in (_layouts(data), _arms(record)))
        + f"<details><summary>Settings</summary>{html.definitions(settings)}</details>"
    )


def _layouts(data: Record) -> Table:
    rows = [
        (
            one["layout"],
            one["where"],
            facts.known(number(one["files"])),
            facts.known(size(one["bytes"])),
            one["manifest_sha256"][:16],
        )
        for one in data["layouts"]
    ]
    return Table("Layouts", ("layout", "where", "files", "bytes", "manifest"), rows, frozenset({0, 1, 4}))


def _arms(record: Record) -> Table:
    rows = [
        (
            one["name"],
            one["layout"],
            one["library"],
            facts.known(one.get("workers") or facts.NO_FIGURE, applies=one["layout"] != "none"),
            one["how"],
            ", ".join(f"{name}={value}" for name, value in one["settings"].items()) or "defaults",
        )
        for one in record["arms"]
    ]
    return Table("Arms", ("arm", "layout", "library", "workers are", "how", "settings"), rows, frozenset(range(6)))


def _reproduce(commands: Sequence[str]) -> str:
    about = "In a checkout of larder, with the same data and store. Keys come from the environment or .env."
    return html.paragraph(about) + html.commands(commands)


def _records(records: Sequence[RecordFile], embedded: Embedded) -> str:
    """Return the section about the embedded records."""
    rows = [(one.name[:200], one.sha256) for one in records]
    left = (
        f"To keep the page small, it leaves out {embedded.left_out}; the files have them."
        if embedded.left_out
        else "The records are complete."
    )
    names = ", ".join("record" if at == 0 else f"record-{at + 1}" for at in range(len(records)))
    about = f"This page embeds its records as JSON, in script elements with the id {names}. {left}"
    return (
        '<section id="records" aria-labelledby="records-heading"><h2 id="records-heading">Records</h2>'
        f"{html.paragraph(about)}{html.table(Table('Files', ('record', 'sha256'), rows, frozenset({0, 1})))}"
        f'<p class="kind">Written by larder {escape_html(__version__)}.</p></section>\n'
    )
