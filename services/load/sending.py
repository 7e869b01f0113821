"""Make the store hold what is on the volume: send what is missing or different, until all of it is verified."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from larder import rclone
from larder.batches import batches
from larder.bucket import Folder
from larder.contract import MANIFEST, META, Manifest
from larder.dataset import Layout, layout_of
from larder.errors import TREE_ANEW, InputError, LarderError, ServiceError
from larder.fingerprint import Fingerprint, fingerprint
from larder.next_step import MAKES, Run, forced
from larder.progress import Reporter, amount
from larder.s3_faults import is_final
from services.load.settings import LoadSettings
from services.load.state import State, Trust, Wanted

T = TypeVar("T")

MADE_BY: dict[Layout, str] = {
    "tree": MAKES["tree"], "webdataset": str(Run("shard")), "litdata": str(Run("optimize")),
}  # fmt: skip
PROBE = f"{META}/probe"
TRIES = 3
"""How many uploads in a row may fix nothing before load gives up."""
BATCH_FILES = 10_000
"""Files of one rclone process, whose memory grows with them."""
_READ_AT_ONCE = 1000
_NOTED_AT_ONCE = 100
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0


class Sending:
    """What is sent to one place in the store, and how far it is known to be there."""

    def __init__(
        self, settings: LoadSettings, reporter: Reporter, data: Path, source: Manifest, there: Folder, state: State
    ) -> None:
        self.trust: Trust = "sent" if settings.verify_remote == "list" else "etag"
        self.probed = False
        self.files = self.bytes = self.hashed_files = 0
        self._settings, self._reporter = settings, reporter
        self._data, self._source, self._there, self._state = data, source, there, state
        self._incoming = f"{META}/incoming-{source.digest()[:16]}/"
        self._standing: Manifest | None = None
        self._unreliable = self._placed = False
        self._failure: rclone.Failure | None = None

    def until_right(self, standing: Manifest | None, unreliable: bool) -> Manifest | None:
        """Look, send what is missing or different, look again. Raises LarderError when that comes to no end.

        `standing` is the manifest that is in place, `unreliable` says that there is one that no reader can follow.
        Returns the manifest that is in place then, which is none where objects had to be replaced.
        """
        self._standing, self._unreliable = standing, unreliable
        fewest: int | None = None
        idle = 0
        while True:
            self.look(blind=self._settings.force and fewest is None)
            wrong = self._state.count_wrong(self.trust)[0]
            if wrong and not self.probed:
                self._probe()
                wrong = self._state.count_wrong(self.trust)[0]
            if not wrong and self._settings.verify_remote == "read":
                wrong = self.read_back(self._state.wanted(), self._source.bytes)
            if not wrong:
                return self._standing
            if fewest is not None:
                idle = 0 if wrong < fewest else idle + 1
                if idle == TRIES:
                    raise self._given_up(wrong)
                self._say_again(idle, wrong)
            fewest = wrong if fewest is None else min(wrong, fewest)
            self._send()

    def look(self, blind: bool) -> None:
        """List what is there; `blind` is to take it for nothing, so that all is sent again."""
        with self._reporter.task("listing", None, "objects") as task:
            self._state.note_listing(() if blind else counted(self._there.list(), task.advance))
        if blind:
            self._state.trust_nothing()
        if self.trust == "etag":
            self._hash(self._state.unhashed())
            self._hash(self._state.unhashed(self._incoming))

    def _probe(self) -> None:
        """Write a small object: whether we may, and whether the store's ETags are MD5s."""
        self.probed = True
        data = secrets.token_bytes(16)
        etag = self._there.write(PROBE, data)
        if self.trust == "etag" and etag != hashlib.md5(data, usedforsecurity=False).hexdigest():
            self.trust = "sent"
            self._reporter.event(
                "no_checksums", "this store gives no checksums (its ETags are no MD5s, as where it encrypts by KMS): "
                "objects are verified by size; LARDER_VERIFY_REMOTE=read fetches and hashes them",
            )  # fmt: skip

    def read_back(self, files: Iterator[Wanted], size: int) -> int:
        """Fetch and hash these objects, of so many bytes. Returns the number of wrong ones."""
        wrong = 0
        with (
            self._reporter.task("reading back", size, "B") as task,
            ThreadPoolExecutor(self._settings.transfers) as pool,
        ):
            for some in batches(files, _READ_AT_ONCE):
                found = pool.map(self._there.digest, [file.path for file in some], [file.bytes for file in some])
                for file, content in zip(some, found, strict=True):
                    task.advance(file.bytes)
                    if content != (file.bytes, file.sha256):
                        self._state.distrust(file.path)
                        wrong += 1
        return wrong

    def _send(self) -> None:
        """Send what is wrong: first what disturbs nobody, then what replaces objects of the data set in place."""
        self._failure = None
        if self._unreliable:  # what it names is about to change under it
            self._there.delete([MANIFEST])
            self._unreliable = False
        if self._standing is None:
            if self._placed or not self._place_incoming():  # else an earlier run was stopped at just that
                self._upload("", self.trust)
            return
        self._upload("", self.trust, replacing=False)
        if self._failure is None and self._state.count_wrong(self.trust, replacing=True)[0]:
            self._replace()

    def _replace(self) -> None:
        """Send new content for objects that the manifest in place names: beside them, then into their places.

        It is verified before anything is replaced. From then on until the new manifest is put, there is none.
        """
        self._look_at_incoming()
        self._upload(self._incoming, self._trust_incoming, replacing=True)
        self._look_at_incoming()
        if self._state.count_wrong(self._trust_incoming, self._incoming, replacing=True)[0]:
            return  # the next pass sends them again
        self._reporter.event("replace", "replacing objects that have changed: there is no manifest until that is done")
        self._there.delete([MANIFEST])
        self._standing = None
        self._place_incoming()

    def _place_incoming(self) -> bool:
        """Have the store copy into their places what came in and is right. Whether there was anything to copy.

        It is done once: a copy that is not right, as stores make of what came in parts, is uploaded instead.
        """
        self._placed = True
        files = self._state.ready(self.trust, self._incoming)
        first = next(files, None)
        if first is None:
            return False
        with self._reporter.task("copying into place", None, "B") as task:
            self._copy(self._remote(self._incoming), "", itertools.chain([first], files), task.advance)
        return True

    @property
    def _trust_incoming(self) -> Trust:
        """The folder is this very data set's, so that what is in it with the right size was sent for it."""
        return "etag" if self.trust == "etag" else "size"

    def _look_at_incoming(self) -> None:
        self._state.note_listing(self._there.list(self._incoming.rstrip("/")), self._incoming)

    def _remote(self, below: str) -> str:
        """A folder in the store as rclone names it."""
        return f"{rclone.REMOTE}:{self._there.bucket}/{self._there.key}/{below}"

    def _upload(self, below: str, trust: Trust, *, replacing: bool | None = None) -> None:
        """Send the files whose object below the folder `below` in the store is wrong."""
        number, size = self._state.count_wrong(trust, below, replacing=replacing)
        files = self._state.wrong(trust, below, replacing=replacing)
        with self._reporter.task(f"uploading {amount(number, 'files')}", size, "B") as task:
            self._copy(str(self._data), below, files, task.advance)

    def _copy(self, origin: str, below: str, files: Iterator[Wanted], advance: Callable[[int], None]) -> None:
        """Copy files from `origin` to the folder `below` in the store, in batches; `advance` is told the bytes."""
        limits = rclone.Limits(self._settings.transfers, self._settings.bandwidth, self._settings.stall_seconds)
        # The ETag says afterwards whether the store has the right bytes, so nobody needs to hash them on the way, too.
        flags = ("--s3-disable-checksum", "--s3-use-unsigned-payload=true") if self.trust == "etag" else ()
        for some in self._in_order(files):
            sizes = {file.path: file.bytes for file in some}
            arrivals = _Arrivals(self._state, sizes, counts=not below)
            with self._hashing([file for file in some if not self._state.is_hashed(file.path)]), arrivals:
                failure = rclone.copy(
                    self._settings, origin, self._remote(below), sizes, limits, advance, arrivals.add, is_final, *flags
                )
            self.files += arrivals.files
            self.bytes += arrivals.bytes
            if failure is not None:
                self._note_failure(failure, len(some) - len(arrivals.seen))

    def _in_order(self, files: Iterator[Wanted]) -> Iterator[list[Wanted]]:
        """Batches of files; what LitData's readers look at first goes last, once all that it names is there."""
        last: list[Wanted] = []

        def others() -> Iterator[Wanted]:
            for file in files:
                if self._source.artifact == "litdata" and file.path.endswith("/index.json"):
                    last.append(file)
                else:
                    yield file

        yield from batches(others(), BATCH_FILES)
        if last and self._failure is None:  # else they go with the next try
            yield last

    def _note_failure(self, failure: rclone.Failure, left: int) -> None:
        """Remember why `left` files did not go up. Raises the error for it where trying again won't help."""
        if is_final(failure.code):
            raise self._explain(failure)
        self._failure = self._failure or failure
        self._reporter.event("broke_off", f"{amount(left, 'files')} did not go up: {failure.message}", files=left)

    def _hash(self, files: Iterable[Wanted]) -> None:
        """Read files: their ETags, and that they are what the index says. Raises InputError for one that isn't."""
        for some in batches(files, BATCH_FILES):
            with self._hashing(some):
                pass

    @contextmanager
    def _hashing(self, files: list[Wanted]) -> Iterator[None]:
        """Read files while the block runs, and note what was found when it has ended: see `_hash`."""
        self.hashed_files += len(files)
        with ThreadPoolExecutor(self._settings.workers) as pool:  # reading and hashing let go of Python's lock
            prints = pool.map(self._fingerprint, files)
            try:
                yield
                self._state.hashed([(file.path, found) for file, found in zip(files, prints, strict=True)])
            finally:
                pool.shutdown(cancel_futures=True)

    def _fingerprint(self, file: Wanted) -> Fingerprint:
        path = self._data / file.path
        try:
            found = fingerprint(path)
        except (FileNotFoundError, NotADirectoryError):
            raise self._changed(path, "is gone") from None
        if (found.bytes, found.sha256) != (file.bytes, file.sha256):
            raise self._changed(path, "has changed")
        return found

    def _changed(self, path: Path, how: str) -> InputError:
        maker = made_by(self._settings.folder)
        # Who packs misses a file that is gone by itself, but not other bytes of the same length.
        again = f"run {maker if how == 'is gone' else forced(maker)}, which makes them anew, then run again"
        return InputError(
            f"{path} {how} since its manifest was written",
            next_step=f"{TREE_ANEW}, then run again" if maker == MADE_BY["tree"] else again,
        )

    def _say_again(self, idle: int, wrong: int) -> None:
        """Say what is sent again, and why; where the store failed, leave it some time."""
        why = self._failure.message if self._failure else "they are missing or different in the store"
        pause = min(_FIRST_PAUSE_SECONDS * 2**idle, _LONGEST_PAUSE_SECONDS) if self._failure else 0
        self._reporter.event("retry", f"sending {amount(wrong, 'files')} again: {why}", files=wrong, tries=idle)
        time.sleep(pause)

    def _given_up(self, wrong: int) -> LarderError:
        if self._failure is not None:
            return self._explain(self._failure)
        example = next(self._state.wrong(self.trust), None)
        return ServiceError(
            f"{self._there.uri}: still missing or different after {TRIES} uploads in a row: {amount(wrong, 'objects')}"
            + (f", such as {example.path}" if example else ""),
            next_step="look whether something else writes to the bucket, or the store can't hold such a name; then run "
            "the same command again: it resumes",
        )

    def _explain(self, failure: rclone.Failure) -> LarderError:
        return rclone.explain(failure, f"uploading to {self._there.uri}", self._settings.s3_endpoint_url)


class _Arrivals:
    """Notes in the state what has arrived at its place, some at a time: a run that is killed then forgets little."""

    def __init__(self, state: State, sizes: Mapping[str, int], *, counts: bool) -> None:
        self._state, self._sizes, self._counts = state, sizes, counts
        self._new: list[str] = []
        self.seen: set[str] = set()
        self.files = self.bytes = 0

    def add(self, path: str) -> None:
        """Note one file."""
        self.seen.add(path)
        if self._counts and path in self._sizes:
            self.files, self.bytes = self.files + 1, self.bytes + self._sizes[path]
            self._new.append(path)
        if len(self._new) >= _NOTED_AT_ONCE:
            self._note()

    def _note(self) -> None:
        self._state.sent(self._new)
        self._new.clear()

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._note()


def counted(items: Iterable[T], advance: Callable[[int], None]) -> Iterator[T]:
    """The items as they are; `advance` is told of each."""
    for item in items:
        advance(1)
        yield item


def made_by(folder: str) -> str:
    """What makes the data in a folder of this name."""
    return MADE_BY[layout_of(folder)]
