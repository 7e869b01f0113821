"""Settings of a comparison."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from larder.bench import arms
from larder.bench.settings import SECRETS, LoaderSettings
from larder.distant.link import Link, parse_link, validated_bandwidth, validated_latency
from larder.suggest import did_you_mean

QUICK_ROUNDS = 3
MAX_WORKERS = 1024


def _validated_arms(names: str) -> str:
    known = arms.arm_names()
    unknown = [name for name in names.split(",") if name and name not in known]
    if unknown:
        meant = did_you_mean(unknown[0], known) or f"; must be some of: {', '.join(known)}"
        raise ValueError(f"unknown arm {unknown[0]!r}{meant}")
    return names


def _validated_sweep(numbers: str) -> str:
    for number in filter(None, numbers.split(",")):
        if not number.strip().isdigit() or not 1 <= int(number) <= MAX_WORKERS:
            raise ValueError(f"must be numbers from 1 to {MAX_WORKERS:,} with commas between them, as in 1,2,4")
    return numbers


class ComparisonSettings(LoaderSettings):
    """What a comparison measures, and for how long."""

    arms: Annotated[str, AfterValidator(_validated_arms)] = Field(
        "",
        alias="LARDER_ARMS",
        description="the arms that compare measures, with commas between them; empty: all that the data allow",
    )
    sweep: Annotated[str, AfterValidator(_validated_sweep)] = Field(
        "",
        alias="LARDER_SWEEP",
        description="numbers of workers that compare measures, as in 1,2,4; LARDER_WORKERS=1,2,4 means the same. "
        "Empty: LARDER_WORKERS alone",
    )
    records: str = Field(
        "",
        alias="LARDER_RECORDS",
        description="records of comparisons, with commas between them: compare measures nothing, and puts their rounds "
        "together. Names without a folder are looked for in LARDER_RESULTS",
    )
    rounds: int = Field(
        5,
        alias="LARDER_ROUNDS",
        ge=1,
        le=1000,
        description="measured rounds of each arm, after a warm-up; fewer than 5 give a result of low confidence",
        json_schema_extra={"unit": "rounds"},
    )
    quick: bool = Field(
        False,
        alias="LARDER_QUICK",
        description=f"compare in less than three minutes: up to {QUICK_ROUNDS} rounds of parts of an epoch, with "
        "wide intervals; what doesn't fit is left out and named",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        alias="LARDER_DEVICE",
        description="device that train computes on; auto uses CUDA if torch sees it. With cuda or cpu, compare also "
        "trains on each arm's batches: ResNet-50 on CUDA, the network of train on a CPU",
    )
    latency: Annotated[str, AfterValidator(validated_latency)] = Field(
        "",
        alias="LARDER_LINK_LATENCY",
        description="round-trip time that compare adds to the store, as in 20ms: a proxy stands between, also for 0ms. "
        "Only for a store with http. It comes on top of that of s3-up's link",
    )
    bandwidth: Annotated[str, AfterValidator(validated_bandwidth)] = Field(
        "",
        alias="LARDER_LINK_BANDWIDTH",
        description="bandwidth to which compare limits the store, all connections together, as in 200mbit; unlimited, "
        "or empty without LARDER_LINK_LATENCY, is no limit",
    )
    round_seconds: int = Field(
        600,
        alias="LARDER_ROUND_SECONDS",
        ge=1,
        description="time limit of a round of compare; an arm that takes longer is ended, and the others go on",
        json_schema_extra={"unit": "seconds"},
    )
    extra_seconds: int = Field(
        300,
        alias="LARDER_EXTRA_SECONDS",
        ge=0,
        description="time that compare may spend on more rounds if the machine is noisy",
        json_schema_extra={"unit": "seconds"},
    )
    batches: int = Field(
        0,
        alias="LARDER_BENCH_BATCHES",
        ge=0,
        description="number of measured batches; 0 measures a whole epoch",
        json_schema_extra={"unit": "batches"},
    )
    revision: str = Field(
        "",
        alias="LARDER_REVISION",
        description="the revision of larder's code, for the record; by default the checkout's git revision",
    )

    @model_validator(mode="before")
    @classmethod
    def _split_workers(cls, values: Any) -> Any:
        """Take `workers="1,2,4"` as a sweep."""
        workers = values.get("workers") if isinstance(values, Mapping) else None
        if isinstance(workers, str) and "," in workers:
            first = workers.partition(",")[0].strip()
            return {**values, "workers": first, "sweep": values.get("sweep") or workers}
        return values

    @property
    def worker_counts(self) -> list[int]:
        """Numbers of workers to measure, smallest first."""
        return sorted({int(number) for number in self.sweep.split(",") if number}) or [self.workers]

    @property
    def chosen_arms(self) -> list[str]:
        """Arms to measure if the data allow, each once."""
        return list(dict.fromkeys(name for name in self.arms.split(",") if name)) or arms.arm_names()

    @property
    def record_paths(self) -> list[Path]:
        """Records to put together."""
        paths = (Path(name) for name in self.records.split(",") if name)
        return [path if len(path.parts) > 1 or path.exists() else self.results / path for path in paths]

    @property
    def link(self) -> Link | None:
        """What a proxy of compare adds on the way to the store; None without a proxy."""
        return parse_link(self.latency, self.bandwidth)

    @property
    def measured_rounds(self) -> int:
        """Measured rounds of each arm."""
        return min(self.rounds, QUICK_ROUNDS) if self.quick else self.rounds

    def compared(self) -> dict[str, Any]:
        """Return the settings for the record: all that affect a comparison, without secrets."""
        names = set(ComparisonSettings.model_fields) - {"log", "revision", "results", "records", *SECRETS}
        return self.model_dump(mode="json", include=names)
