"""Verify the objects in the store: by a listing, and by reading them back if the settings ask for it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from larder.batches import batches
from services.load.job import PROBE, LoadJob, with_progress
from services.load.local_files import LocalFiles
from services.load.state import Expected, Trust

_OBJECTS_PER_BATCH = 1000


class Verifier:
    """Verify objects, and know what proves that one is right."""

    def __init__(self, job: LoadJob, files: LocalFiles) -> None:
        self._job, self._files = job, files
        self.trust: Trust = "sent" if job.settings.verify_remote == "list" else "etag"
        self.probed = False
        """Whether the store has been probed; the probe is deleted at the end."""

    @property
    def trust_incoming(self) -> Trust:
        """How to check incoming objects. Only this dataset uses their folder: without ETags, the size suffices."""
        return "etag" if self.trust == "etag" else "size"

    @property
    def method(self) -> str:
        """How objects are verified, for messages."""
        if self._job.settings.verify_remote == "read":
            return "size and content"
        return "size and checksum" if self.trust == "etag" else "size"

    def count_mismatched(self, *, blind: bool = False) -> int:
        """List the objects, and return how many are missing or different.

        If some are, first probe the store: for write access, and for whether its ETags are checksums.

        Args:
            blind: Ignore the objects in the store, so that every file is uploaded again.
        """
        self.list_objects(blind=blind)
        mismatched = self._job.state.count_mismatched(self.trust)[0]
        if mismatched and not self.probed:
            self._probe()
            mismatched = self._job.state.count_mismatched(self.trust)[0]
        if not mismatched and self._job.settings.verify_remote == "read":
            mismatched = self.read_back(self._job.state.expected(), self._job.source.bytes)
        return mismatched

    def list_objects(self, *, blind: bool = False) -> None:
        """List the objects in the store, and hash the files whose objects may be right; see `count_mismatched`."""
        state = self._job.state
        with self._job.reporter.task("listing", None, "objects") as task:
            state.replace_listing(() if blind else with_progress(self._job.remote.list(), task.advance))
        if blind:
            state.forget_uploads()
        if self.trust == "etag":
            self._files.hash(state.unhashed())
            self._files.hash(state.unhashed(self._job.incoming))

    def list_incoming(self) -> None:
        """List the objects in the incoming folder."""
        incoming = self._job.incoming
        self._job.state.replace_listing(self._job.remote.list(incoming.rstrip("/")), incoming)

    def _probe(self) -> None:
        """Write a small object to check write access, and whether the store's ETags are MD5 digests."""
        self.probed = True
        data = secrets.token_bytes(16)
        etag = self._job.remote.write(PROBE, data)
        if self.trust == "etag" and etag != hashlib.md5(data, usedforsecurity=False).hexdigest():
            self.trust = "sent"
            self._job.reporter.event(
                "no_checksums",
                "this store gives no checksums (its ETags aren't MD5 digests, as with KMS encryption): "
                "objects are verified by size; LARDER_VERIFY_REMOTE=read fetches and hashes them",
            )

    def read_back(self, files: Iterator[Expected], size: int) -> int:
        """Download and hash objects of `size` bytes in total, and return the number that differ."""
        mismatched = 0
        with (
            self._job.reporter.task("reading back", size, "B") as task,
            ThreadPoolExecutor(self._job.settings.transfers) as pool,
        ):
            for batch in batches(files, _OBJECTS_PER_BATCH):
                contents = pool.map(
                    self._job.remote.digest, [file.path for file in batch], [file.bytes for file in batch]
                )
                for file, content in zip(batch, contents, strict=True):
                    task.advance(file.bytes)
                    if content != (file.bytes, file.sha256):
                        self._job.state.invalidate(file.path)
                        mismatched += 1
        return mismatched
