"""Cut a sample's bytes in a shard into its members."""

from __future__ import annotations

from larder.errors import InputError
from larder.loaders.hints import CREATE_AGAIN
from larder.sources.limits import ReadMeter, SourceLimits
from larder.sources.members import is_litter
from larder.sources.tar_headers import read_members
from larder.stream.sample_tables import split_key
from larder.stream.shard_folders import ShardFolder
from larder.tar import BLOCK_BYTES, END

Sample = dict[str, str | bytes]
"""Contents of a sample's members by extension, and its key as "__key__"."""
KEY = "__key__"
_HEADER_BYTES = 64 << 10
_LIMITS = SourceLimits(max_files=10_000, max_bytes=1 << 34)
_PLAIN = (b"0", b"\0")


def read_sample(content: memoryview, shard: str) -> Sample:
    """Return the members of a sample.

    Args:
        content: The sample's bytes in a shard, with tar headers and padding.
        shard: Name of the shard in messages.

    Raises:
        InputError: If the bytes aren't tar members.
    """
    sample: Sample = {}
    for path, begin, end in _plain_members(content) or _any_members(content, shard):
        key, extension = split_key(path)
        sample[extension] = bytes(content[begin:end])
        sample[KEY] = key  # last: a member may have this extension
    return sample


def _plain_members(content: memoryview) -> list[tuple[str, int, int]] | None:
    """Return path, begin and end of each member, or None if one isn't a plain ustar file with a short name."""
    members, at = [], 0
    while at + BLOCK_BYTES <= len(content):
        block = bytes(content[at : at + BLOCK_BYTES])
        name, digits = block[:100].rstrip(b"\0"), block[124:136].rstrip(b"\0 ")
        is_plain = block[156:157] in _PLAIN and not block[345] and name.isascii() and _is_octal(digits)
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


def _any_members(content: memoryview, shard: str) -> list[tuple[str, int, int]]:
    meter = ReadMeter(shard, _LIMITS)
    members = read_members(_Cursor(content), shard, meter)
    return [(member.path, member.location, member.location + member.bytes) for member in members]


def member_at(folder: ShardFolder, shard: str, begin: int, end: int) -> str:
    """Return the path of the member whose header begins at a position of a shard.

    Raises:
        InputError: If there is no header, or the shard can't be read.
    """
    content = folder.read(shard, begin, min(end, begin + _HEADER_BYTES))
    for member in read_members(_Cursor(content), shard, ReadMeter(shard, _LIMITS)):
        return member.path
    raise InputError(f"{shard} has no member at byte {begin:,}", next_step=CREATE_AGAIN)


class _Cursor:
    """A position in a sample's bytes, followed by the end of an archive; see `larder.sources.tar_headers.TarCursor`."""

    def __init__(self, content: memoryview) -> None:
        self._content, self.position = content, 0

    def take(self, length: int) -> bytes:
        """Read the next `length` bytes."""
        begin, end = self.position, self.position + length
        taken = bytes(self._content[begin:end])
        if len(taken) < length and end <= len(self._content) + len(END):
            taken = taken.ljust(length, b"\0")
        self.position = begin + len(taken)
        return taken

    def skip_to(self, position: int) -> None:
        """Move forward to `position`."""
        self.position = position
