"""A GPU's driver that needs a reboot: only a new server is rebooted, and once."""

from __future__ import annotations

from typing import Any

import pytest

from larder.errors import InputError, ServiceError
from larder.progress import Reporter
from provision import clouds, gpu
from provision.gpu import RebootNeededError, set_up_gpu
from provision.ssh import Completed

NEEDED = Completed(4, "", "error: the driver works only after a reboot\n  next step: sudo reboot\n")
DONE = Completed(0, "found the driver\n", "")


class Server:
    """Answers SSH as a server with a GPU would; unreachable a few times after a reboot."""

    def __init__(self, *scripts: Completed) -> None:
        self.scripts = list(scripts)
        self.commands: list[str] = []
        self.boot = 1
        self.down = 0

    def run(self, argv: list[str], **options: Any) -> Completed:
        self.commands.append(argv[0])
        if argv[0] == "systemctl":
            self.boot, self.down = self.boot + 1, 3
            return DONE
        if argv[0] == "bash":
            return self.scripts.pop(0)
        self.down -= 1
        if self.down > 0:
            raise ServiceError("no answer", next_step="")
        return Completed(0, f"{self.boot}\n", "")

    @property
    def address(self) -> Any:
        return self

    host = "server"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clouds, "POLL_SECONDS", 0.001)


def set_up(server: Any, may_reboot: bool) -> None:
    set_up_gpu(server, Reporter("lab"), may_reboot, 60)


def test_a_new_server_is_rebooted_once() -> None:
    server = Server(NEEDED, DONE)
    set_up(server, may_reboot=True)
    assert server.commands.count("systemctl") == 1 and server.commands.count("bash") == 2


def test_a_server_in_use_is_not_rebooted() -> None:
    server = Server(NEEDED)
    with pytest.raises(RebootNeededError, match="only after a reboot") as told:
        set_up(server, may_reboot=False)
    assert told.value.exit_code == 3 and "sudo reboot" in told.value.next_step
    assert "systemctl" not in server.commands


def test_nothing_is_rebooted_twice() -> None:
    server = Server(NEEDED, NEEDED)
    with pytest.raises(RebootNeededError):
        set_up(server, may_reboot=True)
    assert server.commands.count("systemctl") == 1


def test_a_driver_that_does_not_work_is_the_server_s_fault() -> None:
    broken = Completed(3, "", "error: the driver doesn't work\n  next step: dmesg\n")
    with pytest.raises(InputError, match="the driver doesn't work"):
        set_up(Server(broken), may_reboot=True)


def test_a_server_that_does_not_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(NEEDED)
    monkeypatch.setattr(gpu, "_boot_id", lambda ssh: "1")
    with pytest.raises(ServiceError, match="answers after the reboot: not after 0 s") as told:
        set_up_gpu(server, Reporter("lab"), True, 0.01)  # type: ignore[arg-type]
    assert "console" in told.value.next_step
