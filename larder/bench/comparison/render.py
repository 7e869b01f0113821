"""Render a comparison as a table for the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from larder.bench.record_parts import Interval
from larder.bench.records import ArmSummary, Comparison
from larder.progress import format_amount
from larder.terminal import Lines, join_lines

_HEADER = (
    "arm", "workers", "imgs/s", "batches/s", "avg_batch_s", "first batch, s", "epoch 2", "wait p50/p95/p99, s",
    "CPU s/1,000", "memory", "network B/img", "pixel error", "each once", "keeps busy",
)  # fmt: skip


def as_table(comparison: Comparison) -> Lines:
    """Return the arms as a table in aligned columns, with the answer above it and the upper bounds below."""
    rows = [list(_HEADER), *_rows(comparison)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    table = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return join_lines(comparison.summary.answer, "", *table, "", *_notes(comparison))


def as_markdown(comparison: Comparison) -> str:
    """Return the comparison as Markdown."""
    rows = [list(_HEADER), ["---", *["---:"] * (len(_HEADER) - 1)], *_rows(comparison)]
    table = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    notes = [f"- {note}" for note in _notes(comparison)]
    return "\n".join([comparison.summary.answer, "", *table, "", *notes]) + "\n"


def _rows(comparison: Comparison) -> list[list[str]]:
    errors = {arm.name: arm.pixel_error for arm in comparison.arms}
    rows = []
    for arm in comparison.summary.arms:
        error = errors.get(arm.arm)
        rows.append([
            arm.arm,
            str(arm.workers),
            _interval(arm.imgs_per_s, 0),
            f"{arm.batches_per_s.median:.2f}",
            f"{arm.avg_batch_s.median:.4f}",
            f"{arm.first_batch_s.median:.2f}",
            f"{arm.second_epoch_imgs_per_s.median:,.0f}" if arm.second_epoch_imgs_per_s else "-",
            "/".join(f"{wait:.3f}" for wait in (arm.wait_s.p50, arm.wait_s.p95, arm.wait_s.p99)),
            f"{arm.cpu_s_per_1000_imgs.median:.2f}",
            format_amount(arm.peak_memory_bytes, "B"),
            "-" if arm.network_bytes_per_img is None else f"{arm.network_bytes_per_img:,.0f}",
            "unknown" if error is None else f"{error.mean:.2f} (max {error.max:.0f})",
            _yes(arm.exactly_once),
            arm.largest_accelerator or "-",
        ])  # fmt: skip
    return rows


def _notes(comparison: Comparison) -> list[str]:
    summary = comparison.summary
    notes = [f"{one.name}: {one.imgs_per_s:,.0f} images/s ({one.about})" for one in comparison.rooflines]
    notes += [
        f"{one.arm} is {one.ratio.median:.2f} times as fast as {one.against} ({one.ratio.low:.2f} to "
        f"{one.ratio.high:.2f}, {one.workers} workers)" + ("" if one.differs else ": no significant difference")
        for one in summary.ratios
    ]
    if summary.repeated is not None:
        one = summary.repeated
        notes.append(
            f"A/A: {one.arm} twice gives {one.ratio.median:.3f} ({one.ratio.low:.3f} to {one.ratio.high:.3f}): "
            f"{one.verdict}" + (f", after {one.rounds_added} more rounds" if one.rounds_added else "")
        )
    if summary.instrument is not None:
        notes.append(
            f"measuring takes {summary.instrument.share_of_fastest:.2%} of the time of the fastest arm's batch"
        )
    notes += [
        f"{one.arm} was left out: {one.reason}" + (f"; {one.command}" if one.command else "")
        for one in comparison.left_out
    ]
    notes += [
        f"{one.arm} with {one.workers} workers failed in round {one.round}: {one.message}"
        for one in comparison.failures
    ]
    notes.append(_describe_run(comparison, summary.arms))
    return notes


def _describe_run(comparison: Comparison, arms: Sequence[ArmSummary]) -> str:
    data, machine = comparison.data, comparison.provenance
    rounds = max((arm.rounds for arm in arms), default=0)
    return (
        f"{data.dataset}, {data.samples:,} images of {data.split}, {rounds} rounds; {machine.cpu_model}, "
        f"{machine.cores:g} cores, {format_amount(machine.memory_bytes, 'B')}, store {machine.endpoint}; larder "
        f"{machine.larder} at {machine.revision[:12]}; confidence: {comparison.summary.confidence}"
    )


def _interval(interval: Interval, digits: int) -> str:
    return f"{interval.median:,.{digits}f} ({interval.low:,.{digits}f} to {interval.high:,.{digits}f})"


def _yes(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "NO"
