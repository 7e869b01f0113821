"""Count files that aren't part of the dataset by reason, and list them beside the tree's manifest."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from larder.progress import Reporter

NAME = "left-out.jsonl"


class LeftOut:
    """Writes `<folder>/left-out.jsonl` with path and reason of each file. Without such files, there is no list."""

    def __init__(self, folder: Path) -> None:
        self.reasons: dict[str, tuple[int, str]] = {}
        """By reason: number of files, and the first one."""
        self._path = folder / NAME
        self._file: IO[str] | None = None

    def add(self, path: str, reason: str) -> None:
        """Record a file. `reasons` keeps every reason in memory, so use only a few."""
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("w", encoding="utf-8")
        self._file.write(json.dumps({"path": path, "reason": reason}, ensure_ascii=False) + "\n")
        count, first = self.reasons.get(reason, (0, path))
        self.reasons[reason] = count + 1, first

    def report(self, reporter: Reporter) -> None:
        """Report how many files were left out, and why."""
        for reason, (files, first) in sorted(self.reasons.items()):
            reporter.event(
                "left_out",
                f"left out: {files:,} file{'s' if files > 1 else ''}, {reason}, such as {first!r}",
                files=files,
                reason=reason,
            )

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)  # from an earlier run
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
