"""Batches are normalized as torchvision does it, in any memory format."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("torchvision")

import torch
from torchvision import transforms

from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD
from larder.stream import normalize

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", [(4, 3, 20, 30), (1, 3, 1, 1), (0, 3, 8, 8)], ids=str)
def test_pixels_and_memory_format(shape, memory_format):
    images = torch.randint(0, 256, shape, dtype=torch.uint8).contiguous(memory_format=FORMATS[memory_format])
    before = images.clone()
    found = normalize(images)
    assert found.is_contiguous(memory_format=FORMATS[memory_format])
    expected = transforms.functional.normalize(images.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(images, before)


def test_both_memory_formats_give_the_same_bits():
    images = torch.randint(0, 256, (4, 3, 20, 30), dtype=torch.uint8)
    other = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalize(images), normalize(other))
    assert torch.equal(normalize(images, dtype=torch.bfloat16), normalize(other, dtype=torch.bfloat16))


def test_floats_are_left_as_they_are():
    images = torch.full((1, 3, 4, 4), 255.0)
    normalize(images)
    assert images.min() == 255
