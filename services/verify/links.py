"""The links of the chain, in its order, and what is said where one doesn't hold."""

from __future__ import annotations

from typing import NamedTuple

from larder.contract import Artifact
from larder.errors import InputError
from larder.volume import CHUNKS, RAW, SHARDS, TREE


class Link(NamedTuple):
    """A step from one artifact to the next."""

    name: str
    """As settings name it."""
    title: str
    artifact: Artifact
    """What the step leads to."""
    folder: str
    made_by: str
    in_store: bool = False


LINKS = (
    Link("archive", "archive → raw", "raw", RAW, "make etl-local"),
    Link("raw", "raw → its files", "raw", RAW, "make etl-local"),
    Link("tree", "raw → tree", "tree", TREE, "make etl-local"),
    Link("webdataset", "tree → shards", "webdataset", SHARDS, "make etl-wds"),
    Link("litdata", "tree → chunks", "litdata", CHUNKS, "make etl-lit"),
    Link("objects", "tree → store", "objects", TREE, "make etl-load", in_store=True),
    Link("stored-webdataset", "shards → store", "webdataset", SHARDS, "make etl-wds", in_store=True),
    Link("stored-litdata", "chunks → store", "litdata", CHUNKS, "make etl-lit", in_store=True),
)


class Fault(NamedTuple):
    """What is not as it should be: where, and what was expected there and found."""

    where: str
    expected: str
    found: str
    cause: str = ""

    def __str__(self) -> str:
        cause = f" ({self.cause})" if self.cause else ""
        return f"{self.where}: expected {self.expected}, found {self.found}{cause}"


class BrokenError(InputError):
    """A link doesn't hold."""

    def __init__(self, link: Link, fault: Fault, *, next_step: str) -> None:
        super().__init__(f"the chain breaks at {link.title}: {fault}", next_step=next_step)
        self.link, self.fault = link, fault
