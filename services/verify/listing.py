"""What lies in a place, to compare an index with: every file must be there, with its size and its ETag."""

from __future__ import annotations

from array import array

from larder.contract import IndexEntry
from services.verify.artifact import Artifact
from services.verify.keys import Keys, key


class Listing:
    """The files of an artifact as they are listed."""

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        sizes, tags = array("Q"), array("Q")
        for item in artifact.place.list():
            sizes.append(key(item.path, item.bytes))
            if item.etag:
                tags.append(key(item.path, item.bytes, item.etag))
        self._sizes, self._tags = Keys(sizes), Keys(tags)
        self.matching = self.differing = 0
        """Files whose ETag is the index's, and those where it is another."""

    def require(self, entry: IndexEntry) -> None:
        """Raise BrokenError unless a file is there with its size; note whether its ETag is right."""
        if key(entry.path, entry.bytes) not in self._sizes:
            raise self._absent(entry)
        if entry.etag is not None:
            self.differing += self.differs(entry)
            self.matching += not self.differs(entry)

    def differs(self, entry: IndexEntry) -> bool:
        """Whether a file has another ETag than the index says."""
        return entry.etag is not None and key(entry.path, entry.bytes, entry.etag) not in self._tags

    @property
    def has_checksums(self) -> bool:
        """Whether ETags say anything of the content here: stores that encrypt give others, each of them."""
        return self.matching > 0

    def others(self) -> str:
        """What lies there and isn't in the index, in words; empty when there is nothing such."""
        number = len(self._sizes) - self._artifact.manifest.files
        if number <= 0:
            return ""
        named = Keys(key(entry.path) for entry in self._artifact.entries())
        first = next(item.path for item in self._artifact.place.list() if key(item.path) not in named)
        return f"in the way: {number:,} that the index doesn't name, such as {first}"

    def _absent(self, entry: IndexEntry) -> Exception:
        found = next((item for item in self._artifact.place.list() if item.path == entry.path), None)
        return self._artifact.broken(
            entry.path, f"{entry.bytes:,} bytes", f"{found.bytes:,} bytes" if found else "nothing"
        )
