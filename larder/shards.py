"""Name the members of WebDataset's tar shards, and check shards while they are read.

Format: https://github.com/webdataset/webdataset#the-webdataset-format

A sample's key is its path below the split without the extension. Readers end a key at the first dot of the file name,
and treat all members with the same key as one sample. So two kinds of files get a special key: files with another dot
in their names, and files that differ from another file only in the extension. In the special key, dots become
underscores, and eight digits of the path's SHA-256 are appended: `cat.0.jpg` has the key `cat_0-791ba3bb`. The key
depends only on the path. Of files that differ only in the extension, the first in byte order keeps its plain key.
"""

from __future__ import annotations

import hashlib
import tarfile
from typing import IO, NoReturn

from larder.errors import InputError

LABEL = "cls"
"""Extension of the members that hold labels."""
_DIGITS = 8
HEADER_BYTES = 1 << 20
"""Maximum size of a header with a long name."""
MEMBER_BYTES = 1 << 30
"""Maximum size of a member; images are smaller."""
_BLOCK = tarfile.BLOCKSIZE
_FILES, _NAMES = (tarfile.REGTYPE, tarfile.AREGTYPE), (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_HEADERS_IN_A_ROW = 2  # a pax header, and GNU's for the same name


class PlainTar:
    """A file object that checks a shard while a tar reader reads it: only plain files and long names are allowed.

    Python's `tarfile` trusts headers. It may allocate gigabytes for a small sparse file or a long name, decompress data
    that aren't a tar, or recurse through a chain of headers until the stack overflows. This class raises before that.

    Raises:
        InputError: On reading a header that isn't allowed.
        tarfile.ReadError: On reading data that aren't a tar.
    """

    def __init__(self, file: IO[bytes], uri: str, hint: str) -> None:
        """Check the shard in `file`; errors name it `uri` and have `hint` as their next step."""
        self._file, self._uri, self._hint = file, uri, hint
        self._block = bytearray()  # a header, or the content of one
        self._expected_bytes, self._left, self._headers = _BLOCK, 0, 0
        self._kind = b""  # type of the header whose content is in `_block`
        self._position, self._ended = 0, False

    def read(self, size: int = -1, /) -> bytes:
        """Read and check the next bytes."""
        data = self._file.read(size)
        if self._left > len(data):  # the usual case: in the middle of an image
            self._left -= len(data)
            self._position += len(data)
        elif not self._ended:
            self._parse(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _parse(self, data: bytes) -> None:
        at = 0
        while at < len(data) and not self._ended:
            if self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
            else:
                step = min(self._expected_bytes - len(self._block), len(data) - at)
                self._block += data[at : at + step]
            at += step
            self._position += step
            if len(self._block) == self._expected_bytes:
                self._check_block(bytes(self._block))
                self._block.clear()

    def _check_block(self, block: bytes) -> None:
        if self._kind:
            kind, self._kind, self._expected_bytes = self._kind, b"", _BLOCK
            if kind == tarfile.XHDTYPE and (b"GNU.sparse" in block or b" size=" in block):
                self._refuse("a pax header that isn't for a long name")
        elif not any(block):
            self._ended = True
        else:
            self._check_header(block)

    def _check_header(self, block: bytes) -> None:
        kind = block[156:157]
        try:
            size = int(tarfile.nti(block[124:136]))  # type: ignore[attr-defined]
        except tarfile.HeaderError:
            if self._position == _BLOCK:  # the first header: the file may be compressed
                raise tarfile.ReadError("not a tar file") from None
            self._ended = True  # tarfile stops here, too
            return
        if size < 0 or kind not in _FILES + _NAMES or (kind in _FILES and block[:100].rstrip(b"\0").endswith(b"/")):
            self._refuse("a tar header that isn't for a regular file")
        if size > (MEMBER_BYTES if kind in _FILES else HEADER_BYTES):
            self._refuse(f"a tar header of {size:,} bytes")
        padded = size + -size % _BLOCK
        if kind in _FILES:
            self._left, self._headers = padded, 0
            return
        self._headers += 1
        if self._headers > _HEADERS_IN_A_ROW or not size:
            self._refuse("too many tar headers for one file")
        self._kind, self._expected_bytes = kind, padded

    def _refuse(self, what: str) -> NoReturn:
        raise InputError(
            f"{self._uri} is damaged: {what} at byte {self._position - self._expected_bytes:,}", next_step=self._hint
        )


def label_of(text: bytes, classes: int) -> int | None:
    """Parse the content of a label's member. Return None if it isn't a label below `classes`."""
    if not text.isdigit() or len(text) > 18 or int(text) >= classes:
        return None
    return int(text)


def member_names(path: str, key: str | None = None) -> tuple[str, str]:
    """Return the names of a sample's two members, image and label.

    The image's extension is in lower case, with `jpg` for `jpeg`.

    Args:
        path: Path of the sample in the tree.
        key: Key of the sample; by default its path below the split, without the extension.
    """
    own, _, extension = path.partition("/")[2].rpartition(".")
    extension = extension.lower()
    key = own if key is None else key
    return f"{key}.{'jpg' if extension == 'jpeg' else extension}", f"{key}.{LABEL}"


def needs_special_key(path: str, previous: str) -> bool:
    """Return whether the path of a sample can't be its key.

    Args:
        path: Path of the sample in the tree.
        previous: Path of the last sample before it, sorted by path, whose path is its key; "" for none.
    """
    stem = path.rpartition(".")[0]
    return "." in stem.rpartition("/")[2] or (previous != "" and previous.rpartition(".")[0] == stem)


def special_key(path: str) -> str:
    """Return the special key of a sample whose path can't be its key."""
    inside = path.partition("/")[2]
    folder, slash, name = inside.rpartition("/")
    digest = hashlib.sha256(inside.encode()).hexdigest()[:_DIGITS]
    return f"{folder}{slash}{name.rpartition('.')[0].replace('.', '_')}-{digest}"
