"""Cut a sample's bytes in a shard into its members."""

from __future__ import annotations

from larder.errors import InputError
from larder.loaders.hints import CREATE_AGAIN
from larder.sources.limits import ReadMeter, SourceLimits
from larder.sources.members import is_litter
from larder.sources.tar_headers import read_members
from larder.stream.shard_folders import ShardFolder, ShortShardError
from larder.stream.shard_scan import split_key
from larder.tar import BLOCK_BYTES, END

Sample = dict[str, str | bytes]
"""Contents of a sample's members by extension, and its key as "__key__"."""
KEY = "__key__"
_HEADER_BYTES = 64 << 10
_LIMITS = SourceLimits(max_files=10_000, max_bytes=1 << 34)
_PLAIN = (b"0", b"\0")
_BLANK_CHECKSUM = 8 * ord(" ")
"""A header's checksum counts its own field as spaces."""


def read_sample(content: memoryview, shard: str, position: int) -> Sample:
    """Return the members of a sample.

    Args:
        content: The sample's bytes in a shard, with tar headers and padding.
        shard: Name of the shard in messages.
        position: Where in the shard they begin.

    Raises:
        InputError: If the bytes aren't tar members.
    """
    sample: Sample = {}
    for path, begin, end in _plain_members(content) or _any_members(content, shard, position):
        if (parts := split_key(path)) is None:
            continue
        sample[parts[1]] = bytes(content[begin:end])
        sample[KEY] = parts[0]  # last: a member may have this extension
    return sample


def _plain_members(content: memoryview) -> list[tuple[str, int, int]] | None:
    """Return path, begin and end of each member, or None if one isn't a plain ustar file with a short name."""
    members, at = [], 0
    while at + BLOCK_BYTES <= len(content):
        block = bytes(content[at : at + BLOCK_BYTES])
        name, digits = block[:100].rstrip(b"\0"), block[124:136].rstrip(b"\0 ")
        is_plain = block[156:157] in _PLAIN and not block[345] and name.isascii() and _is_octal(digits)
        is_plain = is_plain and _may_have_checksum(block)
        is_plain = is_plain and not (b"\0" in name or b"//" in name or b"/." in name)  # else it must be normalized
        if not is_plain or name[-1:] in (b"", b"/") or block[257:262] != b"ustar" or block[0] in b"./":
            return None
        if is_litter(name.decode()):
            return None
        begin = at + BLOCK_BYTES
        end = begin + int(digits, 8)
        if end > len(content):
            return None
        members.append((name.decode(), begin, end))
        at = end + -end % BLOCK_BYTES
    return members


def _is_octal(digits: bytes) -> bool:
    return bool(digits) and not digits.strip(b"01234567")


def _may_have_checksum(block: bytes) -> bool:
    """Return whether a header's checksum is right modulo 255, which takes a tenth of the time of the sum.

    That number is the same for the sum of bytes and for the number that they make: 256 is 1 modulo 255.
    """
    stated = block[148:156]
    digits = stated.strip(b"\0 ")
    if not _is_octal(digits):
        return False
    return (int.from_bytes(block, "big") - int.from_bytes(stated, "big") + _BLANK_CHECKSUM - int(digits, 8)) % 255 == 0


def _any_members(content: memoryview, shard: str, position: int) -> list[tuple[str, int, int]]:
    members = read_members(_Cursor(content, position), shard, ReadMeter(shard, _LIMITS))
    return [(one.path, one.location - position, one.location - position + one.bytes) for one in members]


def member_at(folder: ShardFolder, shard: str, begin: int, end: int) -> str:
    """Return the path of the member whose header begins at a position of a shard.

    Raises:
        InputError: If there is no header, or the shard can't be read.
    """
    try:
        content = folder.read(shard, begin, min(end, begin + _HEADER_BYTES))
    except ShortShardError as error:
        content = error.content
    for member in read_members(_Cursor(content, begin), shard, ReadMeter(shard, _LIMITS)):
        if split_key(member.path):
            return member.path
    raise InputError(f"{shard} has no member at byte {begin:,}", next_step=CREATE_AGAIN)


class _Cursor:
    """A position in a shard of which a sample's bytes are there, followed by the end of an archive.

    See `larder.sources.tar_headers.TarCursor`.
    """

    def __init__(self, content: memoryview, position: int) -> None:
        self._content, self._first, self.position = content, position, position

    def take(self, length: int) -> bytes:
        """Read the next `length` bytes."""
        begin = self.position - self._first
        end = begin + length
        taken = bytes(self._content[begin:end])
        if len(taken) < length and end <= len(self._content) + len(END):
            taken = taken.ljust(length, b"\0")
        self.position += len(taken)
        return taken

    def skip_to(self, position: int) -> None:
        """Move forward to `position`."""
        self.position = position
