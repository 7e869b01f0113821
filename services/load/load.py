"""The load stage: upload what is missing or different, verify every object, and put the manifest last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from larder.artifacts import name_in, on_volume
from larder.bucket import Folder, Listed
from larder.contract import (
    INDEX_IN_STORE,
    MANIFEST,
    META,
    RUN,
    Manifest,
    find_manifest,
    index_name,
    parse_index,
    read_index,
    read_manifest,
    require_digest,
    samples_name,
    write_index,
)
from larder.dataset import LAYOUTS, folder_of, layout_of
from larder.errors import ConfigurationError, InputError, ServiceError
from larder.fingerprint import ETAG_SETTINGS
from larder.next_step import Run
from larder.progress import Reporter, amount
from larder.stage import Clock, Outcome
from larder.volume import WORK, Slot
from services.load.class_folders import is_placeholder, keep_class_folders
from services.load.sending import PROBE, Sending, counted, made_by
from services.load.settings import LoadSettings
from services.load.state import State

_LOADED_BY = {"tree": Run("load"), "webdataset": Run("load", "shards"), "litdata": Run("load", "chunks")}
_BENCH = Run("bench")
NEXT_STEP = {
    "tree": f"{_BENCH.having(LARDER_ARM='remote_one_sample')}; or {Run('mount')}, then "
    f"{_BENCH.having(LARDER_ARM='imagefolder_rclone_mount')}",
    "webdataset": f"{_BENCH.having(LARDER_ARM='webdataset')}; {Run('clean', 'wds')}, if the volume's space is needed",
    "litdata": f"{_BENCH.having(LARDER_ARM='litdata_streaming')}; {Run('clean', 'lit')}, if the volume's space "
    "is needed",
}
_SHOWN = 3


def load(settings: LoadSettings, reporter: Reporter) -> Outcome:
    """Run the stage. Nothing is sent when the store holds all of it already."""
    if settings.task == "reach":
        return reach(settings, reporter)
    settings = _with_folder(settings, reporter)
    slot = Slot(settings.volume, settings.folder)
    with slot.lock():  # nobody changes the data under our hands
        source = read_manifest(slot.folder, made_by=made_by(settings.folder))
        there = Folder(settings, settings.folder)
        key = json.dumps([source.digest(), settings.s3_endpoint_url, there.uri, ETAG_SETTINGS])
        with State(slot.root / WORK / "load" / f"{settings.folder}.sqlite", key) as state:
            outcome = Load(settings, reporter, slot.folder, source, there, state).run()
            state.remove()
    return outcome


def _with_folder(settings: LoadSettings, reporter: Reporter) -> LoadSettings:
    """The settings with a folder's name in the place of a layout's."""
    layout = next((layout for layout in LAYOUTS if layout == settings.folder), None)
    if layout is None:
        return settings
    folder = on_volume(settings.volume, layout, settings.dataset, reporter)
    return settings.model_copy(update={"folder": folder})


def reach(settings: LoadSettings, reporter: Reporter) -> Outcome:
    """Whether the store answers, knows the keys, has the bucket, and may be written and read.

    Where the volume holds the tree that is about to be packed, the store must not hold another data set in its place.

    Raises ConfigurationError or ServiceError when not, with the next step.
    """
    packed = settings.folder in LAYOUTS and settings.folder != "tree" and not settings.input
    found = on_volume(settings.volume, "tree", settings.dataset, reporter) if packed else ""
    tree = find_manifest(settings.volume / found) if found else None
    if tree is None:
        there = Folder(settings, _with_folder(settings, reporter).folder)
        there.read(MANIFEST)
    else:
        name = settings.dataset or name_in(tree, found)
        [layout] = [layout for layout in LAYOUTS if layout == settings.folder]
        there = Folder(settings, folder_of(name, layout))
        if not settings.force:
            _require_same(there.find_manifest(), tree, there.uri)
    there.write(PROBE, b"larder")
    there.delete([PROBE])
    return Outcome(f"{there.uri} can be written", "")


def _require_same(old: Manifest | None, new: Manifest, place: str) -> None:
    """Raise ConfigurationError if a place in the store holds another data set than the one that is to go there."""
    if old is not None and old.dataset != new.dataset:
        raise ConfigurationError(
            f"{place} holds the data set {old.dataset!r}, and this is {new.dataset!r}",
            next_step="set S3_PREFIX or another S3_BUCKET, or LARDER_FORCE=true to put this one in its place",
        )


class Load:
    """One run: the data on the volume, their place in the store, and what is known of both."""

    def __init__(
        self, settings: LoadSettings, reporter: Reporter, data: Path, source: Manifest, there: Folder, state: State
    ) -> None:
        self._settings, self._reporter, self._clock = settings, reporter, Clock()
        self._data, self._source, self._there, self._state = data, source, there, state
        self._sending = Sending(settings, reporter, data, source, there, state)
        self._old: Manifest | None = None
        self._unreliable = False
        """Whether there is a manifest that no reader can follow."""
        self._put = False

    def run(self) -> Outcome:
        """Everything in its order."""
        self._old = self._find_old()
        with self._reporter.task("reading the index", self._source.files, "files") as task:
            self._state.want(counted(read_index(self._data, self._source), task.advance))
        self._compare_with_old()
        if self._settings.task == "check":
            return self._check()
        self._old = self._sending.until_right(self._old, self._unreliable)
        keep_class_folders(self._source, self._there, self._state.objects("data"), self._settings.transfers)
        self._sweep(self._commit())
        return self._outcome(self._see_to_extras())

    def _check(self) -> Outcome:
        """Whether the store has all of it. Raises InputError when it hasn't.

        An object with another ETag is read: where the store encrypts, an ETag says nothing.
        """
        self._sending.look(blind=False)
        doubtful, size = self._state.count_wrong(self._sending.trust)
        wrong = doubtful
        known = self._old is not None and self._old == self._source.stored(self._old.index)
        by = self._verified_by()
        if known and self._settings.verify_remote == "read":
            wrong = self._sending.read_back(self._state.wanted(), self._source.bytes)
        elif known and doubtful:
            wrong = self._sending.read_back(self._state.wrong(self._sending.trust), size)
            by += f", {doubtful:,} of them by content"
        if wrong or not known:
            raise InputError(
                f"{self._there.uri} doesn't hold what {self._data} does: "
                + (
                    f"missing or different there: {amount(wrong, 'objects')}"
                    if wrong
                    else "its manifest is missing or another"
                ),
                next_step=f"run {_LOADED_BY[layout_of(self._settings.folder)]}",
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
        if not self._settings.force:
            _require_same(old, self._source, self._there.uri)
        return old

    def _compare_with_old(self) -> None:
        """Learn from the index in the store which objects have the wanted content already, and their ETags."""
        if self._old is None:
            return
        place = self._state.path.with_suffix(".index")
        try:
            digest = self._there.download(f"{META}/{index_name(self._old)}", place, self._old.index.bytes)
            try:
                if digest != self._old.index.sha256:
                    raise InputError("another digest", next_step="")
                self._state.compare(parse_index(place), etags=self._old.settings.items() >= ETAG_SETTINGS.items())
            except InputError:  # then no reader can follow it, either
                self._reporter.event("repair", f"the index in {self._there.uri} is missing or damaged: not relied on")
                self._old, self._unreliable = None, True
        finally:
            place.unlink(missing_ok=True)

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
                    sent_files=self._sending.files, sent_bytes=self._sending.bytes, verified=self._verified_by()
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
        if self._sending.probed:
            litter.append(PROBE)
        self._there.delete(dict.fromkeys(litter))

    def _note_before(self, path: str, sha256: str) -> None:
        """Note what an index in the store names; nothing, if it is gone or has changed."""
        place = self._state.path.with_suffix(".index")
        try:
            if self._there.download(path, place) == sha256:
                with suppress(InputError):
                    self._state.named_before(parse_index(place))
        finally:
            place.unlink(missing_ok=True)

    def _see_to_extras(self) -> int:
        """Report, or delete if asked to, what lies there and isn't named by the manifest. Returns how many."""
        first: list[str] = []
        extra = 0
        for extra, item in enumerate(self._extras(), start=1):
            if extra <= _SHOWN:
                first.append(item.path)
        if not extra:
            return 0
        objects = f"{amount(extra, 'objects')} in {self._there.uri}"
        such = f"{objects} that the manifest doesn't name, such as {', '.join(first)}"
        if self._settings.delete_extra:
            self._reporter.event("delete", f"deleting {such}", objects=extra)
            self._there.delete(item.path for item in self._extras())
        else:
            self._reporter.event(
                "extra", f"in the way: {such}; LARDER_DELETE_EXTRA=true (--delete-extra) deletes them", objects=extra
            )
        return extra

    def _extras(self) -> Iterator[Listed]:
        return (item for item in self._state.objects("data") if not is_placeholder(item))

    def _verified_by(self) -> str:
        if self._settings.verify_remote == "read":
            return "size and content"
        return "size and checksum" if self._sending.trust == "etag" else "size"

    @property
    def _unread(self) -> str:
        """What wasn't looked at, in words."""
        return "" if self._sending.hashed_files else "; of the volume, only the index was read"

    def _outcome(self, extra: int) -> Outcome:
        sent = "nothing to send, new manifest put" if self._put else "up to date"
        if self._sending.files:
            sent = f"{self._sending.files:,} sent ({amount(self._sending.bytes, 'B')})"
        seconds = self._clock.seconds
        return Outcome(
            f"{amount(self._source.files, 'objects')} in {self._there.uri}: {sent}, "
            f"all verified by {self._verified_by()}, in {seconds:.1f} s{self._unread}",
            NEXT_STEP.get(self._source.artifact, str(Run("s3", "check"))),
            {
                "objects": self._source.files, "sent": self._sending.files, "sent_bytes": self._sending.bytes,
                "extra": extra, "up_to_date": not self._sending.files and not self._put, "seconds": round(seconds, 3),
            },
        )  # fmt: skip


def _indexes(manifest: Manifest) -> set[str]:
    """The objects beside a manifest in a store that it names."""
    return {f"{META}/{index_name(manifest)}"} | ({f"{META}/{samples_name(manifest)}"} if manifest.samples else set())
