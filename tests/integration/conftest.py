"""What all integration tests share: stages as real processes, volumes, and a real S3 server."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from tests import forks
from tests.conftest import Store

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 300.0
Process = forks.Fork | subprocess.Popen[str]


class Result(NamedTuple):
    """How a stage ended."""

    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of stderr as JSON; for runs with LARDER_LOG=json."""
        return [json.loads(line) for line in self.stderr.splitlines()]


class Stage:
    """Runs `python -m services.<name>`, without the caller's environment.

    A stage is forked from a process that has already imported it (tests/forks.py). With a `prefix`, a PYTHONPATH or
    `fresh=True`, and for a module inside a stage, a new interpreter is started. Stages have one worker unless a test
    sets LARDER_WORKERS, since starting workers takes longer than the work of most tests.
    """

    def __init__(self, volume: Path) -> None:
        self.volume = volume

    def start(
        self,
        name: str,
        *flags: str,
        env: Mapping[str, str] | None = None,
        volume: Path | None = None,
        prefix: Sequence[str] = (),
        fresh: bool = False,
        start_new_session: bool = False,
    ) -> Process:
        """Start a stage. `prefix` is a command that starts it elsewhere, such as nsenter."""
        kept = ("PATH", "HOME", *(["AWS_REGION"] if "LARDER_TEST_S3" in os.environ else []))
        clean = {key: os.environ[key] for key in kept if key in os.environ}
        clean |= {
            "LANG": "C.UTF-8",
            "LARDER_FRONT_DOOR": "make",
            "LARDER_VOLUME_DIR": str(volume or self.volume),
            "LARDER_WORKERS": "1",
            "LARDER_WORKERS_AFTER": "0",  # a test with workers has little for them to do
        } | dict(env or {})
        if not (prefix or fresh or "PYTHONPATH" in clean or "." in name):
            return forks.start(name, flags, clean, new_session=start_new_session)
        return subprocess.Popen(
            [*prefix, sys.executable, "-m", f"services.{name}", *flags],
            cwd=ROOT,
            env=clean,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=start_new_session,
        )

    def __call__(self, name: str, *flags: str, **options: Any) -> Result:
        """Run a stage to its end."""
        begin = time.monotonic()
        process = self.start(name, *flags, **options)
        try:
            stdout, stderr = process.communicate(timeout=LIMIT_SECONDS)
        finally:
            process.kill()
            process.wait()
        assert process.returncode is not None
        return Result(process.returncode, stdout, stderr, time.monotonic() - begin)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """An empty data volume."""
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture
def stage(volume: Path) -> Stage:
    """Runs stages on `volume`: `stage("extract", "--source=sample")`."""
    return Stage(volume)


MakePicture = Callable[[int], bytes]


@pytest.fixture(scope="session")
def picture() -> MakePicture:
    """A small JPEG; each number gives different bytes."""
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((32, 24)).convert("RGB").save(stream, "JPEG")
    jpeg = stream.getvalue()

    def picture(number: int) -> bytes:
        comment = f"number {number}".encode()
        return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + jpeg[2:]

    return picture


Held = Callable[[Path], AbstractContextManager[None]]


@pytest.fixture(scope="session")
def held() -> Held:
    """Blocks all readers of a file: `with held(path)` replaces it by a named pipe."""

    @contextmanager
    def held(path: Path) -> Iterator[None]:
        kept = path.with_name(f"{path.name}.kept")
        path.rename(kept)
        os.mkfifo(path)
        try:
            yield
        finally:
            with suppress(OSError):  # if the test has failed, a reader may still wait: it reads nothing, and ends
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            kept.replace(path)

    return held


Kill = Callable[..., None]


@pytest.fixture
def kill_at_random(stage: Stage) -> Kill:
    """Kills a stage `times` times at random moments, and runs it to completion after each.

    `name` and `flags` are the stage's; `flags` may be a function of the round's number. `check` is called after each
    kill and after each completion, with the round's number and whether the run is complete. `seconds` is how long
    an undisturbed run takes: the moments are uniform over it.
    """

    def kill(
        name: str,
        flags: Callable[[int], Sequence[str]],
        times: int,
        seconds: float,
        check: Callable[[int, bool], None],
        seed: int = 0,
        **options: Any,
    ) -> None:
        moments = random.Random(seed)
        for number in range(times):
            process = stage.start(name, *flags(number), **options)
            try:
                process.wait(moments.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
            process.communicate(timeout=LIMIT_SECONDS)
            check(number, False)
            result = stage(name, *flags(number), **options)
            assert result.code == 0, result.stderr
            check(number, True)

    return kill


@pytest.fixture(scope="session")
def mounts() -> None:
    """Require what small disks need: root or user namespaces, which some systems deny to ordinary users."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    command = ["unshare", "--mount", *user, "mount", "-t", "tmpfs", "larder", "/mnt"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        why = f"no file system can be mounted here ({tried.stderr.strip()}); tests/containers fills a disk, too"
        pytest.fail(why) if os.environ.get("REQUIRE") == "all" else pytest.skip(why)


class Disk:
    """A small file system in its own mount namespace, so that nothing stays mounted."""

    def __init__(self, folder: Path, size: str) -> None:
        user = [] if os.geteuid() == 0 else ["-U"]
        self._holder = subprocess.Popen(
            [
                "unshare",
                "-m",
                *(["-r", *user] if user else []),
                "sh",
                "-c",
                'mount -t tmpfs -o "size=$1" larder "$2" && mkdir "$2/volume" && echo ready && read -r _',
                "sh",
                size,
                str(folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n", "no file system could be mounted"
        self._folder = folder
        self.prefix = [
            "nsenter",
            "-m",
            *user,
            *(["--preserve-credentials"] if user else []),
            "-t",
            str(self._holder.pid),
            "--wd=" + os.getcwd(),
        ]
        self.volume = folder / "volume"
        """As the stage sees it."""
        self.seen = Path(f"/proc/{self._holder.pid}/root{folder}/volume")
        """As the test sees it."""

    def remount(self, options: str) -> None:
        """Change the mount: "ro", "size=50m"."""
        command = [*self.prefix, "mount", "-o", f"remount,{options}", str(self._folder)]
        subprocess.run(command, check=True)

    def close(self) -> None:
        """Unmount the file system."""
        self._holder.communicate("\n")


@pytest.fixture
def disk(mounts: None, tmp_path: Path) -> Iterator[Disk]:
    """A disk of 3 MB with a volume on it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = Disk(folder, "3m")
    yield mounted
    mounted.close()


ReadObjects = Callable[[str], dict[str, bytes]]


@pytest.fixture
def objects(store: Store, bucket: str) -> ReadObjects:
    """The objects below a folder of the bucket: path and content, without run.json."""

    def objects(folder: str) -> dict[str, bytes]:
        contents = {}
        for item in store.client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/").get("Contents", ()):
            path = item["Key"].removeprefix(f"{folder}/")
            if not path.endswith("run.json"):
                contents[path] = store.client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        return contents

    return objects
