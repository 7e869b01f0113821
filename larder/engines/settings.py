"""The settings that stages share whose work engines spread."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from larder.engines import EngineName, is_address
from larder.settings import ProcessSettings


def _an_address(address: str) -> str:
    if not is_address(address):
        raise ValueError("must be host:port, auto for the cluster of this machine, or empty")
    return address


class EngineSettings(ProcessSettings):
    """What does the work."""

    engine: EngineName = Field(
        "local", alias="LARDER_ENGINE",
        description="what does the work: local (LARDER_WORKERS processes here), ray (the CPUs of a Ray cluster)",
    )  # fmt: skip
    ray_address: Annotated[str, AfterValidator(_an_address)] = Field(
        "", alias="RAY_ADDRESS",
        description="the Ray cluster's head, as host:port; auto is the cluster of this machine; empty makes one of "
        "LARDER_WORKERS processes for this run",
    )  # fmt: skip
