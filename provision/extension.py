"""The extension of a lease, which is completed by the next run if one is killed, and not done twice.

`lease extend 2` means two hours from the present end. After a killed run, that end may be the old one or the new one,
so the state folder has both until the result is printed.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "extension.json"


@dataclass(frozen=True)
class Extension:
    """The move of a lease's end, with both ends as Blazar writes them."""

    lease_id: str
    hours: float
    old_end: str
    new_end: str

    def write(self, folder: Path) -> None:
        """Record that this is being done."""
        folder.mkdir(parents=True, exist_ok=True)
        new = folder / f"{FILE}.new"
        new.write_text(json.dumps(asdict(self)))
        os.replace(new, folder / FILE)

    def continues(self, unfinished: Extension | None) -> bool:
        """Return whether this repeats an unfinished one, so that the lease has either of its ends."""
        return (
            unfinished is not None
            and (self.lease_id, self.hours) == (unfinished.lease_id, unfinished.hours)
            and self.old_end in (unfinished.old_end, unfinished.new_end)
        )


def read(folder: Path) -> Extension | None:
    """Return the extension that an interrupted run left unfinished, or None."""
    try:
        noted = json.loads((folder / FILE).read_text())
        return Extension(str(noted["lease_id"]), float(noted["hours"]), str(noted["old_end"]), str(noted["new_end"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove(folder: Path) -> None:
    """Forget the extension, since it has ended."""
    (folder / FILE).unlink(missing_ok=True)
