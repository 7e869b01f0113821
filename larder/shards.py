"""WebDataset's tar shards: the names of the members that are one sample, and what a shard may be made of.

The format: https://github.com/webdataset/webdataset#the-webdataset-format

A sample's key is its path below the split without the extension. Readers end a key at the first dot of the file name,
and take members of one key for one sample. So a file with another dot in its name, and one that differs from another in
the extension alone, get a key of their own: the dots become underscores, and eight digits of the path's SHA-256 follow.
`cat.0.jpg` has the key `cat_0-b6a2a0e4`. It depends on the path alone. Of files that differ in the extension, the first
in byte order keeps its key.
"""

from __future__ import annotations

import hashlib
import tarfile
from typing import IO, NoReturn

from larder.errors import InputError

LABEL = "cls"
"""The extension of labels."""
_DIGITS = 8
HEADER_BYTES = 1 << 20
"""The most that a header of a long name may have."""
MEMBER_BYTES = 1 << 30
"""The most that a member may have; images have less."""
_BLOCK = tarfile.BLOCKSIZE
_FILES, _NAMES = (tarfile.REGTYPE, tarfile.AREGTYPE), (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_HEADERS_IN_A_ROW = 2  # a pax header, and GNU's for the same name


class PlainTar:
    """A shard that is looked at while somebody reads it: plain files and their long names, and nothing else.

    What reads tar would believe a header's word and take gigabytes for a sparse file of a few bytes or for a name,
    decompress what is no tar at first, or follow a chain of headers until Python's stack ends. Raises InputError, with
    `remedy` as its next step, before it comes to that; TarError where there is no tar.
    """

    def __init__(self, file: IO[bytes], uri: str, remedy: str) -> None:
        self._file, self._uri, self._remedy = file, uri, remedy
        self._block = bytearray()  # a header, or the content of one
        self._wanted, self._left, self._headers = _BLOCK, 0, 0
        self._kind = b""  # of the header whose content `_block` is
        self._at, self._ended = 0, False

    def read(self, size: int = -1, /) -> bytes:
        """See IO."""
        data = self._file.read(size)
        if self._left > len(data):  # nearly always: in the middle of an image
            self._left -= len(data)
            self._at += len(data)
        elif not self._ended:
            self._follow(data)
        return data

    def close(self) -> None:
        """See IO."""
        self._file.close()

    def _follow(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._ended:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(self._wanted - len(self._block), len(data) - at)
                self._block += data[at : at + step]
            at += step
            self._at += step
            if len(self._block) == self._wanted:
                self._look(bytes(self._block))
                self._block.clear()

    def _look(self, block: bytes) -> None:
        if self._kind:
            kind, self._kind, self._wanted = self._kind, b"", _BLOCK
            if kind == tarfile.XHDTYPE and (b"GNU.sparse" in block or b" size=" in block):
                self._refuse("a pax header of another kind than one of a long name")
        elif not any(block):
            self._ended = True
        else:
            self._look_at_header(block)

    def _look_at_header(self, block: bytes) -> None:
        kind = block[156:157]
        try:
            size = int(tarfile.nti(block[124:136]))  # type: ignore[attr-defined]
        except tarfile.HeaderError:
            if self._at == _BLOCK:  # else it may be compressed
                raise tarfile.ReadError("not a tar file") from None
            self._ended = True  # tarfile stops here, too
            return
        if size < 0 or kind not in _FILES + _NAMES or (kind in _FILES and block[:100].rstrip(b"\0").endswith(b"/")):
            self._refuse("a tar header of another kind than a plain file's")
        if size > (MEMBER_BYTES if kind in _FILES else HEADER_BYTES):
            self._refuse(f"a tar header of {size:,} bytes")
        padded = size + -size % _BLOCK
        if kind in _FILES:
            self._left, self._headers = padded, 0
            return
        self._headers += 1
        if self._headers > _HEADERS_IN_A_ROW or not size:
            self._refuse("too many tar headers for one file")
        self._kind, self._wanted = kind, padded

    def _refuse(self, what: str) -> NoReturn:
        raise InputError(f"{self._uri} is damaged: {what} at byte {self._at - self._wanted:,}", next_step=self._remedy)


def label_of(text: bytes, classes: int) -> int | None:
    """The class that a label's member holds, or None if it is not a label below `classes`."""
    if not text.isdigit() or len(text) > 18 or int(text) >= classes:
        return None
    return int(text)


def member_names(path: str, key: str | None = None) -> tuple[str, str]:
    """The members of the sample that is at `path` in the tree: its image's and its label's.

    Both have the path below the split as their key, unless there is another; the image's extension is in lower case,
    and `jpg` for `jpeg`.
    """
    own, _, extension = path.partition("/")[2].rpartition(".")
    extension = extension.lower()
    key = own if key is None else key
    return f"{key}.{'jpg' if extension == 'jpeg' else extension}", f"{key}.{LABEL}"


def needs_key(path: str, before: str) -> bool:
    """Whether the sample at `path` needs another key than its path's.

    `before` is the last sample, sorted by path, that has its path's key; "" for none.
    """
    stem = path.rpartition(".")[0]
    return "." in stem.rpartition("/")[2] or (before != "" and before.rpartition(".")[0] == stem)


def own_key(path: str) -> str:
    """The key of a sample that needs one."""
    inside = path.partition("/")[2]
    folder, slash, name = inside.rpartition("/")
    digest = hashlib.sha256(inside.encode()).hexdigest()[:_DIGITS]
    return f"{folder}{slash}{name.rpartition('.')[0].replace('.', '_')}-{digest}"
