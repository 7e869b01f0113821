"""rclone as a child that serves the mount."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext

from larder.background import Child
from larder.progress import Reporter
from larder.rclone import REMOTE, command, environment
from services.mount.confine import Mounter, environment_of
from services.mount.place import Place
from services.mount.settings import MountSettings

_LAST_WORDS = 3


class Rclone(Child):
    """A running `rclone mount`. Its log goes to the reporter; `on_end` is called when it has ended."""

    def __init__(
        self, settings: MountSettings, place: Place, everybody: bool, mounter: Mounter | None, reporter: Reporter,
        on_end: Callable[[], None],
    ) -> None:  # fmt: skip
        """Start it. With a mounter it is that one, and not FUSE's own program, that mounts for it."""
        self._reporter = reporter
        self._last: deque[str] = deque(maxlen=_LAST_WORDS)
        words = command(*_words(settings, place, everybody))
        channel = mounter.channel_of_rclone() if mounter else None
        with channel or nullcontext():
            env = environment(settings) | (environment_of(channel) if channel else {})
            handles = [channel.fileno()] if channel else []
            super().__init__(words, env, place.folder, self._say, on_end, handles)

    def last_words(self) -> str:
        """What it complained of last, and how it ended."""
        code = self.code()
        how = "" if code is None else f"killed by signal {-code}" if code < 0 else f"ended with {code}"
        return "; ".join(filter(None, [*self._last, how]))

    def _say(self, line: str) -> None:
        level, words = _entry(line)
        if words:
            self._last.append(words)
            self._reporter.event("rclone", f"rclone: {words}", level=level)


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
        f"--timeout={settings.stall_seconds}s", f"--contimeout={settings.stall_seconds}s",
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
