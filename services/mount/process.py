"""rclone as a child that serves the mount."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable

from larder.machine import end_with_parent
from larder.progress import Reporter
from larder.rclone import REMOTE, command, environment
from services.mount.place import Place
from services.mount.settings import MountSettings

_END_SECONDS = 3.0
_LAST_WORDS = 3


class Rclone:
    """A running `rclone mount`. Its log goes to the reporter; `on_end` is called when it ends by itself."""

    def __init__(
        self, settings: MountSettings, place: Place, everybody: bool, reporter: Reporter, on_end: Callable[[], None]
    ) -> None:
        self._reporter, self._on_end = reporter, on_end
        self._last: deque[str] = deque(maxlen=_LAST_WORDS)
        self._process = subprocess.Popen(
            command(*_words(settings, place, everybody)), env=environment(settings), cwd=place.folder,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, encoding="utf-8", errors="replace", preexec_fn=end_with_parent,
            start_new_session=True,  # a Ctrl-C is for us, who then unmount in order
        )  # fmt: skip
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def code(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def last_words(self) -> str:
        """What it complained of last, and how it ended."""
        code = self._process.poll()
        how = "" if code is None else f"killed by signal {-code}" if code < 0 else f"ended with {code}"
        return "; ".join(filter(None, [*self._last, how]))

    def end(self, at_once: bool) -> None:
        """Wait until it has ended: by itself since nothing is mounted any more, unless `at_once`; then by signals."""
        remedies = [self._process.terminate, self._process.kill]
        if at_once:
            remedies.pop(0)()
        for remedy in remedies:
            try:
                self._process.wait(_END_SECONDS)
                break
            except subprocess.TimeoutExpired:
                remedy()
        self._process.wait()
        self._reader.join(_END_SECONDS)

    def _follow(self) -> None:
        assert self._process.stderr
        for line in self._process.stderr:
            level, words = _entry(line)
            if words:
                self._last.append(words)
                self._reporter.event("rclone", f"rclone: {words}", level=level)
        self._process.wait()
        self._on_end()


def _words(settings: MountSettings, place: Place, everybody: bool) -> list[str]:
    """rclone's arguments; no secret is among them."""
    return [
        "mount", f"{REMOTE}:{settings.bucket}", str(place.point(settings.bucket)),
        "--read-only", "--umask=0222", *(["--allow-other"] if everybody else []),
        # Else the source is shown with a digest of the configuration, secret keys included.
        f"--devname={REMOTE}:{settings.bucket}",
        f"--vfs-cache-mode={settings.vfs_cache}", f"--vfs-cache-max-size={int(settings.vfs_cache_max)}B",
        f"--cache-dir={place.cache}", f"--dir-cache-time={settings.dir_cache_seconds}s", "--poll-interval=0",
        "--use-server-modtime",  # the listing has it; rclone's own takes a HEAD for each file that is opened
        # Relative to the working directory: a socket's path ends at 107 characters.
        f"--metrics-addr=unix://{place.socket.relative_to(place.folder)}",
        "--use-json-log",
    ]  # fmt: skip


def _entry(line: str) -> tuple[str, str]:
    """Level and words of a line of rclone's log."""
    try:
        entry = json.loads(line)
    except ValueError:  # not from its logger: a crash
        return "error", line.strip()
    about = f"{entry['object']}: " if entry.get("object") else ""
    words = re.sub(r", RequestID: [^,]*, HostID: [^,]*", "", str(entry.get("msg", "")))
    return str(entry.get("level", "")), about + words.strip()
