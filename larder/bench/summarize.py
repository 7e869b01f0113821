"""Summarize the rounds of a comparison: medians, ratios, the A/A test, utilization, and where the time goes."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from larder.bench.accelerators import largest, utilization_of
from larder.bench.advice import in_words, reads_a_store
from larder.bench.arms import ARMS
from larder.bench.comparison_parts import EpochRecord, Interval, Roofline, Round, StepsRecord, Waits
from larder.bench.comparison_record import (
    ArmSummary,
    Instrument,
    Ratio,
    RepeatedArm,
    StepsSummary,
    Summary,
    WaterfallStep,
)
from larder.bench.report.facts import ONE_ROUND, count_workers
from larder.bench.statistics import median_interval, paired_ratios

AGAIN = " (again)"
"""Ends the name of the second run of the A/A arm."""
NOTHING = "nothing"
"""The arm that costs nothing."""
MAX_NOISE = 0.10
"""Width of the A/A test's interval above which the machine is called noisy."""
MAX_INSTRUMENT_SHARE = 0.01
"""Share of the fastest arm's time that measuring may take."""
MIN_ROUNDS = 5
"""Fewer rounds give a result of low confidence."""
_MAX_CUT = 6
"""Parts left out of a quick run that the answer names."""
_ALIKE = "no significant difference"
_NAMES_OF_BOUND = ("stream_from_memory", "decode")


class Conditions(NamedTuple):
    """What else a summary depends on."""

    is_sure: bool
    """Whether the run was complete and not quick."""
    rounds_added: int = 0
    """Rounds that were added because the machine was noisy."""
    image_bytes: float = 0.0
    """Mean length of an image; 0 is unknown."""
    quick: bool = False
    """Whether the run was quick."""
    left_out_for_time: Sequence[str] = ()
    """What a quick run left out to keep its time."""


def summarize(rounds: Sequence[Round], rooflines: Sequence[Roofline], conditions: Conditions) -> Summary:
    """Return what the rounds of a comparison found.

    Args:
        rounds: All rounds; warm-ups are left out here.
        rooflines: Upper bounds.
        conditions: What else the summary depends on.
    """
    measured = [one for one in rounds if one.round > 0]
    groups = _by_arm(one for one in measured if one.arm != NOTHING and not one.arm.endswith(AGAIN))
    arms = sorted(
        (_summarize_arm(group, groups, rooflines, _peak_memory(rounds, group[0])) for group in groups.values()),
        key=lambda each: -each.imgs_per_s.median,
    )
    repeated = repeated_arm(measured, conditions.rounds_added)
    ratios = _ratios(arms, groups)
    sure = conditions.is_sure and repeated is not None and repeated.verdict == "quiet"
    with_threads = [arm for arm in _fewest_workers(arms) if not _ignores_workers(arm.arm)]
    return Summary(
        answer=" ".join(
            [
                *_answer(arms, ratios, repeated, len(_repeated_pairs(measured)), conditions.image_bytes),
                *_caution(arms, conditions),
            ]
        ),
        confidence="high" if sure else "low",
        arms=arms,
        ratios=ratios,
        repeated=repeated,
        instrument=_instrument(measured, arms),
        waterfall=[step for arm in with_threads for step in _waterfall(arm, rooflines)],
    )


def repeated_arm(rounds: Sequence[Round], rounds_added: int = 0) -> RepeatedArm | None:
    """Return the result of the A/A test, or None if no round has both runs of the arm."""
    pairs = _repeated_pairs(rounds)
    if not pairs:
        return None
    name, ratios = pairs[0][0].arm, [one.epochs[0].imgs_per_s / again.epochs[0].imgs_per_s for one, again in pairs]
    ratio = median_interval(ratios)
    has_one = round(ratio.low, 2) <= 1 <= round(ratio.high, 2)
    is_quiet = has_one and ratio.high - ratio.low <= MAX_NOISE
    return RepeatedArm(arm=name, ratio=ratio, verdict="quiet" if is_quiet else "noisy", rounds_added=rounds_added)


def _repeated_pairs(rounds: Sequence[Round]) -> list[tuple[Round, Round]]:
    """Return both runs of the A/A arm, of each measured round that has them."""
    first = {(one.arm, one.workers, one.round): one for one in rounds}
    again = [one for one in rounds if one.arm.endswith(AGAIN) and one.round > 0]
    keys = [(one.arm.removesuffix(AGAIN), one.workers, one.round) for one in again]
    return [(first[key], one) for key, one in zip(keys, again, strict=True) if key in first]


def _peak_memory(rounds: Sequence[Round], arm: Round) -> int:
    """Return the highest memory of an arm, its warm-up included: that is where memory is sampled within an epoch."""
    own = [one for one in rounds if (one.arm, one.workers) == (arm.arm, arm.workers)]
    return max(epoch.peak_memory_bytes for one in own for epoch in one.epochs)


def _by_arm(rounds: Iterable[Round]) -> dict[tuple[str, int], list[Round]]:
    groups: dict[tuple[str, int], list[Round]] = {}
    for one in rounds:
        groups.setdefault((one.arm, one.workers), []).append(one)
    return groups


def _rate(rounds: Sequence[Round]) -> Interval:
    return median_interval([one.epochs[0].imgs_per_s for one in rounds])


def _summarize_arm(
    rounds: Sequence[Round],
    groups: Mapping[tuple[str, int], Sequence[Round]],
    rooflines: Sequence[Roofline],
    peak_memory: int,
) -> ArmSummary:
    """Summarize an arm with a number of workers; `groups` has the rounds of all arms and numbers."""
    name, workers = rounds[0].arm, rounds[0].workers
    firsts = [one.epochs[0] for one in rounds]
    seconds = [one.epochs[1].imgs_per_s for one in rounds if len(one.epochs) > 1]
    rate = _rate(rounds)
    by_workers = {number: _rate(group).median for (arm, number), group in groups.items() if arm == name}
    bound = None if _ignores_workers(name) else _bound(rooflines, workers)
    utilization = utilization_of(rate.median, {} if _ignores_workers(name) else by_workers)

    def interval(value: Callable[[EpochRecord], float]) -> Interval:
        return median_interval([value(epoch) for epoch in firsts])

    return ArmSummary(
        arm=name,
        workers=workers,
        rounds=len(rounds),
        imgs_per_s=rate,
        batches_per_s=interval(lambda epoch: epoch.batches_per_s),
        avg_batch_s=interval(lambda epoch: epoch.avg_batch_s),
        first_batch_s=interval(lambda epoch: epoch.first_batch_s),
        wait_s=_median_waits([epoch.wait_s for epoch in firsts]),
        second_epoch_imgs_per_s=median_interval(seconds) if seconds else None,
        cpu_s_per_1000_imgs=interval(lambda epoch: epoch.cpu_s * 1000 / epoch.images),
        cores=interval(lambda epoch: epoch.cpu_s / epoch.seconds if epoch.seconds else 0.0),
        peak_memory_bytes=peak_memory,
        network_bytes_per_img=_median(
            [epoch.network_bytes and epoch.network_bytes / epoch.images for epoch in firsts], 0
        ),
        requests_per_1000_imgs=_median(
            [epoch.network_requests and epoch.network_requests * 1000 / epoch.images for epoch in firsts], 2
        ),
        exactly_once=_all_true([epoch.exactly_once for one in rounds for epoch in one.epochs]),
        order_entropy=_median([epoch.order_entropy for epoch in firsts], 4),
        share_of_roofline=round(rate.median / bound, 4) if bound else None,
        utilization=utilization,
        largest_accelerator=largest(utilization),
        steps=_summarize_steps([one.steps for one in rounds if one.steps is not None]),
    )


def _ignores_workers(arm: str) -> bool:
    return arm in ARMS and ARMS[arm].workers == "all cores"


def _in_words(arm: ArmSummary) -> str:
    """Return what an arm ran with."""
    return "all cores" if _ignores_workers(arm.arm) else count_workers(arm.workers)


def _summarize_steps(rounds: Sequence[StepsRecord]) -> StepsSummary | None:
    if not rounds:
        return None
    names = ("imgs_per_s", "step_p50_s", "step_p99_s", "synthetic_step_p50_s", "synthetic_step_p99_s")
    return StepsSummary(
        device=rounds[0].device,
        model=rounds[0].model,
        busy_share=median_interval([one.busy_share for one in rounds]),
        **{name: statistics.median(getattr(one, name) for one in rounds) for name in names},
    )


def _median(values: Sequence[float | None], digits: int) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), digits) if len(known) == len(values) else None


def _all_true(values: Sequence[bool | None]) -> bool | None:
    if any(value is False for value in values):
        return False
    return None if None in values else True


def _median_waits(waits: Sequence[Waits]) -> Waits:
    return Waits(**{name: statistics.median(getattr(wait, name) for wait in waits) for name in Waits.model_fields})


def _bound(rooflines: Sequence[Roofline], workers: int) -> float | None:
    """Return the rate that no arm with so many workers exceeds, or None if it was measured with other numbers only."""
    rates = {roofline.name: roofline.imgs_per_s for roofline in rooflines if roofline.workers == workers}
    return next((rates[name] for name in _NAMES_OF_BOUND if rates.get(name)), None)


def _ratios(arms: Sequence[ArmSummary], groups: dict[tuple[str, int], list[Round]]) -> list[Ratio]:
    """Return the ratios of the fastest arm to each other one, with the same number of workers."""
    found = []
    for best, *others in _by_workers(arms):
        rates = {one.round: one.epochs[0].imgs_per_s for one in groups[best.arm, best.workers]}
        for other in others:
            against = {one.round: one.epochs[0].imgs_per_s for one in groups[other.arm, other.workers]}
            pairs = paired_ratios(rates, against)
            if pairs:
                ratio = median_interval(pairs)
                found.append(
                    Ratio(
                        arm=best.arm,
                        against=other.arm,
                        workers=best.workers,
                        ratio=ratio,
                        rounds=pairs,
                        differs=len(pairs) > 1 and not ratio.low <= 1 <= ratio.high,
                    )
                )
    return found


def _by_workers(arms: Sequence[ArmSummary]) -> list[list[ArmSummary]]:
    """Group arms by their number of workers, in the same order."""
    numbers = sorted({arm.workers for arm in arms})
    return [[arm for arm in arms if arm.workers == number] for number in numbers]


def _fewest_workers(arms: Sequence[ArmSummary]) -> list[ArmSummary]:
    return _by_workers(arms)[0] if arms else []


def _instrument(rounds: Sequence[Round], arms: Sequence[ArmSummary]) -> Instrument | None:
    batch = [one.epochs[0].avg_batch_s for one in rounds if one.arm == NOTHING]
    if not batch or not arms:
        return None
    seconds = statistics.median(batch)
    fastest = min(arms, key=lambda arm: arm.avg_batch_s.median)
    epochs = [one.epochs[0] for one in rounds if (one.arm, one.workers) == (fastest.arm, fastest.workers)]
    sampling = statistics.median(epoch.instrument_cpu_s / epoch.batches for epoch in epochs)
    share = (seconds + sampling) / fastest.avg_batch_s.median
    return Instrument(
        seconds_per_batch=seconds, share_of_fastest=round(share, 5), within_limit=share < MAX_INSTRUMENT_SHARE
    )


def _waterfall(arm: ArmSummary, rooflines: Sequence[Roofline]) -> list[WaterfallStep]:
    """Split an arm's time per 1,000 images. A step that would exceed what is left is cut."""
    rates = {roofline.name: roofline.imgs_per_s for roofline in rooflines}
    decode, in_memory = rates.get("decode"), rates.get("stream_from_memory")
    if not decode or not in_memory:
        return []
    total = 1000 / arm.imgs_per_s.median
    decoding = min(1000 / decode, total)
    batching = min(max(1000 / in_memory - 1000 / decode, 0.0), total - decoding)
    steps = {"decode": decoding, "batch": batching, "rest": total - decoding - batching}
    return [
        WaterfallStep(arm=arm.arm, step=step, s_per_1000_imgs=round(seconds, 4))  # type: ignore[arg-type]
        for step, seconds in steps.items()
    ]


def _answer(
    arms: Sequence[ArmSummary],
    ratios: Sequence[Ratio],
    repeated: RepeatedArm | None,
    repeats: int,
    image_bytes: float,
) -> list[str]:
    """Return the sentences that answer the question. `repeats` is the number of rounds of the A/A test."""
    if not arms:
        return ["No arm could be measured."]
    best = arms[0]
    others = [one for one in ratios if one.arm == best.arm and one.workers == best.workers]
    sentences = [f"{best.arm} is the fastest here: {_rate_in_words(best)}"]
    if others:
        nearest = min(others, key=lambda one: one.ratio.median)
        rounds = len(nearest.rounds)
        sentences[0] += (
            f", {nearest.ratio.median:.2f} times as fast as {nearest.against} "
            f"({_ends(nearest.ratio, rounds, 2)})" + ("" if nearest.differs or rounds == 1 else f": {_ALIKE}")
        )
    sentences[0] += "."
    sentences += _advice(arms, others)
    sentences.append(
        f"It keeps {best.largest_accelerator} busy{_with_images(best, image_bytes)}."
        if best.largest_accelerator
        else "No accelerator of the list is kept busy by it."
    )
    if repeated is not None and repeated.verdict == "noisy":
        sentences.append(
            f"The machine was too noisy to be sure: {repeated.arm} twice gave a ratio of {repeated.ratio.median:.2f} "
            f"({_ends(repeated.ratio, repeats, 2)})."
        )
    return sentences


def _rate_in_words(arm: ArmSummary) -> str:
    """Return an arm's rate with its interval, and what it ran with."""
    rate = arm.imgs_per_s
    return f"{rate.median:,.0f} images/s ({_ends(rate, arm.rounds)}) with {_in_words(arm)}"


def _ends(interval: Interval, rounds: int, digits: int = 0) -> str:
    """Return the ends of an interval; a single round has none."""
    return ONE_ROUND if rounds == 1 else f"{interval.low:,.{digits}f} to {interval.high:,.{digits}f}"


def _advice(arms: Sequence[ArmSummary], others: Sequence[Ratio]) -> list[str]:
    """Return what to use here, what noise doesn't tell from it, and if it reads a disk, what to use from the store."""
    best = arms[0]
    found = [f"Use {in_words(best.arm)}."]
    if not reads_a_store(best.arm) and (remote := next((one for one in arms if reads_a_store(one.arm)), None)):
        found.append(f"From the store, use {in_words(remote.arm)} ({remote.arm}): {_rate_in_words(remote)}.")
    alike = [one.against for one in others if not one.differs and len(one.rounds) > 1]
    if alike:
        found.append(f"No slower than noise can explain: {', '.join(f'{name} ({in_words(name)})' for name in alike)}.")
    if once := [one.against for one in others if len(one.rounds) == 1]:
        found.append(f"A single round can't tell from noise how much slower these are: {', '.join(once)}.")
    return found


def _with_images(best: ArmSummary, image_bytes: float) -> str:
    """Return how long the images were and those of the rule are, since the rule's decide how busy a store is."""
    [rule] = [each for each in best.utilization if each.accelerator == best.largest_accelerator]
    if not image_bytes or not rule.sample_bytes:
        return ""
    return f" with these images of {image_bytes / 1000:,.0f} kB (its rule's have {rule.sample_bytes / 1000:,.0f} kB)"


def _caution(arms: Sequence[ArmSummary], conditions: Conditions) -> list[str]:
    """Return sentences that tell how sure the answer is, if it isn't, and what was left out for lack of time."""
    cut = conditions.left_out_for_time
    if conditions.is_sure:
        return []
    if not conditions.quick:
        return ["This run was incomplete, so the intervals are wide: run the whole comparison."]
    fewest = min((arm.rounds for arm in arms), default=0)
    sureness = (
        "a single round for some arms, which says nothing about noise: take the order as a hint"
        if fewest == 1
        else f"{fewest} rounds of parts of an epoch, so the intervals are wide"
    )
    more = f", and {len(cut) - _MAX_CUT:,} more" if len(cut) > _MAX_CUT else ""
    without = [f"To keep its time, it left out {', '.join(cut[:_MAX_CUT])}{more}."] if cut else []
    return [f"This run was quick ({sureness}): run the whole comparison to be sure.", *without]
