"""A run killed at any moment leaves the old or the new data, and the next one completes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from larder.stage import main
from services.extract.extract import extract
from services.extract.settings import ExtractSettings
from tests.integration.conftest import Kill, Stage
from tests.integration.extract.conftest import Faults, Raw, WriteArchive

OTHER = {f"Food-11/training/{number}.jpg": os.urandom(2000) for number in range(300)}


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("kinds", "workers", "times"),
    [
        (("zip", "tar"), 1, 8),
        (("tar.gz", "folder"), 2, 6),
        (("nested.zip", "tar.xz"), 2, 4),
        pytest.param(("sample", "http"), 2, 6, marks=pytest.mark.exhaustive),
    ],
)
def test_killed_at_random(
    stage: Stage,
    raw: Raw,
    pack: WriteArchive,
    files: dict[str, bytes],
    server: Faults,
    tmp_path: Path,
    volume: Path,
    kill_at_random: Kill,
    kinds: tuple[str, ...],
    workers: int,
    times: int,
) -> None:
    """The two sources take turns, so that every run replaces what the other left."""
    sources = []
    for kind in kinds:
        if kind == "sample":
            sources.append("sample")
        elif kind == "folder":
            for name, content in files.items():
                (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "folder" / name).write_bytes(content)
            sources.append(str(tmp_path / "folder"))
        elif kind == "http":
            server.content = pack("http.zip", OTHER).read_bytes()
            sources.append(server.url())
        else:
            sources.append(str(pack(f"{len(sources)}.{kind}", OTHER if not sources else None)))
    env = {"LARDER_WORKERS": str(workers), "LARDER_SAMPLE_IMAGES": "40"}

    undisturbed, slowest = [], 0.0
    for source in sources:
        result = stage("extract", f"--source={source}", env=env)
        assert result.code == 0, result.stderr
        slowest = max(slowest, result.seconds)
        undisturbed.append((raw.meta("manifest.json"), raw.meta("index.jsonl"), raw.content()))

    def check(number: int, complete: bool) -> None:
        state = (raw.meta("manifest.json"), raw.meta("index.jsonl"), raw.content())
        assert state in ([undisturbed[number % 2]] if complete else undisturbed)
        if complete:
            left = [path.name for path in (volume / ".larder").rglob("*") if path.is_file()]
            assert left == ["lock"], "something was left behind"

    kill_at_random("extract", lambda number: [f"--source={sources[number % 2]}"], times, slowest, check, env=env)


def killed_at(step: int, argv: list[str]) -> bool:
    """Run the stage in a fork that kills itself before its `step`-th change of a file. Return whether it got there."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
                return
            if event in WATCHED:
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        sys.addaudithook(count)
        os._exit(main("extract", ExtractSettings, extract, "", argv))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


WATCHED = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "shutil.rmtree", "ctypes.dlsym"}
KEPT = {"training/old.jpg": b"old"}
NEW = {f"Food-11/training/{number}.jpg": b"%d" % number for number in range(3)}


@pytest.mark.parametrize("kind", ["zip", pytest.param("tar.gz", marks=pytest.mark.exhaustive)])
def test_killed_at_every_step(
    raw: Raw, pack: WriteArchive, volume: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Replace old data by an archive with one top folder, and kill before every change of the file system."""
    monkeypatch.setenv("LARDER_WORKERS", "1")
    monkeypatch.setenv("LARDER_VOLUME_DIR", str(volume))
    run: Callable[[str], int] = lambda source: main(  # noqa: E731
        "extract", ExtractSettings, extract, "", [f"--source={source}"]
    )
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    old, new = pack("old.zip", KEPT), pack(f"new.{kind}", NEW)
    complete = {name.removeprefix("Food-11/"): content for name, content in NEW.items()}
    assert run(str(new)) == 0
    undisturbed = raw.meta("manifest.json"), raw.meta("index.jsonl")
    step, killed = 0, True
    while killed:
        assert run(str(old)) == 0
        killed = killed_at(step, [f"--source={new}"])
        assert raw.content() in ((KEPT, complete) if killed else (complete,))
        assert run(str(new)) == 0
        assert (raw.meta("manifest.json"), raw.meta("index.jsonl")) == undisturbed
        assert raw.content() == complete
        left = [path.name for path in (volume / ".larder").rglob("*") if path.is_file()]
        assert left == ["lock"], "something was left behind"
        step += 1
    assert step > 20
