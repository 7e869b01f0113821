"""The link before the embedded store: larder's proxy as a background process, at the store's address."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

from larder.background import BackgroundProcess, process_arguments
from larder.distant.find import find_link
from larder.distant.link import Link
from larder.distant.process import as_flags
from larder.ports import LOOPBACK, require_free
from larder.progress import Reporter

FOLDER = "link"
"""Folder in the store's, with the process's log and id."""
PORT_ADVICE = "set another port in S3_ENDPOINT_URL (if it was generated, it is in s3-host.env beside the store)"
_PORT = "--port="
_SECONDS = 30


class StoreLink(NamedTuple):
    """The link before a store."""

    process: BackgroundProcess

    @classmethod
    def of(cls, home: Path) -> StoreLink:
        """Return the link of the store in a folder."""
        folder = home / FOLDER
        return cls(BackgroundProcess("the link", folder, {f"--counters={folder / 'counters'}"}))

    @property
    def exists(self) -> bool:
        """Whether it was started and not ended; it may have crashed."""
        return self.process.pid_file.exists()

    @property
    def port(self) -> int:
        """Port of the address that it serves; 0 if it doesn't run."""
        return next((int(word.removeprefix(_PORT)) for word in self._arguments() if word.startswith(_PORT)), 0)

    def ensure(self, link: Link, port: int, store_port: int, reporter: Reporter) -> None:
        """Start the link, unless it runs as it should.

        Args:
            link: What it adds.
            port: Port of its own address.
            store_port: Port of the store.
            reporter: Receives progress.

        Raises:
            ResourceError: If the port is taken.
            ServiceError: If the process doesn't start.
        """
        command = self._command(link, port, store_port)
        if self._arguments()[1:] == command[1:]:
            return
        self.end(reporter)
        require_free(port, PORT_ADVICE)
        self.process.home.mkdir(mode=0o700, exist_ok=True)
        path = os.pathsep.join(folder for folder in sys.path if folder)
        started = self.process.start(command, {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": path})
        endpoint = f"http://{LOOPBACK}:{port}"
        self.process.wait(started, lambda: "" if find_link(endpoint) else "it doesn't answer", _SECONDS, reporter)

    def end(self, reporter: Reporter) -> None:
        """End the process if it runs. Raises ResourceError if it doesn't end."""
        if self.exists:
            self.process.end(_SECONDS, reporter)

    def _arguments(self) -> list[str]:
        pid = self.process.pid() if self.exists else None
        return [] if pid is None else process_arguments(pid)

    def _command(self, link: Link, port: int, store_port: int) -> list[str]:
        proxy = (sys.executable, "-m", "larder.distant", f"--target=http://{LOOPBACK}:{store_port}", *as_flags(link))
        return [*proxy, f"{_PORT}{port}", f"--counters={self.process.home / 'counters'}", "--stay"]
