"""Define the settings of stages that run their work on an engine."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from larder.engines import EngineName, is_address
from larder.settings import ProcessSettings


def _validated_address(address: str) -> str:
    if not is_address(address):
        raise ValueError("must be host:port, auto for the cluster of this machine, or empty")
    return address


class EngineSettings(ProcessSettings):
    """Settings of the engine."""

    engine: EngineName = Field(
        "local",
        alias="LARDER_ENGINE",
        description="where the work runs: local (LARDER_WORKERS processes on this machine) or ray (the CPUs "
        "of a Ray cluster)",
    )
    ray_address: Annotated[str, AfterValidator(_validated_address)] = Field(
        "",
        alias="RAY_ADDRESS",
        description="the head of the Ray cluster, as host:port; auto finds the cluster on this machine; empty "
        "starts one with LARDER_WORKERS processes for this run",
    )
