"""The settings of all stages together."""

from __future__ import annotations

import pytest
from pydantic import ByteSize, Field

from docs import generate
from larder.settings import Settings


class Upload(Settings):
    bandwidth: ByteSize = Field(ByteSize(0), alias="LARDER_SPEED", description="how fast")


class Slow(Settings):
    bandwidth: str = Field("", alias="LARDER_SPEED", description="how slow")


def test_a_variable_is_the_same_setting_in_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "STAGES", {"load": Upload, "bench": Slow})
    with pytest.raises(ValueError, match="LARDER_SPEED is another setting in bench than in load"):
        generate.settings_by_name()
