"""The load stage: upload what is missing or different, verify every object, and put the manifest last."""

from __future__ import annotations

import hashlib
import itertools
import json
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
from larder.contract import (
    INDEX_IN_STORE,
    META,
    Manifest,
    index_name,
    parse_index,
    read_index,
    read_manifest,
    require_digest,
    samples_name,
    write_index,
)
from larder.errors import TREE_ANEW, ConfigurationError, InputError, LarderError, ServiceError
from larder.fingerprint import ETAG_SETTINGS, Fingerprint, fingerprint
from larder.progress import Reporter, amount
from larder.s3_faults import is_final
from larder.stage import Clock, Outcome
from larder.volume import CHUNKS, SHARDS, TREE, WORK, Slot
from services.load.settings import LoadSettings
from services.load.state import State, Trust, Wanted

T = TypeVar("T")

MADE_BY = {TREE: "make etl-local", SHARDS: "make etl-wds", CHUNKS: "make etl-lit"}
LOADED_BY = MADE_BY | {TREE: "make etl-load"}
NEXT_STEP = {
    TREE: "make bench ARM=remote_one_sample, or make mount and ARM=imagefolder_rclone_mount",
    SHARDS: "make bench ARM=webdataset; make clean-wds, if the volume's space is needed",
    CHUNKS: "make bench ARM=litdata_streaming; make clean-lit, if the volume's space is needed",
}
MANIFEST, RUN, PROBE = f"{META}/manifest.json", f"{META}/run.json", f"{META}/probe"
TRIES = 3
"""Uploads in a row that mend nothing, before it is given up."""
BATCH_FILES = 10_000
"""Files of one rclone process, whose memory grows with them."""
_READ_AT_ONCE = 1000
_NOTED_AT_ONCE = 100
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 1.0, 30.0
_SHOWN = 3


def load(settings: LoadSettings, reporter: Reporter) -> Outcome:
    """Run the stage. Nothing is sent when the store holds all of it already."""
    if settings.task == "reach":
        return reach(settings)
    slot = Slot(settings.volume, settings.folder)
    with slot.lock():  # nobody changes the data under our hands
        source = read_manifest(slot.folder, made_by=_made_by(settings.folder))
        there = Folder(settings, settings.folder)
        key = json.dumps([source.digest(), settings.s3_endpoint_url, there.uri, ETAG_SETTINGS])
        with State(slot.root / WORK / "load" / f"{settings.folder}.sqlite", key) as state:
            outcome = Load(settings, reporter, slot.folder, source, there, state).run()
            state.remove()
    return outcome


def reach(settings: LoadSettings) -> Outcome:
    """Whether the store answers, knows the keys, has the bucket, and may be written and read.

    Raises ConfigurationError or ServiceError when not, with the next step.
    """
    there = Folder(settings, settings.folder)
    there.read(MANIFEST)
    there.write(PROBE, b"larder")
    there.delete([PROBE])
    return Outcome(f"{there.uri} can be written", "")


class Load:
    """One run: the data on the volume, their place in the store, and what is known of both."""

    def __init__(
        self, settings: LoadSettings, reporter: Reporter, data: Path, source: Manifest, there: Folder, state: State
    ) -> None:
        self._settings, self._reporter, self._clock = settings, reporter, Clock()
        self._data, self._source, self._there, self._state = data, source, there, state
        self._incoming = f"{META}/incoming-{source.digest()[:16]}/"
        self._old: Manifest | None = None
        self._unreliable = False
        """Whether there is a manifest that no reader can follow."""
        self._trust: Trust = "sent" if settings.verify_remote == "list" else "etag"
        self._probed = self._placed = self._put = False
        self._failure: rclone.Failure | None = None
        self._sent_files = self._sent_bytes = self._hashed_files = 0

    def run(self) -> Outcome:
        """Everything in its order."""
        self._old = self._find_old()
        with self._reporter.task("reading the index", self._source.files, "files") as task:
            self._state.want(_counted(read_index(self._data, self._source), task.advance))
        self._compare_with_old()
        if self._settings.task == "check":
            return self._check()
        self._send_until_right()
        self._sweep(self._commit())
        return self._outcome(self._see_to_extras())

    def _check(self) -> Outcome:
        """Whether the store has all of it. Raises InputError when it hasn't.

        An object with another ETag is read: where the store encrypts, an ETag says nothing.
        """
        self._look(blind=False)
        wrong, size = doubtful, _ = self._state.count_wrong(self._trust)
        known = self._old is not None and self._old == self._source.stored(self._old.index)
        by = self._verified_by()
        if known and self._settings.verify_remote == "read":
            wrong = self._read_back(self._state.wanted(), self._source.bytes)
        elif known and doubtful:
            wrong = self._read_back(self._state.wrong(self._trust), size)
            by += f", {doubtful:,} of them by content"
        if wrong or not known:
            raise InputError(
                f"{self._there.uri} doesn't hold what {self._data} does: "
                + (
                    f"missing or different there: {amount(wrong, 'objects')}"
                    if wrong
                    else "its manifest is missing or another"
                ),
                next_step=f"run `{LOADED_BY.get(self._settings.folder, LOADED_BY[TREE])}`",
            )
        return Outcome(
            f"{amount(self._source.files, 'objects')} in {self._there.uri}: all there, verified by {by}{self._unread}",
            "",
            {"objects": self._source.files},
        )  # fmt: skip

    def _find_old(self) -> Manifest | None:
        """The manifest that is in place. Raises ConfigurationError when it is another data set's."""
        try:
            old = self._there.find_manifest()
        except InputError:
            if not self._settings.force:
                raise
            self._unreliable = True
            return None
        if old is not None and old.dataset != self._source.dataset and not self._settings.force:
            raise ConfigurationError(
                f"{self._there.uri} holds the data set {old.dataset!r}, and this is {self._source.dataset!r}",
                next_step="set S3_PREFIX or another S3_BUCKET, or LARDER_FORCE=true to put this one in its place",
            )
        return old

    def _compare_with_old(self) -> None:
        """Learn from the index in the store which objects have the wanted content already, and their ETags."""
        if self._old is None:
            return
        place = self._state.path.with_suffix(".index")
        try:
            digest = self._there.download(f"{META}/{index_name(self._old)}", place)
            if digest == self._old.index.sha256:
                self._state.compare(parse_index(place), etags=self._old.settings.items() >= ETAG_SETTINGS.items())
            else:  # then no reader can follow it, either
                self._reporter.event("repair", f"the index in {self._there.uri} is missing or damaged: not relied on")
                self._old, self._unreliable = None, True
        finally:
            place.unlink(missing_ok=True)

    def _send_until_right(self) -> None:
        """Look, send what is missing or different, look again. Raises LarderError when that comes to no end."""
        fewest, idle = None, 0
        for number in itertools.count(1):
            self._look(blind=self._settings.force and number == 1)
            wrong = self._state.count_wrong(self._trust)[0]
            if wrong and not self._probed:
                self._probe()
                wrong = self._state.count_wrong(self._trust)[0]
            if not wrong and self._settings.verify_remote == "read":
                wrong = self._read_back(self._state.wanted(), self._source.bytes)
            if not wrong:
                return
            idle = 0 if fewest is None or wrong < fewest else idle + 1
            fewest = wrong if fewest is None else min(wrong, fewest)
            if idle == TRIES:
                raise self._given_up(wrong)
            if number > 1:
                self._say_again(idle, wrong)
            self._send()

    def _look(self, blind: bool) -> None:
        """List what is there; `blind` is to take it for nothing, so that all is sent again."""
        with self._reporter.task("listing", None, "objects") as task:
            self._state.note_listing(() if blind else _counted(self._there.list(), task.advance))
        if blind:
            self._state.trust_nothing()
        if self._trust == "etag":
            self._hash(self._state.unhashed())
            self._hash(self._state.unhashed(self._incoming))

    def _probe(self) -> None:
        """Write a small object: whether we may, and whether the store's ETags are MD5s."""
        self._probed = True
        data = secrets.token_bytes(16)
        etag = self._there.write(PROBE, data)
        if self._trust == "etag" and etag != hashlib.md5(data, usedforsecurity=False).hexdigest():
            self._trust = "sent"
            self._reporter.event(
                "no_checksums", "this store gives no checksums (its ETags are no MD5s, as where it encrypts by KMS): "
                "objects are verified by size; LARDER_VERIFY_REMOTE=read fetches and hashes them",
            )  # fmt: skip

    def _read_back(self, files: Iterator[Wanted], size: int) -> int:
        """Fetch and hash these objects, of so many bytes. Returns the number of wrong ones."""
        wrong = 0
        with (
            self._reporter.task("reading back", size, "B") as task,
            ThreadPoolExecutor(self._settings.transfers) as pool,
        ):
            for some in batches(files, _READ_AT_ONCE):
                found = pool.map(self._there.digest, [file.path for file in some])
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
        if self._old is None:
            if self._placed or not self._place_incoming():  # else an earlier run was stopped at just that
                self._upload("", self._trust)
            return
        self._upload("", self._trust, replacing=False)
        if self._failure is None and self._state.count_wrong(self._trust, replacing=True)[0]:
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
        self._old = None
        self._place_incoming()

    def _place_incoming(self) -> bool:
        """Have the store copy into their places what came in and is right. Whether there was anything to copy.

        It is done once: a copy that is not right, as stores make of what came in parts, is uploaded instead.
        """
        self._placed = True
        files = self._state.ready(self._trust, self._incoming)
        first = next(files, None)
        if first is None:
            return False
        with self._reporter.task("copying into place", None, "B") as task:
            self._copy(self._remote(self._incoming), "", itertools.chain([first], files), task.advance)
        return True

    @property
    def _trust_incoming(self) -> Trust:
        """The folder is this very data set's, so that what is in it with the right size was sent for it."""
        return "etag" if self._trust == "etag" else "size"

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
        flags = ("--s3-disable-checksum", "--s3-use-unsigned-payload=true") if self._trust == "etag" else ()
        for some in self._in_order(files):
            sizes = {file.path: file.bytes for file in some}
            arrivals = _Arrivals(self._state, sizes, counts=not below)
            with self._hashing([file for file in some if not self._state.is_hashed(file.path)]), arrivals:
                failure = rclone.copy(
                    self._settings, origin, self._remote(below), sizes, limits, advance, arrivals.add, is_final, *flags
                )
            self._sent_files += arrivals.files
            self._sent_bytes += arrivals.bytes
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
        self._hashed_files += len(files)
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
        made_by = _made_by(self._settings.folder)
        # Who packs misses a file that is gone by itself, but not other bytes of the same length.
        again = f"run `{made_by}{'' if how == 'is gone' else ' LARDER_FORCE=true'}`, which makes them anew"
        return InputError(
            f"{path} {how} since its manifest was written",
            next_step=f"{TREE_ANEW}, then run again" if made_by == MADE_BY[TREE] else again,
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
        example = next(self._state.wrong(self._trust), None)
        return ServiceError(
            f"{self._there.uri}: still missing or different after {TRIES} uploads in a row: {amount(wrong, 'objects')}"
            + (f", such as {example.path}" if example else ""),
            next_step="look whether something else writes to the bucket, or the store can't hold such a name; then run "
            "the same command again: it resumes",
        )

    def _explain(self, failure: rclone.Failure) -> LarderError:
        return rclone.explain(failure, f"uploading to {self._there.uri}")

    def _commit(self) -> Manifest:
        """Put the index, then the manifest, unless they are there. Returns the manifest."""
        place = self._state.path.with_suffix(".index")
        try:
            manifest = self._source.stored(write_index(place, self._state.entries()))
            indexes = {f"{META}/{index_name(manifest)}": place}
            if manifest.samples:
                own = self._data / META / samples_name(self._source)
                require_digest(own, manifest.samples)
                indexes[f"{META}/{samples_name(manifest)}"] = own
            self._put_indexes(manifest, indexes)
            self._put = manifest != self._old
            if self._put:
                run = self._clock.record(
                    sent_files=self._sent_files, sent_bytes=self._sent_bytes, verified=self._verified_by()
                )
                self._there.write(RUN, (json.dumps(run, indent=2) + "\n").encode(), "application/json")
                self._there.write(MANIFEST, manifest.to_json().encode(), "application/json")
                self._require_alone(indexes)
            return manifest
        finally:
            place.unlink(missing_ok=True)

    def _put_indexes(self, manifest: Manifest, indexes: Mapping[str, Path]) -> None:
        """Put the indexes that `manifest` names, each with the file that holds it, unless they are there."""
        there = {item.path: item.bytes for item in self._state.objects("meta")}
        for path, file in indexes.items():
            if self._old != manifest or there.get(path) != file.stat().st_size:  # else it was put by an earlier load
                self._there.upload(path, file, "application/x-ndjson")

    def _require_alone(self, indexes: Iterable[str]) -> None:
        """Raises ServiceError when another load has tidied up after us, which one at the same time does."""
        if not {item.path for item in self._there.list(META)}.issuperset(indexes):
            raise ServiceError(
                f"{self._there.uri}: another load has written to the same place at the same time",
                next_step="wait until it has ended, then run this again; two data sets need an S3_PREFIX each",
            )

    def _sweep(self, manifest: Manifest) -> None:
        """Delete what data sets that were in place before have named and this one doesn't, by their indexes that are
        still there; then what larder itself has left on the way, now or earlier: probes, what came in, these indexes.
        """
        own = _indexes(manifest)
        for item in self._state.objects("meta"):
            if item.path not in own and (found := INDEX_IN_STORE.fullmatch(item.path)) is not None:
                self._note_before(item.path, found[1])
        if replaced := sum(1 for _ in self._state.objects("before")):
            self._reporter.event(
                "delete", f"deleting {replaced:,} objects of the data set that was in {self._there.uri} before",
                objects=replaced,
            )  # fmt: skip
            self._there.delete(item.path for item in self._state.objects("before"))
        keep = {MANIFEST, RUN} | own
        if self._old:  # a reader may be about to open its indexes
            keep |= _indexes(self._old)
        litter = [item.path for item in self._state.objects("meta") if item.path not in keep]
        if self._probed:
            litter.append(PROBE)
        self._there.delete(dict.fromkeys(litter))

    def _note_before(self, path: str, sha256: str) -> None:
        """Note what an index in the store names; nothing, if it is gone or has changed."""
        place = self._state.path.with_suffix(".index")
        try:
            if self._there.download(path, place) == sha256:
                self._state.named_before(parse_index(place))
        finally:
            place.unlink(missing_ok=True)

    def _see_to_extras(self) -> int:
        """Report, or delete if asked to, what lies there and isn't named by the manifest. Returns how many."""
        first: list[str] = []
        extra = 0
        for extra, item in enumerate(self._state.objects("data"), start=1):
            if extra <= _SHOWN:
                first.append(item.path)
        if not extra:
            return 0
        objects = f"{amount(extra, 'objects')} in {self._there.uri}"
        such = f"{objects} that the manifest doesn't name, such as {', '.join(first)}"
        if self._settings.delete_extra:
            self._reporter.event("delete", f"deleting {such}", objects=extra)
            self._there.delete(item.path for item in self._state.objects("data"))
        else:
            self._reporter.event(
                "extra", f"in the way: {such}; LARDER_DELETE_EXTRA=true (--delete-extra) deletes them", objects=extra
            )
        return extra

    def _verified_by(self) -> str:
        if self._settings.verify_remote == "read":
            return "size and content"
        return "size and checksum" if self._trust == "etag" else "size"

    @property
    def _unread(self) -> str:
        """What wasn't looked at, in words."""
        return "" if self._hashed_files else "; of the volume, only the index was read"

    def _outcome(self, extra: int) -> Outcome:
        sent = "nothing to send, new manifest put" if self._put else "up to date"
        if self._sent_files:
            sent = f"{self._sent_files:,} sent ({amount(self._sent_bytes, 'B')})"
        seconds = self._clock.seconds
        return Outcome(
            f"{amount(self._source.files, 'objects')} in {self._there.uri}: {sent}, "
            f"all verified by {self._verified_by()}, in {seconds:.1f} s{self._unread}",
            NEXT_STEP.get(self._settings.folder, "make s3-check"),
            {
                "objects": self._source.files, "sent": self._sent_files, "sent_bytes": self._sent_bytes,
                "extra": extra, "up_to_date": not self._sent_files and not self._put, "seconds": round(seconds, 3),
            },
        )  # fmt: skip


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


def _indexes(manifest: Manifest) -> set[str]:
    """The objects beside a manifest in a store that it names."""
    return {f"{META}/{index_name(manifest)}"} | ({f"{META}/{samples_name(manifest)}"} if manifest.samples else set())


def _counted(items: Iterable[T], advance: Callable[[int], None]) -> Iterator[T]:
    for item in items:
        advance(1)
        yield item


def _made_by(folder: str) -> str:
    return MADE_BY.get(folder, MADE_BY[TREE])
