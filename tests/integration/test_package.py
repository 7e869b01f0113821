"""The wheel, and the host runner's environment, installed from the package index."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from larder.cli.virtualenv import ensure
from larder.stream.build import library_name

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PYPROJECT["project"]["version"]
UV = str(Path(sys.executable).with_name("uv"))


def build_wheel(folder: Path, **environ: str) -> Path:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(build, check=True, env={**os.environ, **environ})
    [made] = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and its minimal dependencies."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    subprocess.run(
        [UV, "pip", "install", "-q", "--no-config", "--python", folder / "bin" / "python", wheel], check=True
    )
    return folder / "bin"


def check_content(wheel: Path, *compiled: str) -> None:
    """Check that a wheel holds larder's code, as in git, what was compiled, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry_points = archive.read(f"larder_data-{VERSION}.dist-info/entry_points.txt").decode()
    tracked = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard", "larder"], cwd=ROOT, text=True)
    code = {name for name in tracked.splitlines() if (ROOT / name).exists()} | set(compiled)
    assert {name for name in names if not name.startswith(f"larder_data-{VERSION}.dist-info/")} == code
    assert "larder/py.typed" in names
    assert "larder = larder.cli.main:main" in entry_points


def test_the_wheel_holds_larder_with_its_kernel_alone(wheel: Path) -> None:
    assert wheel.name == f"larder_data-{VERSION}-py3-none-linux_{platform.machine()}.whl"
    check_content(wheel, f"larder/stream/{library_name()}")


def test_without_a_compiler_the_wheel_is_pure(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, CC="no-such-compiler")
    assert wheel.name == f"larder_data-{VERSION}-py3-none-any.whl"
    check_content(wheel)


def test_a_source_archive_gives_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", tmp_path]
    subprocess.run(archive, cwd=ROOT, check=True)
    [source] = tmp_path.iterdir()
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path / "made",
    ]
    subprocess.run([*build, source], check=True)
    assert (tmp_path / "made" / wheel.name).exists()


def test_what_is_installed_is_imported_from_anywhere(installed: Path, tmp_path: Path) -> None:
    code = "import larder, larder.contract, larder.settings; print(larder.__file__, larder.__version__)"
    shown = subprocess.check_output([installed / "python", "-c", code], cwd=tmp_path, text=True).split()
    assert Path(shown[0]).is_relative_to(installed.parent)
    assert shown[1] == VERSION
    assert os.access(installed / "larder", os.X_OK)


def test_all_extras_can_be_had_together(wheel: Path, tmp_path: Path) -> None:
    extras = ",".join(PYPROJECT["project"]["optional-dependencies"])
    resolve = [
        UV,
        "pip",
        "compile",
        "-q",
        "--no-config",
        "--no-header",
        "--no-annotate",
        "--python",
        sys.executable,
        "-",
    ]
    requirement = f"larder-data[{extras}] @ {wheel.as_uri()}\n"
    ended = subprocess.run(resolve, input=requirement, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "torch==" in ended.stdout


def test_a_stage_runs_with_only_the_packages_that_it_declares(tmp_path: Path) -> None:
    checkout = tmp_path / "a checkout"
    checkout.mkdir()
    for name in ("pyproject.toml", "uv.lock", "larder", "services"):
        (checkout / name).symlink_to(ROOT / name)
    python = ensure(checkout, ["transform"], os.environ)
    ended = subprocess.run(
        [python, "-m", "services.transform", "--help"], cwd=checkout, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    look = "import importlib.util as u; print([name for name in ('PIL', 'boto3', 'torch') if u.find_spec(name)])"
    assert subprocess.check_output([python, "-c", look], text=True) == "['PIL']\n"
