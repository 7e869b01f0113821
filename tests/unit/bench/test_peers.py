"""Arms of other libraries."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from larder.bench import arms
from larder.bench.open_arm import open_arm
from larder.errors import ConfigurationError
from larder.progress import NullReporter
from tests.unit.bench.conftest import MakeSettings

OPTIONAL = [name for name in arms.arm_names() if arms.is_optional(name)]


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_arm_whose_library_is_missing_names_the_command(
    name: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "version_of", lambda distribution: arms.UNKNOWN)
    with pytest.raises(ConfigurationError) as missing:
        open_arm(name, make_settings(), NullReporter()).__enter__()
    assert f"{name} needs {arms.ARMS[name].packages[0]}" in missing.value.what
    assert missing.value.next_step == f"`pip install 'larder-data[{arms.ARMS[name].extra}]'`"


def test_the_extra_of_every_optional_arm_exists() -> None:
    with (Path(__file__).parents[3] / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert OPTIONAL
    for name in OPTIONAL:
        assert set(arms.ARMS[name].extra.split(",")) <= extras.keys()
