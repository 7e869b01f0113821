"""LitData's index of chunks: whatever is accepted as larder's own form has that form."""

from __future__ import annotations

import json
from pathlib import Path

from larder import chunks
from services.verify.formats import PACK_FORMATS
from tests import hostile
from tests.fuzz.mutations import mutated

LENGTHS = {"chunk-0-0.bin": (1000, 3), "chunk-0-1.bin": (2000, 4)}
SEEDS = [
    hostile.litdata_index(LENGTHS),
    *(attack(hostile.litdata_index(LENGTHS))[:5000] for attack in hostile.CHUNK_INDEXES.values()),
]


def target(data: bytes, folder: Path) -> None:
    """Parse it, and verify it."""
    try:
        parsed = chunks.parse(data)
    except ValueError as fault:
        assert len(str(fault)) < 500
    else:
        index = json.loads(data)
        assert index["config"]["data_format"] == ["bytes", "int"]
        assert index["config"]["data_spec"] == chunks.SPEC
        assert index["config"]["compression"] is index["config"]["encryption"] is None
        assert all(chunks.CHUNK_NAME.fullmatch(name) and size.samples < size.bytes for name, size in parsed.items())
    PACK_FORMATS["litdata"].check_extra_file(data, {name: chunks.Extent(*size) for name, size in LENGTHS.items()})


fuzz = mutated(SEEDS, target)
