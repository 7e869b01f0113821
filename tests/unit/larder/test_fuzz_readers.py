"""A short run of the fuzz targets of what readers parse, the same each time."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

from tests.fuzz.mutations import corrupt

ROUNDS = 400


@pytest.mark.parametrize("name", ["chunks", "index", "manifest", "shards"])
def test_a_short_run(tmp_path: Path, name: str) -> None:
    module, chance = importlib.import_module(f"tests.fuzz.{name}"), random.Random(name)
    for seed in module.SEEDS:
        module.target(seed, tmp_path)
    for _ in range(ROUNDS):
        module.target(corrupt(chance.choice(module.SEEDS), chance), tmp_path)
