"""Read the files on the volume, and check them against the index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from larder.batches import batches
from larder.errors import REMAKE_TREE, InputError
from larder.fingerprint import Fingerprint, fingerprint
from larder.next_step import with_force
from services.load.job import CREATING_STAGES, LoadJob, find_creating_stage
from services.load.state import Expected

_FILES_PER_BATCH = 10_000


class LocalFiles:
    """The files of the artifact on the volume."""

    def __init__(self, job: LoadJob) -> None:
        self._job = job
        self.hashed = 0
        """Number of files read so far."""

    def hash(self, files: Iterable[Expected]) -> None:
        """Read files, record their ETags, and check them against the index.

        Raises:
            InputError: If a file is missing or has changed.
        """
        for batch in batches(files, _FILES_PER_BATCH):
            with self.hashing(batch):
                pass

    @contextmanager
    def hashing(self, files: Sequence[Expected]) -> Iterator[None]:
        """Hash files while the block runs, and record their ETags at its end; see `hash`."""
        self.hashed += len(files)
        with ThreadPoolExecutor(self._job.settings.workers) as pool:  # reading and hashing release the GIL
            fingerprints = pool.map(self._fingerprint, files)
            try:
                yield
                self._job.state.record_hashes(
                    [(file.path, current) for file, current in zip(files, fingerprints, strict=True)]
                )
            finally:
                pool.shutdown(cancel_futures=True)

    def _fingerprint(self, file: Expected) -> Fingerprint:
        path = self._job.data / file.path
        try:
            current = fingerprint(path)
        except (FileNotFoundError, NotADirectoryError):
            raise self._changed_error(path, "is gone") from None
        if (current.bytes, current.sha256) != (file.bytes, file.sha256):
            raise self._changed_error(path, "has changed")
        return current

    def _changed_error(self, path: Path, how: str) -> InputError:
        stage = find_creating_stage(self._job.settings.folder)
        # Packing again restores a missing file by itself; it doesn't notice other bytes of the same length.
        pack_again = f"run {stage if how == 'is gone' else with_force(stage)}, which creates them again, then run again"
        return InputError(
            f"{path} {how} since its manifest was written",
            next_step=f"{REMAKE_TREE}, then run again" if stage == CREATING_STAGES["tree"] else pack_again,
        )
