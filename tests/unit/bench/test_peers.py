"""Arms of other libraries."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from larder.bench import arms, peer_environments
from larder.bench.open_arm import open_arm
from larder.errors import ConfigurationError, StorageError
from larder.progress import NullReporter
from services.commands import replace_stage_names
from tests.unit.bench.conftest import MakeSettings

OPTIONAL = [name for name in arms.arm_names() if arms.is_optional(name)]
ELSEWHERE = [name for name in arms.arm_names() if arms.ARMS[name].environment]


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python without environments of peers."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path


def make_environment(name: str, version: str = "") -> Path:
    """Make the folder of an environment, as install leaves it, with one distribution."""
    folder, package = peer_environments.folder_of(name), arms.ARMS[name].packages[0]
    metadata = folder / "lib" / "python3.11" / "site-packages" / f"{package.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Name: {package}\nVersion: {version}\n")
    (folder / peer_environments._STAMP).write_bytes(peer_environments._stamp_of(name))
    return folder


@pytest.mark.parametrize("name", OPTIONAL)
def test_an_arm_whose_library_is_missing_names_the_command(
    name: str, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "version_of", lambda distribution: arms.UNKNOWN)
    with pytest.raises(ConfigurationError) as missing:
        open_arm(name, make_settings(), NullReporter()).__enter__()
    packages = [package for package in arms.ARMS[name].packages if package != "larder-data"]
    assert missing.value.what == f"{name} can't run: {' and '.join(packages)} aren't installed"
    install = f"pip install 'larder-data[{extra(name)}]'"
    assert missing.value.next_step == (f"`bench peers LARDER_ARM={name}`" if name in ELSEWHERE else f"`{install}`")


@pytest.mark.parametrize("name", OPTIONAL)
def test_in_a_container_the_runner_without_containers_helps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.prefix", arms.IMAGE_PREFIX)
    assert replace_stage_names(arms.install_command(name), "make") == "`make compare RUNNER=host`"
    dockerfile = Path(__file__).parents[3] / "services" / "Dockerfile"
    assert f"PATH={arms.IMAGE_PREFIX}/bin:" in dockerfile.read_text()


def extra(name: str) -> str:
    return arms.ARMS[name].extra


def test_the_extra_of_every_optional_arm_exists() -> None:
    with (Path(__file__).parents[3] / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert OPTIONAL
    for name in OPTIONAL:
        assert set(extra(name).split(",")) <= extras.keys()


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_environment_pins_its_packages_and_brings_no_torch(name: str) -> None:
    lines = peer_environments.requirements_of(arms.ARMS[name].environment).read_text().splitlines()
    assert all("==" in line for line in lines)
    assert any(line.startswith(f"{arms.ARMS[name].packages[0]}==") for line in lines)
    assert not [line for line in lines if line.startswith(("torch", "nvidia", "larder"))]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_the_packages_of_an_environment_are_found_in_it(
    name: str, prefix: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "_installed_version", lambda distribution: "2.0" if distribution == "torch" else "")
    assert arms.missing_packages(name) == [arms.ARMS[name].packages[0]]
    folder = make_environment(name, "1.5")
    assert arms.missing_packages(name) == []
    assert arms.is_elsewhere(name)
    assert arms.version_of(arms.ARMS[name].packages[0]) == "1.5"
    assert peer_environments.python_of(name) == folder / "bin" / "python"
    with pytest.raises(ConfigurationError) as elsewhere:
        open_arm(name, make_settings(), NullReporter()).__enter__()
    assert elsewhere.value.next_step == f"`bench compare LARDER_ARMS={name}`"


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_environment_of_other_requirements_is_missing(name: str, prefix: Path) -> None:
    folder = make_environment(name, "1.5")
    (folder / peer_environments._STAMP).write_text(f"{arms.ARMS[name].packages[0]}==0.1\n")
    assert peer_environments.python_of(name) is None


def test_an_environment_that_cant_be_made_is_an_error_with_a_next_step(prefix: Path) -> None:
    (prefix / "share").write_text("")
    with pytest.raises(StorageError) as refused:
        peer_environments.install("mosaicml")
    assert "RUNNER=host" in refused.value.next_step
