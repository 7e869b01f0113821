"""The crop box of the arm simplejpeg_local is that of Resize(256) and CenterCrop(224)."""

from __future__ import annotations

import pytest

from larder.bench.arms.simplejpeg_local import _crop_box


@pytest.mark.parametrize(
    ("width", "height", "box"),
    [
        (256, 256, (16, 16, 224, 224)),
        (512, 512, (32, 32, 448, 448)),
        (512, 256, (144, 16, 224, 224)),
        (256, 301, (16, 38, 224, 224)),
    ],
    ids=["as it is", "twice as large", "landscape", "portrait, with a corner of 38.5"],
)
def test_it_is_in_the_pixels_of_the_image(width: int, height: int, box: tuple[float, ...]) -> None:
    assert _crop_box(width, height) == pytest.approx(box)
