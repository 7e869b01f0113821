"""Make the tables of a comparison, and render them as text and Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from larder.bench.report.facts import (
    NO_FIGURE,
    ONE_ROUND,
    UNKNOWN,
    Record,
    count,
    ends_of,
    exactly_once,
    known,
    left_out_by_reason,
    median_of,
    number,
    percent,
    repeated_rounds,
    runs_of,
    size,
    store_of,
    summaries,
    traffic_of,
    uses_network,
    workers_of,
)
from larder.terminal import Lines, escape, join_lines

MAX_ROWS = 60
"""Rows of a table that are shown; the record has all of them."""
MAX_INSTRUMENT_SHARE = 0.01
"""Share of a batch's time that measuring may take."""
ABOVE_BOUND = " *"
"""Marks an arm that was faster than its upper bound."""
_MAX_FAILURES = 20
_STEP_TIMES = ("step_p50_s", "step_p99_s", "synthetic_step_p50_s", "synthetic_step_p99_s")
_EDGE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
"""An underscore that may begin or end emphasis: not one within a word."""


class Table(NamedTuple):
    """A table. The first column names the rows."""

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    text_columns: frozenset[int] = frozenset({0})
    """Columns of text, which are aligned to the left."""

    def shown_rows(self) -> Sequence[tuple[str, ...]]:
        """Return the rows to show, with a last one that tells how many were left out."""
        left_out = len(self.rows) - MAX_ROWS
        if left_out <= 0:
            return self.rows
        return [*self.rows[:MAX_ROWS], (f"and {left_out:,} more rows", *[""] * (len(self.header) - 1))]


def speed_table(record: Record) -> Table:
    """Return the main table: throughput of each arm, fastest first."""
    rows = [
        (
            one["arm"],
            workers_of(record, one),
            number(one["imgs_per_s"]["median"]),
            ends_of(one["imgs_per_s"], one["rounds"]),
            _against_fastest(record, one),
            number(one["batches_per_s"]["median"], 2),
            number(one["avg_batch_s"]["median"], 4),
            number(one["first_batch_s"]["median"], 2),
            _second_epoch(one),
            one["largest_accelerator"] or "none",
        )
        for one in summaries(record)
    ]
    header = (
        "arm", "workers", "imgs/s", "95% interval", "fastest ÷ this", "batches/s", "avg_batch_s",
        "first batch, s", "epoch 2, imgs/s", "keeps busy",
    )  # fmt: skip
    return Table("Throughput", header, rows, frozenset({0, 9}))


def cost_table(record: Record) -> Table:
    """Return waits, costs and checks of each arm."""
    errors = {arm["name"]: arm["pixel_error"] for arm in record["arms"]}
    rows = []
    for one in summaries(record):
        wait, error = one["wait_s"], errors.get(one["arm"])
        rows.append((
            one["arm"],
            workers_of(record, one),
            "/".join(number(wait[name], 3) for name in ("p50", "p95", "p99")),
            number(one["cpu_s_per_1000_imgs"]["median"], 2),
            known(number(median_of(one.get("cores")), 2)),
            size(one["peak_memory_bytes"]),
            *traffic_of(record, one),
            _share_of_bound(one),
            UNKNOWN if error is None else f"{number(error['mean'], 2)} (max {number(error['max'])})",
            exactly_once(one),
            known(number(one["order_entropy"], 2)),
        ))  # fmt: skip
    header = (
        "arm", "workers", "wait p50/p95/p99, s", "CPU s/1,000 imgs", "cores busy", "peak memory",
        "network/img", "requests/1,000 imgs", "of upper bound", "pixel error", "each sample once", "order entropy",
    )  # fmt: skip
    return Table("Waits, costs and checks", header, rows)


def steps_table(record: Record) -> Table:
    """Return the training steps on each arm's batches, against those on synthetic data."""
    rows = []
    for one in summaries(record):
        if steps := one.get("steps"):
            slowdown = steps["step_p99_s"] / steps["synthetic_step_p99_s"] if steps["synthetic_step_p99_s"] else None
            rows.append((
                one["arm"],
                workers_of(record, one),
                _busy(steps["busy_share"], one["rounds"]),
                number(steps["imgs_per_s"]),
                *(number(steps[name], 4) for name in _STEP_TIMES),
                number(slowdown, 2),
                steps["device"],
                steps["model"],
            ))  # fmt: skip
    header = (
        "arm", "workers", "busy", "imgs/s", "step p50, s", "step p99, s", "synthetic p50, s", "synthetic p99, s",
        "p99 ÷ synthetic", "device", "model",
    )  # fmt: skip
    return Table("Training steps", header, rows, frozenset({0, 9, 10}))


def bounds_table(record: Record) -> Table:
    """Return the upper bounds that were measured in the same run."""
    rows = [
        (one["name"], number(one["imgs_per_s"]), size(one["bytes_per_s"]), str(one["workers"]), one["about"])
        for one in record["rooflines"]
    ]
    return Table("Upper bounds", ("bound", "imgs/s", "bytes/s", "threads", "what"), rows, frozenset({0, 4}))


def all_tables(record: Record) -> list[Table]:
    """Return the tables that the page, the terminal and Markdown have in common, without empty ones."""
    tables = (speed_table(record), cost_table(record), steps_table(record), bounds_table(record))
    return [table for table in tables if table.rows]


def notes(record: Record) -> list[str]:
    """Return the findings and faults that the tables don't show, a sentence each."""
    found = [*_noise_notes(record)]
    found += _left_out_notes(record)
    if cut := record.get("left_out_for_time"):
        found.append(f"Left out to keep the time of a quick comparison: {', '.join(cut)}")
    found += [
        f"{one['arm']} with {one['workers']} workers failed in round {one['round']} ({one['kind']}): {one['message']}"
        for one in record["failures"][:_MAX_FAILURES]
    ]
    if len(record["failures"]) > _MAX_FAILURES:
        found.append(f"and {len(record['failures']) - _MAX_FAILURES:,} more failures")
    return [*found, *_bound_notes(record), *_rule_notes(record), *_explain_gaps(record), describe_run(record)]


def describe_run(record: Record) -> str:
    """Return data, machine and code in a line."""
    data, machine = record["data"], record["provenance"]
    rounds = max((one["rounds"] for one in summaries(record)), default=0)
    runs = f" of {runs_of(record)} runs" if runs_of(record) > 1 else ""
    return (
        f"{data['dataset']}, {number(data['samples'])} images of {data['split']}, {count(rounds, 'round')}{runs}; "
        f"{machine['cpu_model']}, {machine['cores']:g} cores, {size(machine['memory_bytes'])}, store "
        f"{store_of(record)}; larder {machine['larder']} at {machine['revision'][:12]}; "
        f"confidence: {record['summary']['confidence']}"
    )


def as_text(answer: str, tables: Sequence[Table], remarks: Sequence[str]) -> Lines:
    """Return tables in aligned columns, with the answer above and remarks below."""
    lines = [answer]
    for table in tables:
        cells = [[escape(cell) for cell in row] for row in (table.header, *table.shown_rows())]
        widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]
        lines += ["", f"{table.caption}:"]
        for row in cells:
            aligned = (
                cell.ljust(width) if at in table.text_columns else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths))
            )
            lines.append("  ".join(aligned).rstrip())
    return join_lines(*lines, "", *remarks)


def as_markdown(answer: str, tables: Sequence[Table], remarks: Sequence[str]) -> str:
    """Return the same as Markdown."""
    lines = [markdown_text(answer)]
    for table in tables:
        rule = ("---" if at in table.text_columns else "---:" for at in range(len(table.header)))
        lines += ["", f"**{markdown_text(table.caption)}**", ""]
        lines += [_markdown_row(map(markdown_text, table.header)), _markdown_row(rule)]
        lines += [_markdown_row(map(markdown_text, row)) for row in table.shown_rows()]
    return "\n".join([*lines, "", *(f"- {markdown_text(remark)}" for remark in remarks)]) + "\n"


def markdown_text(text: str) -> str:
    r"""Escape a text, so that Markdown shows it as it is: no tags, links, emphasis or further columns.

    Example:
        >>> markdown_text("a|b <i> [x](y) snake_case")
        'a\\|b &lt;i&gt; \\[x\\](y) snake_case'
    """
    text = escape(text).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for character in "|*`[]~":
        text = text.replace(character, f"\\{character}")
    return _EDGE_UNDERSCORE.sub(r"\_", text)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _against_fastest(record: Record, summary: Record) -> str:
    for one in record["summary"]["ratios"]:
        if (one["against"], one["workers"]) == (summary["arm"], summary["workers"]):
            ratio = f"{one['ratio']['median']:.2f} ({ends_of(one['ratio'], len(one['rounds']), 2)})"
            return ratio if one["differs"] or len(one["rounds"]) == 1 else f"{ratio}, not significant"
        if (one["arm"], one["workers"]) == (summary["arm"], summary["workers"]):
            return "1"
    return NO_FIGURE


def _share_of_bound(summary: Record) -> str:
    """Return the share of the upper bound; one above it is marked, and explained below the tables."""
    share = summary["share_of_roofline"]
    return f"{percent(share)}{ABOVE_BOUND}" if share is not None and share > 1 else percent(share)


def _busy(share: Record, rounds: int) -> str:
    ends = f"{percent(share['low'])} to {percent(share['high'])}" if rounds > 1 else ONE_ROUND
    return f"{percent(share['median'])} ({ends})"


def _second_epoch(summary: Record) -> str:
    second = summary["second_epoch_imgs_per_s"]
    return number(second["median"] if second else None)


def _left_out_notes(record: Record) -> list[str]:
    """Return each reason why arms were left out, with its command, once."""
    rows = ((one["arm"], one["reason"], one["command"]) for one in record["left_out"])
    return [
        f"{', '.join(arms)} {'was' if len(arms) == 1 else 'were'} left out: {reason}"
        for arms, reason in left_out_by_reason(rows)
    ]


def overhead_of(instrument: Record) -> str:
    """Return what measuring took, and whether that is below the limit."""
    share = instrument["share_of_fastest"]
    limit = f"{MAX_INSTRUMENT_SHARE:.0%}"
    verdict = f"below the limit of {limit}" if share < MAX_INSTRUMENT_SHARE else f"WARNING: above the limit of {limit}"
    microseconds = instrument["seconds_per_batch"] * 1e6
    return (
        f"{share:.2%} of the fastest arm's time per batch, {verdict}; that is {microseconds:,.0f} µs for each batch of "
        "an arm that yields the same one, in memory, again and again, and the threads that sample"
    )


def _bound_notes(record: Record) -> list[str]:
    """Return why arms were faster than their upper bound, if some were."""
    if not any((one["share_of_roofline"] or 0) > 1 for one in summaries(record)):
        return []
    return [
        f"{ABOVE_BOUND.strip()} Above 100% of the upper bound: the bound is measured for a second or two, at other "
        "moments than the arm, on a sample of the images, so on a shared machine it can be too low. Such an arm is as "
        "fast as decoding gets here"
    ]


def _rule_notes(record: Record) -> list[str]:
    """Return that accelerators are kept busy with images of another length than the rules'."""
    lengths = {
        each["accelerator"]: each["sample_bytes"]
        for one in summaries(record)
        for each in one["utilization"]
        if each.get("sample_bytes")
    }
    if not lengths:
        return []
    rules = ", ".join(f"{size(length)} for {name}" for name, length in lengths.items())
    mean = size(record["data"]["image_bytes"] / max(record["data"]["samples"], 1))
    return [f"Accelerators are kept busy with these images, of {mean} on average; the rules' samples have {rules}"]


def _explain_gaps(record: Record) -> list[str]:
    """Return what stands in the tables in place of figures."""
    uncounted = [
        one["arm"]
        for one in summaries(record)
        if uses_network(record, one["arm"]) and None in (one["network_bytes_per_img"], one["requests_per_1000_imgs"])
    ]
    found = [
        f"{NO_FIGURE} stands for what doesn't apply or wasn't part of the comparison, {UNKNOWN} for what applies and "
        "couldn't be determined"
    ]
    if uncounted:
        found.append(
            f"Network bytes or requests of {', '.join(dict.fromkeys(uncounted))} are {UNKNOWN}, since these libraries "
            "don't count them; with LARDER_LINK_LATENCY=0ms, a proxy does"
        )
    return found


def _noise_notes(record: Record) -> list[str]:
    repeated, instrument = record["summary"]["repeated"], record["summary"]["instrument"]
    found = []
    if repeated is not None:
        more = f", after {repeated['rounds_added']} more rounds" if repeated["rounds_added"] else ""
        found.append(
            f"A/A test: {repeated['arm']} twice gives a ratio of {repeated['ratio']['median']:.3f} "
            f"({ends_of(repeated['ratio'], repeated_rounds(record), 3)}): {repeated['verdict']}{more}"
        )
    if instrument is not None:
        found.append(f"Overhead of measuring: {overhead_of(instrument)}")
    return found
