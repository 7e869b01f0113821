"""The build of torch that an image gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from larder.cli.compose import ComposeRunner, Facts
from larder.cli.settings import ResolvedSettings


@pytest.mark.parametrize(
    ("stage", "gpu", "given", "backend"),
    [
        pytest.param("bench", False, {}, "cpu", id="no-gpu"),
        pytest.param("bench", True, {}, None, id="a-gpu"),
        pytest.param("extract", False, {}, None, id="no-torch"),
        pytest.param("bench", False, {"TORCH_BACKEND": "cu130"}, "cu130", id="the-users-backend"),
        pytest.param("bench", False, {"TORCH_INDEX_URL": "https://mirror.example/cu130"}, None, id="the-users-index"),
    ],
)
def test_an_image_gets_torch_for_cpus_where_there_is_no_gpu(
    stage: str, gpu: bool, given: dict[str, str], backend: str | None
) -> None:
    settings = ResolvedSettings(Path("/checkout"), given, {}, {}, "compose")
    assert ComposeRunner(settings, facts=Facts(gpu=gpu)).build(stage).env.get("TORCH_BACKEND") == backend
