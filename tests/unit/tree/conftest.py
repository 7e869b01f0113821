"""Images of every kind, as bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

Encode = Callable[..., bytes]


@pytest.fixture(scope="session")
def encode() -> Encode:
    """Encodes a picture: `encode("JPEG", mode="L", quality=50)`. The same arguments, the same bytes."""

    def encode(kind: str, mode: str = "RGB", size: tuple[int, int] = (48, 32), **options: Any) -> bytes:
        picture = Image.linear_gradient("L").resize(size)
        picture = Image.merge("RGB", [picture, picture.transpose(Image.Transpose.ROTATE_180), picture])
        stream = io.BytesIO()
        picture.convert(mode).save(stream, kind, **options)
        return stream.getvalue()

    return encode
