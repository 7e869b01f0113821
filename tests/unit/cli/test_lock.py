"""The lock file: what it says, and what it leaves out."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from docs import generate
from larder.cli.lock import pin, without_addresses
from larder.cli.virtualenv import MEGABYTES, NEEDS_TORCH, torch_pins

ROOT = Path(__file__).parents[3]
STAGES = {path.parent.name for path in ROOT.glob("services/*/__main__.py")}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
GROUPS: dict[str, list[str | dict[str, str]]] = PYPROJECT["dependency-groups"]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]

A, B = "a" * 64, "b" * 64
FILES = "https://files.example"
PACKAGE = f"""\
[[package]]
name = "tiny"
version = "1.2"
source = {{ registry = "https://index.example/simple" }}
sdist = {{ url = "{FILES}/tiny-1.2.tar.gz", hash = "sha256:{A}", size = 1, upload-time = "2026-10-23T10:44:50Z" }}
wheels = [
    {{ url = "{FILES}/tiny-1.2-py3-none-any.whl", hash = "sha256:{B}", size = 2 }},
]
"""


def test_the_lock_fits_pyproject() -> None:
    """The check runs offline, so it reads only the two files."""
    uv = Path(sys.executable).with_name("uv")
    check: list[str | Path] = [uv, "lock", "--check", "--offline", "--directory", ROOT]
    ended = subprocess.run(check, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{ended.stderr} (make lock)"


def test_the_lock_names_no_host() -> None:
    lock = (ROOT / "uv.lock").read_text()
    assert "://" not in lock
    assert set(re.findall(r'registry = "([^"]*)"', lock)) == {"."}
    assert not re.search(r"\bpath = \"[^\"]*/", lock)


def test_the_lock_leaves_torch_to_its_index() -> None:
    names = {package["name"] for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]}
    assert {"torch", "torchvision"}.isdisjoint(names)
    of_torch = ("nvidia-cublas", "nvidia-cudnn", "nvidia-nccl")  # DALI brings others
    assert not [name for name in names if name.startswith(of_torch)]
    assert torch_pins(ROOT) == GROUPS["torch"]


def test_addresses_become_file_names() -> None:
    text = without_addresses(PACKAGE)
    assert 'source = { registry = "." }' in text
    assert 'sdist = { path = "tiny-1.2.tar.gz", hash = "sha256:aaaa' in text
    assert '{ path = "tiny-1.2-py3-none-any.whl", hash = "sha256:bbbb' in text
    assert "example" not in text
    assert without_addresses(text) == text


def test_a_package_is_pinned_with_the_hashes_of_all_its_files() -> None:
    assert pin(PACKAGE, "tiny") == f"tiny==1.2 \\\n    --hash=sha256:{A} \\\n    --hash=sha256:{B}\n"


@pytest.mark.parametrize("text", [pytest.param("", id="none"), pytest.param(PACKAGE * 2, id="two")])
def test_a_package_without_one_version_is_not_pinned(text: str) -> None:
    with pytest.raises(KeyError, match="tiny"):
        pin(text, "tiny")


def test_every_stage_has_a_group_and_a_size() -> None:
    assert set(GROUPS) - {"torch"} == set(MEGABYTES)
    assert STAGES | {"provision", "server", "uv", "dev", "torch"} == set(GROUPS)


def test_torch_is_installed_for_whoever_asks_for_its_extra() -> None:
    assert {name for name, needs in GROUPS.items() if "torch" in extras_of(needs)} == NEEDS_TORCH


def test_dev_has_what_all_stages_have() -> None:
    """And all that users may want, but DALI, which takes 950 MB. torchcodec can be imported where torch has CUDA."""
    assert extras_of(GROUPS["dev"]) == set(EXTRAS) - {"dali"}


def extras_of(needs: list[str | dict[str, str]] | list[str]) -> set[str]:
    """Return the extras that a list of requirements names, directly or through other extras."""
    named = {extra for need in needs if isinstance(need, str) for extra in re.findall(r"[\w-]+", own_extras(need))}
    return named.union(*(extras_of(EXTRAS[extra]) for extra in named))


def own_extras(requirement: str) -> str:
    match = re.fullmatch(r"larder-data\[(.*)\]", requirement)
    return match[1] if match else ""


def test_a_reason_stands_beside_every_direct_dependency() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    tables = text[text.index("dependencies = [") : text.index("[tool.")]
    pattern = re.compile(r"^ +\"(?!larder-data\[)[^\"]+\",(?! +# \w)", re.MULTILINE)
    assert pattern.findall(tables) == []


def test_the_dockerfile_has_a_target_for_every_stage() -> None:
    text = (ROOT / "services" / "Dockerfile").read_text()
    bases = {name: base for base, name in re.findall(r"^FROM (\w+) AS ([\w-]+)$", text, re.MULTILINE)}
    assert set(bases) >= STAGES
    assert {name for name in STAGES if bases[name] == "torch"} == NEEDS_TORCH - {"dev"}
    for stage in STAGES:
        assert f'ENTRYPOINT ["python", "-m", "services.{stage}"]' in text


def test_compose_has_the_version_of_pyproject() -> None:
    """Compose can't read it there: `make docs` writes it; everything else reads it."""
    version = PYPROJECT["project"]["version"]
    texts = {path.name: path.read_text() for path in (ROOT / "compose").glob("*.yaml")}
    tags = [tag for text in texts.values() for tag in re.findall(r"image: larder-\S+:(\S+)", text)]
    assert len(tags) == len(STAGES) + 2  # and Ray's nodes, and the link
    assert set(tags) == {version}
    assert re.findall(r'VERSION: "(.+)"', texts["stage.yaml"]) == [version]


def test_a_new_version_reaches_every_compose_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "__version__", "12.0.0rc1")
    old = PYPROJECT["project"]["version"]
    for path in (ROOT / "compose").glob("*.yaml"):
        text = path.read_text()
        assert generate.with_constants(text) == text.replace(old, "12.0.0rc1")
