"""The settings of the bench stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from larder.bench import arms
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.settings import SECRETS
from larder.suggest import did_you_mean


def _validate_arm(name: str) -> str:
    known = arms.arm_names()
    if name not in known:
        meant = did_you_mean(name, known) or f"; must be one of: {', '.join(known)}"
        raise ValueError(f"unknown arm{meant}")
    return name


def _describe_arms() -> str:
    return "; ".join(f"{name} ({arms.about_arm(name)})" for name in arms.arm_names())


class BenchSettings(ComparisonSettings):
    """The arm or training to run, its data, and its duration."""

    arm: Annotated[str, AfterValidator(_validate_arm)] = Field(
        "imagefolder_local", alias="LARDER_ARM", description=f"what is measured: {_describe_arms()}"
    )
    task: Literal["bench", "train", "compare", "peers"] = Field(
        "bench",
        alias="LARDER_BENCH_TASK",
        description="bench (measure the arm alone), train (train a small network through it), compare (measure all "
        "arms in turn), peers (prepare the arm of another library: its environment, and data that only it reads)",
    )
    epochs: int = Field(
        3,
        alias="LARDER_EPOCHS",
        ge=1,
        description="number of epochs that train trains",
        json_schema_extra={"unit": "epochs"},
    )
    held_out: str = Field("validation", alias="LARDER_HELD_OUT", description="the split that train scores on")
    warmup_batches: int = Field(
        5,
        alias="LARDER_WARMUP_BATCHES",
        ge=0,
        description="maximum number of warm-up batches before the measurement",
        json_schema_extra={"unit": "batches"},
    )

    def for_record(self) -> dict[str, Any]:
        """Return the settings for the record: all that affect a run, without secrets."""
        of_comparisons = set(ComparisonSettings.__annotations__) - {"batches", "device"}
        return self.model_dump(mode="json", exclude={"arm", "log", *of_comparisons, *SECRETS})
