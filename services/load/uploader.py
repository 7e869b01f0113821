"""Copy files to the store, and within it, with rclone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing

from larder import rclone
from larder.batches import batches
from larder.errors import LarderError
from larder.progress import format_amount
from larder.s3_faults import is_final
from services.load.job import LoadJob
from services.load.local_files import LocalFiles
from services.load.state import Expected, SyncState, Trust
from services.load.verifier import Verifier

BATCH_FILES = 10_000
"""Files per rclone process: its memory grows with their number."""
_FILES_PER_RECORD = 100


class Uploader:
    """Copy files, and count those that were uploaded."""

    def __init__(self, job: LoadJob, files: LocalFiles, verifier: Verifier) -> None:
        self._job, self._files, self._verifier = job, files, verifier
        self.files = self.bytes = 0
        """Files uploaded into place, and their bytes."""

    def upload(self, below: str, trust: Trust, *, replacing: bool | None = None) -> rclone.CopyFailure | None:
        """Upload the files whose object in the folder `below` of the store is missing or different.

        Args:
            below: Subfolder of the artifact's folder, with a final slash, or "".
            trust: What proves that an object is right.
            replacing: Whether to upload only files that replace an object of the current manifest (True), or only
                others (False).

        Returns:
            The first failure, or None if all were uploaded.

        Raises:
            InputError: If a file has changed.
            ConfigurationError, ServiceError: If the store refuses the upload.
        """
        number, size = self._job.state.count_mismatched(trust, below, replacing=replacing)
        files = self._job.state.mismatched(trust, below, replacing=replacing)
        with self._job.reporter.task(f"uploading {format_amount(number, 'files')}", size, "B") as task:
            return self._copy(str(self._job.data), below, files, task.advance)

    def copy_incoming(self) -> tuple[bool, rclone.CopyFailure | None]:
        """Let the store copy verified uploads into place.

        Returns:
            Whether there were any, and the first failure.
        """
        incoming = self._job.incoming
        files = self._job.state.verified_incoming(self._verifier.trust, incoming)
        first = next(files, None)
        if first is None:
            return False, None
        with self._job.reporter.task("copying into place", None, "B") as task:
            return True, self._copy(self._rclone_path(incoming), "", itertools.chain([first], files), task.advance)

    def explain(self, failure: rclone.CopyFailure) -> LarderError:
        """Return the error for a failure."""
        return rclone.explain_failure(
            failure, f"uploading to {self._job.remote.uri}", self._job.settings.s3_endpoint_url
        )

    def _copy(
        self, origin: str, below: str, files: Iterator[Expected], advance: Callable[[int], None]
    ) -> rclone.CopyFailure | None:
        """Copy files in batches from `origin` to the folder `below` in the store, and return the first failure.

        LitData's index.json files come last: readers open them to find the chunks. After a failure the next attempt
        copies them.
        """
        index_files: list[Expected] = []

        def without_index_files() -> Iterator[Expected]:
            for file in files:
                if self._job.source.artifact == "litdata" and file.path.endswith("/index.json"):
                    index_files.append(file)
                else:
                    yield file

        first = None
        for batch in batches(without_index_files(), BATCH_FILES):
            failure = self._copy_batch(origin, below, batch, advance)
            first = first or failure
        if index_files and first is None:
            first = self._copy_batch(origin, below, index_files, advance)
        return first

    def _copy_batch(
        self, origin: str, below: str, files: list[Expected], advance: Callable[[int], None]
    ) -> rclone.CopyFailure | None:
        settings, state = self._job.settings, self._job.state
        limits = rclone.CopyLimits(settings.transfers, settings.bandwidth, settings.stall_seconds)
        # The ETag verifies the content afterwards, so rclone need not hash it during the upload.
        by_etag = self._verifier.trust == "etag"
        flags = ("--s3-disable-checksum", "--s3-use-unsigned-payload=true") if by_etag else ()
        sizes = {file.path: file.bytes for file in files}
        uploads = _UploadTracker(state, sizes, counts=not below)
        unread = [file for file in files if not state.is_hashed(file.path)]
        with self._files.hashing(unread), uploads:
            events = rclone.copy(settings, origin, self._rclone_path(below), sizes, limits, *flags)
            failure = _consume_events(events, advance, uploads)
        self.files += uploads.files
        self.bytes += uploads.bytes
        if failure is not None:
            self._report(failure, len(files) - len(uploads.copied))
        return failure

    def _report(self, failure: rclone.CopyFailure, left: int) -> None:
        """Report why `left` files failed to upload. Raise the error if a retry can't help."""
        if is_final(failure.code):
            raise self.explain(failure)
        self._job.reporter.event(
            "broke_off", f"uploading {format_amount(left, 'files')} failed: {failure.message}", files=left
        )

    def _rclone_path(self, below: str) -> str:
        """Return the rclone path of a folder in the store."""
        return f"{rclone.REMOTE}:{self._job.remote.bucket}/{self._job.remote.key}/{below}"


def _consume_events(
    events: Generator[rclone.CopyEvent, None, None], advance: Callable[[int], None], uploads: _UploadTracker
) -> rclone.CopyFailure | None:
    """Report a copy's progress. Return the first failure, or the first that makes further attempts useless."""
    first = None
    with closing(events):
        for event in events:
            match event:
                case rclone.BytesCopied():
                    advance(event.bytes)
                case rclone.FileCopied():
                    uploads.add(event.name)
                case rclone.CopyFailure():
                    if is_final(event.code):
                        return event
                    first = first or event
    return first


class _UploadTracker:
    """Records uploaded files in the state in small batches, so that a killed run loses little."""

    def __init__(self, state: SyncState, sizes: Mapping[str, int], *, counts: bool) -> None:
        self._state, self._sizes, self._counts = state, sizes, counts
        self._new: list[str] = []
        self.copied: set[str] = set()
        self.files = self.bytes = 0

    def add(self, path: str) -> None:
        """Record one file."""
        self.copied.add(path)
        if self._counts and path in self._sizes:
            self.files, self.bytes = self.files + 1, self.bytes + self._sizes[path]
            self._new.append(path)
        if len(self._new) >= _FILES_PER_RECORD:
            self._record_new()

    def _record_new(self) -> None:
        self._state.record_uploads(self._new)
        self._new.clear()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._record_new()
