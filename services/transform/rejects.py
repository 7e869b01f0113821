"""Write the rejected files and the reasons to `rejects/` on the volume."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path, PurePosixPath

from larder.contract import read_run
from larder.errors import RejectedSamplesError, StorageError
from larder.ledger import Ledger
from larder.next_step import StageRun
from larder.progress import Reporter
from larder.tree.recipes import RejectError
from larder.volume import StagedArtifact, remove_tree, swap_in
from services.transform.samples import link_file

REJECTS = "rejects"
"""Folder of the rejected files on the volume."""
_SHOWN_REJECTS = 20


def write_rejects(raw: Path, target: StagedArtifact, ledger: Ledger, max_rejects: int, reporter: Reporter) -> int:
    """Write rejected files and a list of reasons to `rejects/`, and return their number.

    Raises RejectedSamplesError if there are more than the limit.
    """
    folder, rejects_folder, count = target.work / REJECTS, target.root / REJECTS, ledger.reject_count()
    if folder.exists():
        remove_tree(folder)
    if count == 0:
        return 0
    folder.mkdir()
    with (folder / "rejects.jsonl").open("w", encoding="utf-8") as file:
        for number, (path, reason) in enumerate(ledger.rejects()):
            file.write(json.dumps({"path": path, "reason": reason}, ensure_ascii=False) + "\n")
            if _is_inside(raw, path):
                with suppress(RejectError):  # two paths for one file: keep the first
                    link_file(str(raw / path), str(folder / "files" / path))
            if number < _SHOWN_REJECTS:
                reporter.event("reject", f"rejected {path!r}: {reason}", path=path, reason=reason)
    if count > _SHOWN_REJECTS:
        reporter.event("reject", f"and {count - _SHOWN_REJECTS:,} more: see {rejects_folder}/rejects.jsonl")
    swap_in(folder, rejects_folder)
    if count > max_rejects and len(ledger) == 0:
        raise RejectedSamplesError(
            f"not one file of the source is a sample, and {count:,} are rejected, for the reasons in "
            f"{rejects_folder}/rejects.jsonl on the data volume",
            next_step="check LARDER_SOURCE, or choose another recipe with LARDER_RECIPE (auto finds the one that fits)",
        )
    if count > max_rejects:
        raise RejectedSamplesError(
            f"rejected samples: {count:,}, and LARDER_MAX_REJECTS allows {max_rejects:,}; "
            f"all are listed in {rejects_folder}/rejects.jsonl on the data volume, with the files beside it",
            next_step=f"fix the source, then run {StageRun('extract')} again; or leave them out with "
            f"LARDER_MAX_REJECTS={count}",
        )
    return count


def drop_stale_rejects(target: StagedArtifact) -> None:
    """Remove the rejects of an earlier tree if the current one has none."""
    rejects_folder = target.root / REJECTS
    if rejects_folder.exists() and read_run(target.folder).get("rejects") == 0:
        with suppress(StorageError, OSError), target.lock():  # in use or read-only: try again in a later run
            remove_tree(rejects_folder)


def _is_inside(folder: Path, path: str) -> bool:
    """Return whether `path` is a file below `folder`. Tables may name any path, even outside."""
    relative = PurePosixPath(path)
    return not relative.is_absolute() and ".." not in relative.parts and os.path.isfile(folder / relative)
