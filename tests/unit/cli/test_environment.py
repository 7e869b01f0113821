"""What the host runner installs, when, and in which order. Only the processes that reach the network are stand-ins."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from larder.cli import virtualenv
from larder.cli.virtualenv import ensure, ensure_for_python, find_python, groups_of
from larder.errors import ConfigurationError, ServiceError

PIP = "python -m pip install --disable-pip-version-check"
HASHED = "--require-hashes --no-deps"
UV = "uv pip install --no-config --quiet --python"
EXPORT = "--frozen --offline --quiet --no-emit-project --no-header --no-annotate"
TORCH = "torch==2.14.1 torchvision==0.29.1"


LOCK = """\
[[package]]
name = "uv"
version = "0.13.9"
source = { registry = "." }
wheels = [
    { path = "uv-0.13.9-py3-none-any.whl", hash = "sha256:%s", size = 2 },
]
"""
PYPROJECT = '[dependency-groups]\ntorch = ["torch==2.14.1", "torchvision==0.29.1"]\n'
STAND_IN = r"""#!/bin/sh
here="${0%/*}" line="${0##*/}"
for word in "$@"; do case "$word" in *.txt) word=LIST ;; esac; line="$line $word"; done
printf '%s\n' "$line" >>"$here/calls"
case "$line" in *" export "*) echo tiny==1.2 ;; esac
while read -r part; do case "$line" in *"$part"*) exit 1 ;; esac; done <"$here/fails"
"""


class Checkout:
    """A checkout, and the calls that were made in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / ".venv" / "bin"
        self.bin.mkdir(parents=True)
        (root / "pyproject.toml").write_text(PYPROJECT)
        (root / "uv.lock").write_text(LOCK % ("a" * 64))
        self.fails()
        for name in ("python", "uv"):
            stand_in = self.bin / name
            stand_in.write_text(STAND_IN)
            stand_in.chmod(0o755)

    def fails(self, *parts: str) -> None:
        """Let every call with one of these texts fail from now on."""
        (self.bin / "fails").write_text("".join(f"{part}\n" for part in parts))

    def calls(self) -> list[str]:
        """Return the calls since the last time, except for the check for pip."""
        path = self.bin / "calls"
        made = path.read_text().splitlines() if path.exists() else []
        path.write_text("")
        return [call for call in made if "--version" not in call]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout in a path with a space."""
    return Checkout(tmp_path / "a checkout")


def ignore(message: str) -> None:
    pass


@pytest.fixture
def messages() -> list[str]:
    return []


def install_uv() -> str:
    return f"{PIP} {HASHED} --quiet -r LIST"


def select(checkout: Checkout, *groups: str) -> str:
    return f"uv export --directory {checkout.root} {EXPORT} {' '.join(f'--only-group {group}' for group in groups)}"


def install(checkout: Checkout) -> str:
    return f"{UV} {checkout.bin / 'python'} {HASHED} -r LIST"


def test_uv_comes_first_then_what_the_stages_need(checkout: Checkout, messages: list[str]) -> None:
    python = ensure(checkout.root, ["transform", "extract"], {}, messages.append)
    assert python == checkout.bin / "python"
    assert checkout.calls() == [install_uv(), select(checkout, "extract", "transform"), install(checkout)]
    assert messages == ["installing into .venv/, once: extract, transform (about 70 MB)"]


def test_what_is_installed_is_not_installed_again(checkout: Checkout, messages: list[str]) -> None:
    ensure(checkout.root, ["extract"], {})
    checkout.calls()
    ensure(checkout.root, ["extract"], {}, messages.append)
    assert (checkout.calls(), messages) == ([], [])
    ensure(checkout.root, ["extract", "load"], {})
    assert checkout.calls() == [select(checkout, "load"), install(checkout)]


def test_a_new_lock_is_installed(checkout: Checkout) -> None:
    ensure(checkout.root, ["extract"], {})
    checkout.calls()
    (checkout.root / "uv.lock").write_text(LOCK % ("b" * 64))
    ensure(checkout.root, ["extract"], {})
    assert checkout.calls() == [install_uv(), select(checkout, "extract"), install(checkout)]


def test_torch_comes_last_and_only_where_it_is_needed() -> None:
    assert groups_of(["transform", "extract"]) == ["extract", "transform"]
    assert groups_of(["optimize", "load"]) == ["load", "optimize", "torch"]


def test_the_hosts_s3_starts_a_store() -> None:
    assert groups_of(["s3"]) == ["s3", "server"]


def test_dev_has_all_the_others(checkout: Checkout) -> None:
    ensure(checkout.root, ["dev"], {})
    assert select(checkout, "dev") in checkout.calls()
    ensure(checkout.root, ["extract", "jupyter", "s3"], {})
    assert checkout.calls() == []


def test_where_uv_gets_no_answer_pip_installs(checkout: Checkout) -> None:
    checkout.fails("uv pip install")
    ensure(checkout.root, ["extract"], {})
    assert checkout.calls()[-2:] == [install(checkout), f"{PIP} {HASHED} --quiet -r LIST"]


def test_a_failure_names_the_next_step_and_is_tried_again(checkout: Checkout) -> None:
    checkout.fails("--only-group load", "pip install --no-config", "pip install --disable")
    with pytest.raises(ServiceError, match="exit code 1") as raised:
        ensure(checkout.root, ["extract"], {})
    assert "network" in raised.value.next_step
    checkout.fails("nothing")
    checkout.calls()
    ensure(checkout.root, ["extract"], {})
    assert checkout.calls() == [install_uv(), select(checkout, "extract"), install(checkout)]


def test_an_environment_without_pip_is_recreated(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption, or the removal of a Python, leaves it like this."""
    base = python_that_makes(checkout.root / "base", checkout)
    monkeypatch.setattr(virtualenv, "find_python", lambda: str(base))
    ensure(checkout.root, ["extract"], {})
    (checkout.bin / "left-over").touch()
    checkout.fails("pip --version")
    ensure(checkout.root, ["extract", "load"], {})
    assert not (checkout.bin / "left-over").exists()
    assert install(checkout) in checkout.calls()


def test_a_group_that_is_not_there_is_the_checkouts_fault(checkout: Checkout) -> None:
    checkout.fails("export")
    with pytest.raises(ConfigurationError, match=r"what nosuch needs") as raised:
        ensure(checkout.root, ["nosuch"], {})
    assert "make lock" in raised.value.next_step


def test_two_at_once_install_once(checkout: Checkout) -> None:
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(ensure, checkout.root, ["extract"], {}, ignore) for _ in range(2)]
    assert {run.result() for run in runs} == {checkout.bin / "python"}
    assert checkout.calls() == [install_uv(), select(checkout, "extract"), install(checkout)]


@pytest.mark.parametrize(
    ("environ", "gpu", "backend", "size"),
    [
        pytest.param({}, False, "auto", "about 200 MB, for CPUs", id="no-gpu"),
        pytest.param({}, True, "auto", "about 3 GB, for GPUs", id="a-gpu"),
        pytest.param({"TORCH_BACKEND": "cpu"}, True, "cpu", "about 200 MB, for CPUs", id="cpu"),
        pytest.param(
            {"TORCH_BACKEND": "cu130", "TORCH_INDEX_URL": ""}, False, "cu130", "about 3 GB, for GPUs", id="cuda"
        ),
    ],
)
def test_torch_is_of_the_machines_kind(
    checkout: Checkout,
    messages: list[str],
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    gpu: bool,
    backend: str,
    size: str,
) -> None:
    monkeypatch.setattr(virtualenv, "has_nvidia_gpu", lambda: gpu)
    ensure(checkout.root, ["bench"], {"TORCH_INDEX_URL": "https://mirror.example/cpu"})
    (checkout.root / ".venv" / "installed" / "torch").unlink()
    checkout.calls()
    ensure(checkout.root, ["bench"], environ, messages.append)
    uv = f"{UV} {checkout.bin / 'python'} --torch-backend {backend}"
    assert checkout.calls() == [f"{uv} --dry-run {TORCH}", f"{uv} {TORCH}"]
    assert messages == [f"installing into .venv/, once: torch (torch: {size})"]


def add_kernel(checkout: Checkout, text: str, name: str = "jpeg_crop.c") -> None:
    folder = checkout.root / "larder" / "stream"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_the_jpeg_kernel_is_compiled_once_for_each_version(checkout: Checkout, messages: list[str]) -> None:
    add_kernel(checkout, "one")
    compiling = f"python {checkout.root}/larder/stream/build.py"
    ensure(checkout.root, ["extract"], {})
    assert compiling not in checkout.calls()
    ensure(checkout.root, ["bench"], {})
    assert checkout.calls()[-1] == compiling
    ensure(checkout.root, ["bench", "jupyter"], {})
    assert compiling not in checkout.calls()
    for name in ("jpeg_crop.c", "jpeg_huffman.h"):
        add_kernel(checkout, "another", name)
        ensure(checkout.root, ["bench"], {}, messages.append)
        assert (checkout.calls(), messages) == ([compiling], [])


def test_without_a_compiler_it_says_so_once(checkout: Checkout, messages: list[str]) -> None:
    ensure(checkout.root, ["bench"], {})
    add_kernel(checkout, "one")
    checkout.fails("build.py")
    ensure(checkout.root, ["bench"], {}, messages.append)
    assert len(messages) == 1
    assert "gcc libjpeg62-turbo-dev" in messages[0]
    assert messages[0].endswith("python3 larder/stream/build.py")
    ensure(checkout.root, ["bench"], {}, messages.append)
    assert len(messages) == 1


def test_without_pytorchs_own_index_the_default_one_serves(checkout: Checkout, messages: list[str]) -> None:
    checkout.fails("--dry-run")
    ensure(checkout.root, ["bench"], {}, messages.append)
    assert checkout.calls()[-1] == f"{PIP} {TORCH}"
    assert "the default index (CUDA, about 3 GB)" in messages[-1]


def test_the_users_index_wins(checkout: Checkout) -> None:
    index = "https://mirror.example/cpu"
    environ = {"TORCH_INDEX_URL": index, "TORCH_BACKEND": "cu130"}
    ensure(checkout.root, ["bench"], environ, ignore)
    assert checkout.calls()[-1] == f"{PIP} --index-url {index} {TORCH}"


def test_another_python_on_the_path_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python(tmp_path, "old", fits=False))
    monkeypatch.setenv("PATH", str(tmp_path))
    python(tmp_path, "python3.14", fits=False)
    python(tmp_path, "python3.12", fits=True)
    assert find_python() == "python3.12"


def test_without_a_new_enough_python_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python(tmp_path, "old", fits=False))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"needs Python 3\.11 or newer; .*/old is ") as raised:
        find_python()
    assert "Docker" in raised.value.next_step


def test_without_venv_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python(tmp_path, "new", fits=True, venv=False))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="lacks the module venv") as raised:
        find_python()
    assert "python3-venv" in raised.value.next_step


@pytest.mark.parametrize("there", ["on-the-path", "of-pyenv", "fetched"])
def test_another_version_has_an_environment_without_torch(
    checkout: Checkout, messages: list[str], tmp_path: Path, there: str
) -> None:
    folder = {"of-pyenv": tmp_path / "pyenv/versions/3.13.0/bin"}.get(there, tmp_path / "bin")
    folder.mkdir(parents=True)
    python_that_makes(folder / ("uvs" if there == "fetched" else "python3.13"), checkout)
    environ = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "PYENV_ROOT": str(tmp_path / "pyenv")}
    (checkout.bin / "uv").write_text(UV_THAT_FINDS.format(fetched=folder / "uvs", state=tmp_path / "state"))
    interpreter = ensure_for_python(checkout.root, "3.13", environ, messages.append)
    assert interpreter == checkout.root / ".venv-3.13" / "bin" / "python"
    assert messages == ["installing into .venv-3.13/, once: dev (about 520 MB)"]
    assert (tmp_path / "state").exists() == (there == "fetched")
    calls = (interpreter.parent / "calls").read_text().splitlines()
    assert select(checkout, "dev") in calls
    assert not [call for call in calls if "torch" in call]
    assert ensure_for_python(checkout.root, "3.13", environ, messages.append) == interpreter
    assert len(messages) == 1


def test_a_version_that_nobody_has_is_an_error(checkout: Checkout, tmp_path: Path) -> None:
    checkout.fails("python find", "python install")
    with pytest.raises(ConfigurationError, match=r"there is no Python 3\.13, and uv can't download it") as raised:
        ensure_for_python(checkout.root, "3.13", {"PATH": "/usr/bin:/bin", "PYENV_ROOT": str(tmp_path)}, ignore)
    assert "install python3.13" in raised.value.next_step


UV_THAT_FINDS = """#!/bin/sh
case "$2" in
    install) touch '{state}' ;;
    find) [ -e '{state}' ] && echo '{fetched}' || command -v python3.13 ;;
esac
"""


def python_that_makes(path: Path, checkout: Checkout) -> Path:
    """Write a Python whose environments have the checkout's stand-ins."""
    path.write_text(f'#!/bin/sh\nmkdir -p "$3/bin" && cp "{checkout.root}"/spare/* "$3/bin"\n')
    path.chmod(0o755)
    shutil.copytree(checkout.bin, checkout.root / "spare")
    return path


def python(folder: Path, name: str, fits: bool, venv: bool = True) -> str:
    """Write a stand-in for a Python of another version."""
    path = folder / name
    path.write_text(f'#!/bin/sh\ncase "$2" in *version_info*) exit {int(not fits)};; *) exit {int(not venv)};; esac\n')
    path.chmod(0o755)
    return str(path)
