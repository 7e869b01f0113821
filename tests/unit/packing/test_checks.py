"""Reading a pack back."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from larder.errors import StorageError
from larder.packing.pack_checker import PackChecker
from larder.packing.pack_input import FolderInput


@pytest.mark.exhaustive
def test_a_piece_larger_than_one_read_gives(tmp_path: Path) -> None:
    """Linux reads at most 2 GiB minus a page at a time (read(2)). The file is one hole, so it takes no disk."""
    piece = bytes(1 << 31)
    with (tmp_path / "pack").open("w+b", buffering=0) as file, PackChecker(FolderInput(str(tmp_path)), file) as checks:
        file.truncate(len(piece))
        checks.check_written(0, piece)
        assert checks.digest() == hashlib.sha256(piece).hexdigest()


def test_other_bytes_anywhere(tmp_path: Path) -> None:
    piece = bytes(40 << 20)
    with (tmp_path / "pack").open("w+b", buffering=0) as file, PackChecker(FolderInput(str(tmp_path)), file) as checks:
        file.truncate(len(piece))
        file.seek(len(piece) - 1)
        file.write(b"x")
        checks.check_written(0, piece)
        with pytest.raises(StorageError, match="doesn't hold what was written"):
            checks.digest()
