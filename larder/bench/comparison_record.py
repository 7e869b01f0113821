"""Define the record of a comparison: its summary, its JSON form, and its JSON Schema.

    comparison-1.schema.json   the schema of `larder-comparison/1`, generated from these classes

`comparison_parts` defines what is measured; this module adds what follows from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from larder.bench.comparison_parts import (
    Amount,
    Arm,
    Count,
    Data,
    Interval,
    Part,
    Provenance,
    Roofline,
    Round,
    Share,
    Waits,
)
from larder.errors import InputError
from larder.settings import describe_fault

SCHEMA: Literal["larder-comparison/1"] = "larder-comparison/1"
SCHEMA_FILE = Path(__file__).with_name("comparison-1.schema.json")


class Instrument(Part):
    """Overhead of the measurement, from an arm that costs nothing: it yields one batch in memory again and again."""

    seconds_per_batch: Amount
    """Median time of a batch of the arm that costs nothing."""
    share_of_fastest: Amount
    """That time and the CPU time of the measuring threads, over the time of a batch of the fastest arm."""
    within_limit: bool | None = None
    """Whether that share is below 0.01, the limit; null in records of earlier versions."""


class RepeatedArm(Part):
    """The A/A test: the same arm twice."""

    arm: str
    """The arm that ran twice."""
    ratio: Interval
    """Ratio of its two rates by round; 1 must be in the interval."""
    verdict: Literal["quiet", "noisy"]
    """`noisy` if 1.00, to two decimals, isn't in the interval, or the interval is wider than 10%."""
    rounds_added: Count
    """Rounds added because the machine was noisy."""


class Ratio(Part):
    """Paired ratios of two arms' rates by round."""

    arm: str
    """The faster arm."""
    against: str
    """The other arm."""
    workers: Count
    """Workers of both."""
    ratio: Interval
    """Median of the ratios."""
    rounds: list[float]
    """Ratio of each round."""
    differs: bool
    """Whether 1 is outside the interval."""


class Utilization(Part):
    """Accelerator utilization as MLPerf Storage defines it: compute time over total time, decoding included."""

    accelerator: str
    """Key of the accelerator and model in `accelerators.json`, such as `h100-resnet50`."""
    needs_imgs_per_s: Amount
    """Images per second that keep it busy."""
    utilization: Share
    """Share of the time that it would compute, fed by this arm alone."""
    passes: bool
    """Whether that reaches `threshold`: by this rule an arm keeps the accelerator busy."""
    workers: Count | None
    """Fewest measured workers that reach the threshold; null if none does. Never extrapolated."""
    threshold: Share | None = None
    """Utilization that the rule demands; null in records of earlier versions."""
    batch_size: Count | None = None
    """Images of the step that the rule assumes."""
    step_s: Amount | None = None
    """Time that the accelerator takes for it."""
    rule: str = ""
    """Where the three come from, such as `MLPerf Storage v1.0`."""
    sample_bytes: Count | None = None
    """Bytes of a sample of the rule. The utilization is that of the images that were measured, which have others."""


class StepsSummary(Part):
    """Training steps on an arm's batches, medians of the rounds."""

    device: str
    """`cpu`, or `cuda` with the name of the GPU."""
    model: str
    """The model and its precision."""
    busy_share: Interval
    """Share of the time in which the device computed steps."""
    imgs_per_s: Amount
    """Images per second."""
    step_p50_s: Amount
    """Median time of a step, with its wait for data."""
    step_p99_s: Amount
    """99th percentile."""
    synthetic_step_p50_s: Amount
    """Median time of a step on a batch that is there already."""
    synthetic_step_p99_s: Amount
    """99th percentile of these."""


class ArmSummary(Part):
    """An arm with a number of workers, over its measured rounds."""

    arm: str
    """Name of the arm."""
    workers: Count
    """Worker processes or threads."""
    rounds: Count
    """Measured rounds."""
    imgs_per_s: Interval
    """Images per second of epoch 1."""
    batches_per_s: Interval
    """Batches per second of epoch 1."""
    avg_batch_s: Interval
    """Seconds per batch of epoch 1."""
    first_batch_s: Interval
    """Time to the first batch."""
    wait_s: Waits
    """Waits for batches, medians of the rounds."""
    second_epoch_imgs_per_s: Interval | None
    """Images per second of epoch 2; null if it wasn't measured."""
    cpu_s_per_1000_imgs: Interval
    """CPU time of the client per 1,000 images."""
    cores: Interval | None = None
    """CPU seconds per second: how many cores the client kept busy; null in records of earlier versions."""
    peak_memory_bytes: Count
    """Highest of the rounds and the warm-up."""
    network_bytes_per_img: Amount | None
    """Median of the rounds; null without network, or if unknown."""
    requests_per_1000_imgs: Amount | None
    """Median of the rounds; null if they can't be counted."""
    exactly_once: bool | None
    """Whether each sample came exactly once in every round; null if unknown."""
    order_entropy: Share | None
    """Median of the rounds; null if unknown."""
    share_of_roofline: Amount | None
    """Rate over that of the roofline `stream_from_memory`, or else `decode`, with as many workers; null without."""
    utilization: list[Utilization]
    """By accelerator; empty if the arm has no rate."""
    largest_accelerator: str | None
    """The most demanding accelerator that this arm keeps busy; null if it keeps none busy."""
    steps: StepsSummary | None = None
    """Training steps; null if there were none."""


class WaterfallStep(Part):
    """One step on an arm's way from store to batch. The steps of an arm add up to its time."""

    arm: str
    """Name of the arm."""
    step: Literal["decode", "batch", "rest"]
    """`decode`: as the roofline; `batch`: what `stream_from_memory` takes beyond it; `rest`: all else, such as
    fetching, slower decoding, copies between processes, and waiting."""
    s_per_1000_imgs: Amount
    """Its share of the time, per 1,000 images."""


class Summary(Part):
    """What the run found."""

    answer: str
    """The result in a sentence or two, with how sure it is."""
    confidence: Literal["high", "low"]
    """`low` for quick, noisy or partial runs."""
    arms: list[ArmSummary]
    """Fastest first; sweeps have one entry for each number of workers."""
    ratios: list[Ratio]
    """The fastest arm against each other arm."""
    repeated: RepeatedArm | None
    """The A/A test; null if the arm failed."""
    instrument: Instrument | None
    """Overhead of the measurement; null if it wasn't measured."""
    waterfall: list[WaterfallStep]
    """Where the time of each arm goes, with the fewest workers that were measured; empty without rooflines."""


class LeftOut(Part):
    """An arm that wasn't run."""

    arm: str
    """Name of the arm."""
    reason: str
    """Why."""
    command: str
    """The command that creates what is missing; empty if none does."""


class Failure(Part):
    """A round that failed."""

    arm: str
    """Name of the arm."""
    workers: Count
    """Worker processes or threads."""
    round: Count
    """Number of the round; 0 is the warm-up."""
    kind: Literal["error", "killed", "timeout"]
    """An error of the arm, a signal that ended it, or the time limit."""
    message: str
    """What happened."""


class Comparison(Part):
    """Record of one comparison of arms."""

    schema_: Annotated[Literal["larder-comparison/1"], Field(alias="schema")] = SCHEMA
    """Name and version of this form."""
    id: str
    """Digest of data, machine, settings and arms; an interrupted run with the same id can be resumed."""
    status: Literal["complete", "partial"]
    """`partial`: interrupted, or arms failed."""
    quick: bool
    """Whether it ran with --quick."""
    seconds: Amount
    """Duration of the run; of parts that were interrupted, that of their completed rounds."""
    provenance: Provenance
    """Code and machine."""
    data: Data
    """The dataset."""
    settings: dict[str, Any]
    """All settings, as used, without secrets."""
    arms: list[Arm]
    """The arms that ran."""
    rounds: list[Round]
    """Every round, in the order in which they ran."""
    rooflines: list[Roofline]
    """Upper bounds."""
    summary: Summary
    """What the run found."""
    left_out: list[LeftOut]
    """Arms that weren't run."""
    failures: list[Failure]
    """Rounds that failed."""
    left_out_for_time: list[str] = Field(default_factory=list)
    """What a quick comparison left out to keep its time, a phrase each; empty in other records."""
    runs_utc: list[str] = Field(default_factory=list)
    """Start of each run whose rounds were put together; empty in the record of one run."""

    def as_json(self) -> str:
        """Return the record as JSON."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=1, ensure_ascii=False) + "\n"


def json_schema() -> str:
    """Return the JSON Schema of a comparison, as `comparison-1.schema.json` has it."""
    schema = Comparison.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA, **schema}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def read_comparison(path: Path) -> Comparison:
    """Read the record of a comparison.

    Raises:
        InputError: If the file isn't such a record, or is one of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path} can't be read: {reason}", next_step="give the record of a comparison, compare-<time>.json"
        ) from error
    version = content.get("schema") if isinstance(content, dict) else None
    if version != SCHEMA:
        raise InputError(
            f"{path} isn't a record of the form {SCHEMA}: its `schema` is {str(version)[:80]!r}",
            next_step="give the record of a comparison, and use the version of larder that wrote it",
        )
    try:
        return Comparison.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc']))}: {describe_fault(fault)}" for fault in error.errors()[:5]]
        raise InputError(
            f"{path} isn't a valid record of a comparison: {'; '.join(faults)}",
            next_step="run the comparison again",
        ) from None
