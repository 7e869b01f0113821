"""Upload and replace objects until the store holds every file."""

from __future__ import annotations

import time
from enum import Enum

from larder.contract import MANIFEST, Manifest
from larder.errors import LarderError, ServiceError
from larder.progress import format_amount
from larder.rclone import CopyFailure
from services.load.commit import refuse_folder_of_others
from services.load.compare import Current
from services.load.job import LoadJob
from services.load.uploader import Uploader
from services.load.verifier import Verifier

TRIES = 3
"""Give up after this many uploads in a row without progress."""
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 30.0


class Phase(Enum):
    """What to do about missing and different objects. It depends on what readers may be using."""

    REPLACE = "there is a manifest: upload new objects, then replace the others at once, without a manifest"
    WITHDRAW = "there is a manifest that readers can't use: delete it, since its objects are about to change"
    PLACE = "there is no manifest: copy into place what an earlier run has uploaded, if it was stopped while replacing"
    UPLOAD = "there is no manifest, and nothing to copy: upload into place"


class Sync:
    """Go through the phases, with a comparison after each, until the store holds every file."""

    def __init__(self, job: LoadJob, verifier: Verifier, uploader: Uploader) -> None:
        self._job, self._verifier, self._uploader = job, verifier, uploader

    def run(self, current: Current) -> Manifest | None:
        """Upload what is missing or different, and compare again, until no object is.

        Args:
            current: The dataset in the store.

        Returns:
            The manifest in the store now: None if objects had to be replaced.

        Raises:
            InputError: If the folder holds objects of others, and no load has written to it before.
            LarderError: If uploads stop making progress.
        """
        phase = _first_phase(current)
        mismatched = self._verifier.count_mismatched(blind=self._job.settings.force)
        if phase is Phase.PLACE and not self._job.settings.force:
            refuse_folder_of_others(self._job)
        retries = _Retries(self._job, self._uploader, self._verifier, mismatched)
        while mismatched:
            phase, failure = self._run_phase(phase)
            mismatched = self._verifier.count_mismatched()
            if mismatched:
                retries.begin(mismatched, failure)
        return current.manifest if phase is Phase.REPLACE else None

    def _run_phase(self, phase: Phase) -> tuple[Phase, CopyFailure | None]:
        """Run a phase. Return the next one, which is the same one if it isn't finished, and the first failure."""
        if phase is Phase.REPLACE:
            return self._replace()
        if phase is Phase.WITHDRAW:
            self._job.remote.delete([MANIFEST])
            phase = Phase.PLACE
        if phase is Phase.PLACE:
            copied, failure = self._uploader.copy_incoming()
            if copied:
                return Phase.UPLOAD, failure
        return Phase.UPLOAD, self._uploader.upload("", self._verifier.trust)

    def _replace(self) -> tuple[Phase, CopyFailure | None]:
        """Upload new objects, then replacements beside the old ones; verify these, then copy them into place.

        Nothing is replaced before the uploads are verified. From then until the new manifest is written, the store has
        none. If a copy is still wrong afterwards, as with multipart uploads on some stores, the file is uploaded
        directly instead.
        """
        state, verifier = self._job.state, self._verifier
        failure = self._uploader.upload("", verifier.trust, replacing=False)
        if failure is not None or not state.count_mismatched(verifier.trust, replacing=True)[0]:
            return Phase.REPLACE, failure
        verifier.list_incoming()
        failure = self._uploader.upload(self._job.incoming, verifier.trust_incoming, replacing=True)
        verifier.list_incoming()
        if state.count_mismatched(verifier.trust_incoming, self._job.incoming, replacing=True)[0]:
            return Phase.REPLACE, failure  # the next pass uploads them again
        self._job.reporter.event(
            "replace", "replacing objects that have changed: there is no manifest until that is done"
        )
        self._job.remote.delete([MANIFEST])
        _, copy_failure = self._uploader.copy_incoming()
        return Phase.UPLOAD, failure or copy_failure


def _first_phase(current: Current) -> Phase:
    if current.manifest is not None:
        return Phase.REPLACE
    return Phase.WITHDRAW if current.damaged else Phase.PLACE


class _Retries:
    """Count the attempts in a row that have made no progress."""

    def __init__(self, job: LoadJob, uploader: Uploader, verifier: Verifier, mismatched: int) -> None:
        self._job, self._uploader, self._verifier = job, uploader, verifier
        self._fewest, self._stalled_attempts = mismatched, 0

    def begin(self, mismatched: int, failure: CopyFailure | None) -> None:
        """Report a retry and its reason, and pause if the store failed.

        Args:
            mismatched: Number of objects that are missing or different.
            failure: The first failure of the last attempt.

        Raises:
            LarderError: If `TRIES` attempts in a row have made no progress.
        """
        self._stalled_attempts = 0 if mismatched < self._fewest else self._stalled_attempts + 1
        self._fewest = min(mismatched, self._fewest)
        if self._stalled_attempts == TRIES:
            raise self._no_progress_error(mismatched, failure)
        why = failure.message if failure else "they are missing or different in the store"
        self._job.reporter.event(
            "retry",
            f"sending {format_amount(mismatched, 'files')} again: {why}",
            files=mismatched,
            tries=self._stalled_attempts,
        )
        if failure:
            time.sleep(min(_FIRST_PAUSE_SECONDS * 2**self._stalled_attempts, _MAX_PAUSE_SECONDS))

    def _no_progress_error(self, mismatched: int, failure: CopyFailure | None) -> LarderError:
        if failure is not None:
            return self._uploader.explain(failure)
        example = next(self._job.state.mismatched(self._verifier.trust), None)
        return ServiceError(
            f"{self._job.remote.uri}: still missing or different after {TRIES} uploads in a row: "
            f"{format_amount(mismatched, 'objects')}" + (f", such as {example.path}" if example else ""),
            next_step="check whether something else writes to the bucket, or the store can't hold such a name; then "
            "run the same command again: it resumes",
        )
