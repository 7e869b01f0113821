"""Tar headers, against Python's own reader."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from larder import tar

NAMES = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(st.lists(NAMES.filter(lambda part: part not in (".", "..")), min_size=1, max_size=6), st.binary(max_size=1500))
def test_what_is_written_is_read(parts: list[str], content: bytes) -> None:
    name = "/".join(parts)
    written = tar.header(name, len(content)) + content + tar.padding(len(content))
    assert len(tar.header(name, len(content))) == tar.header_bytes(name)
    assert len(written) == tar.member_bytes(name, len(content))
    with tarfile.open(fileobj=io.BytesIO(written + tar.END)) as archive:
        [member] = archive.getmembers()
        extracted = archive.extractfile(member)
        assert extracted is not None
        assert extracted.read() == content
    assert member.name.rstrip("/") == name.rstrip("/")
    assert (member.mtime, member.uid, member.gid, member.uname, member.gname, member.mode) == (0, 0, 0, "", "", 0o644)


@pytest.mark.parametrize(
    "name", ["a" * 100, "a" * 101, f"{'p' * 155}/{'n' * 100}", f"{'p' * 156}/{'n' * 100}", "ä" * 80]
)
def test_names_at_the_limits(name: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar.header(name, 0) + tar.END)) as archive:
        assert archive.getnames() == [name]


def test_a_content_that_no_header_can_tell() -> None:
    with pytest.raises(ValueError, match="8589934591"):
        tar.header("large", 8 << 30)
