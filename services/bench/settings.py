"""The settings of the bench stage."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from larder.bench.settings import SECRETS, LoaderSettings
from services.bench import arms


def _known_arm(name: str) -> str:
    known = arms.names()
    if name not in known:
        raise ValueError(f"there is no such arm; must be one of: {', '.join(known)}")
    return name


def _about_arms() -> str:
    return "; ".join(f"{name} ({arms.about(name)})" for name in arms.names())


class BenchSettings(LoaderSettings):
    """What is measured, on which data, and for how long."""

    arm: Annotated[str, AfterValidator(_known_arm)] = Field(
        "imagefolder_local", alias="LARDER_ARM", description=f"what is measured: {_about_arms()}"
    )
    task: Literal["bench", "train"] = Field(
        "bench", alias="LARDER_BENCH_TASK",
        description="bench (measure the arm alone), train (train a small network through it)",
    )  # fmt: skip
    epochs: int = Field(
        3, alias="LARDER_EPOCHS", ge=1, description="how long train trains", json_schema_extra={"unit": "epochs"}
    )
    held_out: str = Field("validation", alias="LARDER_HELD_OUT", description="the split that train scores on")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", alias="LARDER_DEVICE", description="where train computes; auto takes CUDA where torch sees it"
    )
    warmup_batches: int = Field(
        5, alias="LARDER_WARMUP_BATCHES", ge=0,
        description="how much is read before measuring starts, in a pass of its own that no figure counts",
        json_schema_extra={"unit": "batches"},
    )  # fmt: skip
    batches: int = Field(
        0, alias="LARDER_BENCH_BATCHES", ge=0, description="how much is measured; 0 is one whole epoch",
        json_schema_extra={"unit": "batches"},
    )  # fmt: skip
    revision: str = Field(
        "", alias="LARDER_REVISION",
        description="the revision of this code, for the record; by default what git says of the checkout",
    )  # fmt: skip

    def for_record(self) -> dict[str, Any]:
        """The settings as a record keeps them: all that shape a run, and no secret."""
        return self.model_dump(mode="json", exclude={"arm", "log", "revision", *SECRETS})
