"""What every engine guarantees: order, a bounded number of tasks, raised errors. For Ray, also lost nodes."""

from __future__ import annotations

import errno
import itertools
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from larder.engines import Engine
from larder.engines.local import LocalEngine
from larder.engines.ray import RayEngine
from larder.errors import ConfigurationError, InputError, ResourceError, ServiceError
from tests.conftest import Until
from tests.integration.engines import work
from tests.integration.engines.conftest import LOCAL, Cluster, start_cluster


def test_results_come_in_order_and_tasks_are_taken_as_needed(engine: Engine) -> None:
    check_order(engine)


def check_order(engine: Engine) -> None:
    taken = 0

    def tasks() -> Iterator[float]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield number * number

    with engine(math.sqrt, tasks()) as results:
        assert list(itertools.islice(results, 100)) == list(range(100))
    assert taken < 120


@pytest.mark.one_in(3)
@pytest.mark.parametrize("engine", LOCAL, indirect=True)
def test_a_failure_is_raised_as_it_was(engine: Engine) -> None:
    check_failures(engine)


def check_failures(engine: Engine) -> None:
    with engine(math.sqrt, [4.0, -1.0]) as results:
        assert next(results) == 2
        with pytest.raises(ValueError, match=r"math domain|nonnegative"):
            next(results)
    with engine(work.refuse, [3]) as results, pytest.raises(InputError, match="3 is not wanted") as caught:
        next(results)
    assert caught.value.next_step == "give another number"


def test_a_killed_worker_ends_the_local_engine() -> None:
    with pytest.raises(ResourceError, match="killed"), LocalEngine(2, 0)(os._exit, [1, 1]) as results:
        list(results)


def test_little_work_is_done_in_this_process() -> None:
    with LocalEngine(2, 60)(work.who, range(100)) as results:
        assert list(results) == [(number, os.getpid()) for number in range(100)]


def test_workers_take_over_once_they_are_there() -> None:
    with LocalEngine(2, 0.01)(work.who, itertools.count()) as results:
        for expected, (number, pid) in enumerate(results):
            assert number == expected
            if pid != os.getpid():
                break


@pytest.mark.parametrize("fault", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.ENOSYS])
def test_semaphores_that_cannot_be_made_are_named(monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(fault, os.strerror(fault))

    import multiprocessing.synchronize  # noqa: F401  (it looks at what is replaced here)

    monkeypatch.setattr("_multiprocessing.SemLock", refuse)
    with (
        pytest.raises(ResourceError, match=os.strerror(fault)) as caught,
        LocalEngine(2, 0)(work.who, range(9)) as results,
    ):
        list(results)
    assert "/dev/shm" in caught.value.what
    assert "LARDER_WORKERS=1" in caught.value.next_step


def test_an_engine_does_not_wait_for_workers_that_are_still_starting() -> None:
    """The workers' server imports for ten minutes."""
    command = [sys.executable, "-m", "tests.integration.engines.slow_start"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "[0, 1, 2]\n"), ended.stderr


def test_work_on_a_cluster(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test everything that a cluster survives with one driver, since joining takes longer than the work."""
    messages: list[str] = []
    engine = RayEngine(1, cluster.address, lambda _, message: messages.append(message))
    with engine.keep_connected():
        _works_on_the_clusters_cpus_alone(engine, tmp_path)
        assert [message.endswith("has 2 CPUs") for message in messages if not message.startswith("joining")] == [True]
        check_order(engine)
        check_failures(engine)
        _names_code_that_nodes_lack(engine)
        _does_a_killed_workers_task_again(engine, tmp_path)
        monkeypatch.setattr("larder.engines.ray.RETRIES", 1)
        _gives_a_task_up_that_kills_every_worker(engine)


def _works_on_the_clusters_cpus_alone(engine: Engine, folder: Path) -> None:
    with engine(partial(work.whose, folder), range(20)) as results:
        workers = set(results)
    assert len(workers) == 2
    assert os.getpid() not in workers


def _names_code_that_nodes_lack(engine: Engine) -> None:
    with (
        pytest.raises(ConfigurationError, match=r"services\.no_such_stage") as caught,
        engine(work.lack, [1]) as results,
    ):
        list(results)
    assert "LARDER_RAY_STAGE" in caught.value.next_step


def _does_a_killed_workers_task_again(engine: Engine, folder: Path) -> None:
    with engine(partial(work.die_once, folder), range(8)) as results:
        assert list(results) == list(range(8))
    assert (folder / "died").exists()


def _gives_a_task_up_that_kills_every_worker(engine: Engine) -> None:
    with pytest.raises(ResourceError, match="killed 2 times"), engine(work.die, [1]) as results:
        list(results)


@pytest.mark.exhaustive
def test_a_cluster_without_cpus_and_a_node_that_is_lost(until: Until, tmp_path: Path) -> None:
    messages: list[str] = []
    with start_cluster(misses_nodes_soon=True) as cluster:
        engine = RayEngine(1, cluster.address, lambda _, message: messages.append(message), wait_for_cpus_seconds=3)
        with engine.keep_connected():
            _refuses_a_cluster_without_cpus(engine, messages)
            with cluster.node(1) as node, cluster.node(1), engine(partial(work.hold, tmp_path), range(20)) as results:
                sizes: list[int] = []
                driver = threading.Thread(target=lambda: sizes.extend(results))
                driver.start()
                try:
                    until(lambda: len(_pids(tmp_path)) == 2, "both nodes work", 120)
                    node.kill()  # all of it ends with it
                    until(lambda: sum(map(psutil.pid_exists, _pids(tmp_path))) == 1, "one node's task is gone")
                finally:
                    (tmp_path / "go").touch()
                    driver.join(120)
    assert sizes == list(range(20))


def _refuses_a_cluster_without_cpus(engine: RayEngine, messages: list[str]) -> None:
    with pytest.raises(ServiceError, match="no CPUs for 3 s") as caught, engine(math.sqrt, [1.0]) as results:
        list(results)
    assert "add nodes" in caught.value.next_step
    wait = "has no CPUs: waiting up to 3 s for a node"
    assert [message.endswith(wait) for message in messages if not message.startswith("joining")] == [True]


@pytest.mark.timeout(60)  # the time that a head has to answer, which isn't waited for here
def test_nothing_listens() -> None:
    with pytest.raises(ServiceError, match="nothing answers at") as caught, RayEngine(1, "127.0.0.1:9")(math.sqrt, [1]):
        pass
    assert "start the cluster (`ray up`)" in caught.value.next_step


@pytest.mark.exhaustive
def test_what_listens_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head on a busy machine behaves like this."""
    monkeypatch.setattr("larder.engines.ray_cluster._JOIN_SECONDS", 12.0)
    messages: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        engine = RayEngine(1, address, lambda _, message: messages.append(message))
        with pytest.raises(ServiceError, match=r"something answers there|can't be joined"), engine(math.sqrt, [1.0]):
            pass
    assert messages
    assert all(message.startswith(f"joining the Ray cluster at {address}: waiting") for message in messages)


@pytest.mark.exhaustive
def test_killed_drivers_leave_no_process(cluster: Cluster, tmp_path: Path, until: Until) -> None:
    before = set(_ray_nodes(cluster))
    driver = _stage(cluster, tmp_path)
    until(lambda: len(_pids(tmp_path)) >= 2, "the tasks run", 120)
    own = set(_ray_nodes(cluster)) - before
    assert own
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    tasks = _pids(tmp_path)
    until(lambda: not any(map(psutil.pid_exists, tasks)), "the tasks are ended")
    until(lambda: own.isdisjoint(_ray_nodes(cluster)), "the driver's node is gone")


@pytest.mark.exhaustive
def test_interrupted(cluster: Cluster, tmp_path: Path, until: Until) -> None:
    driver = _stage(cluster, tmp_path)
    until(lambda: len(_pids(tmp_path)) >= 2, "the tasks run", 120)
    driver.send_signal(signal.SIGTERM)
    _, stderr = driver.communicate(timeout=60)
    assert driver.returncode == 130, stderr
    assert "run the same command again to resume" in stderr


def _stage(cluster: Cluster, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.integration.engines.work"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"RAY_ADDRESS": cluster.address, "LARDER_TEST_FOLDER": str(folder)},
    )


def _pids(folder: Path) -> list[int]:
    return [int(path.read_text()) for path in folder.iterdir() if path.name.isdigit()]


def _ray_nodes(cluster: Cluster) -> list[int]:
    """The processes of the cluster's nodes; other tests may have clusters of their own."""
    port, found = cluster.address.rpartition(":")[2], []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            places = [word for word in process.cmdline() if word.startswith("--gcs-address=")]
            if "raylet" in process.name() and any(place.endswith(f":{port}") for place in places):
                found.append(process.pid)
    return found


@pytest.mark.parametrize(
    ("reason", "times"), [("The current node timed out during startup. This could happen", 3), ("no space", 1)]
)
def test_ray_that_does_not_start_is_named(monkeypatch: pytest.MonkeyPatch, reason: str, times: int) -> None:
    """No setting makes Ray's own processes fail within a test's time, so a failing call of Ray replaces them."""
    tried = []

    def init(**_: object) -> None:
        tried.append(1)
        raise Exception(f"{reason}\nand more lines")  # as Ray does

    monkeypatch.setattr("ray.init", init)
    with pytest.raises(ServiceError, match=f"don't start on this machine: {reason}") as caught:  # noqa: SIM117
        with RayEngine(1)(math.sqrt, [1.0]):
            pass
    assert "more lines" not in caught.value.what and "LARDER_ENGINE=local" in caught.value.next_step
    assert len(tried) == times


HALF_A_REQUEST = """
import os
import socket
from multiprocessing import forkserver
from larder.engines.pool import start_server

start_server(["json"])
server = forkserver._forkserver
with socket.socket(socket.AF_UNIX) as half:
    half.connect(server._forkserver_address)
os.waitpid(server._forkserver_pid, 0)
"""


def test_a_request_that_breaks_off_ends_the_fork_server_silently() -> None:
    """As when Ctrl-C meets the parent while it asks for a worker."""
    done = subprocess.run(
        [sys.executable, "-c", HALF_A_REQUEST],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
