import io

import numpy as np
import pytest
from PIL import Image, features

from larder.stream.decode import Decoder, apply_crop
from larder.stream.kernel import JpegKernel
from larder.stream.order import uniform_draws
from larder.stream.transforms import CenterCrop, Crop, RandomResizedCrop
from tests.unit.stream.conftest import jpeg

NO_DRAWS = np.empty(0)


@pytest.mark.parametrize(
    "size", [(640, 480), (480, 640), (500, 500), (333, 1000), (257, 256), (100, 80), (16, 16), (1, 3)]
)
def test_center_crop_is_what_torchvision_does(size):
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.open(io.BytesIO(jpeg(1, size)))
    expected = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(56)])(image)
    found = apply_crop(image, CenterCrop(64, 56).crop(*size, NO_DRAWS), 56)
    assert (np.asarray(found) == np.asarray(expected)).all()


@pytest.mark.parametrize("size", [(640, 480), (20, 300), (3, 2), (1, 1)])
def test_random_resized_crops_are_inside_and_as_distributed_as_torchvision_s(size):
    transforms = pytest.importorskip("torchvision.transforms")
    transform = RandomResizedCrop(32)
    crops = [transform.crop(*size, draws) for draws in uniform_draws(0, 0, np.arange(2000), transform.draws)]
    for crop in crops:
        assert 0 <= crop.x <= crop.x + crop.width <= size[0]
        assert 0 <= crop.y <= crop.y + crop.height <= size[1]
    image = Image.new("RGB", size)
    theirs = [transforms.RandomResizedCrop.get_params(image, transform.scale, transform.ratio) for _ in range(2000)]
    for ours, other in (("x", 1), ("y", 0), ("width", 3), ("height", 2)):
        mean = np.mean([getattr(crop, ours) for crop in crops])
        spread = np.std([crop[other] for crop in theirs])
        assert mean == pytest.approx(np.mean([crop[other] for crop in theirs]), abs=0.2 * spread + 0.01)
    assert np.mean([crop.flip for crop in crops]) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    "make",
    [
        lambda: CenterCrop(224, 256),
        lambda: CenterCrop(0, 0),
        lambda: RandomResizedCrop(0),
        lambda: RandomResizedCrop(scale=(0.5, 0.1)),
        lambda: RandomResizedCrop(ratio=(0, 1)),
        lambda: RandomResizedCrop(flip=2),
    ],
    ids=["crop-above-resize", "zero", "size", "scale", "ratio", "flip"],
)
def test_impossible_arguments(make):
    with pytest.raises(ValueError, match="must be"):
        make()


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "JPEG", {"subsampling": 0}),
        ("RGB", "JPEG", {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"}),
        ("RGB", "PNG", {}),
        ("RGBA", "PNG", {}),
        ("P", "PNG", {}),
        ("RGB", "WEBP", {}),
    ],
    ids=["jpeg", "gray", "cmyk", "progressive", "444", "exif-rotated", "png", "rgba", "palette", "webp"],
)
def test_every_kind_of_image_has_pil_s_pixels(kernel_or_none, mode, kind, options):
    image = jpeg(3, (150, 131), mode, kind, **options)
    transform = CenterCrop(64, 56)
    out = np.empty((1, 56, 56, 3), np.uint8)
    assert Decoder(transform, kernel_or_none).decode([memoryview(image)], np.empty((1, 0)), out) == [""]
    rgb = Image.open(io.BytesIO(image)).convert("RGB")
    assert (out[0] == np.asarray(apply_crop(rgb, transform.crop(150, 131, NO_DRAWS), 56))).all()


@pytest.mark.parametrize(
    ("mode", "kind", "options"),
    [
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"subsampling": 0}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "PNG", {}),
        ("RGB", "WEBP", {}),
    ],
    ids=["jpeg", "444", "gray", "cmyk", "progressive", "png", "webp"],
)
@pytest.mark.parametrize(("size", "eighths"), [((400, 270), 2), ((150, 131), 4), ((127, 131), 8), ((521, 530), 1)])
def test_fast_decoding_is_near_exact_decoding(kernel_or_none, mode, kind, options, size, eighths):
    image = jpeg(3, size, mode, kind, quality=90, **options)
    transform, found, exact = CenterCrop(64, 56), np.empty((1, 56, 56, 3), np.uint8), np.empty((1, 56, 56, 3), np.uint8)
    assert transform.crop(*size, NO_DRAWS).scaled().eighths == eighths
    assert Decoder(transform, kernel_or_none).decode([memoryview(image)], np.empty((1, 0)), exact) == [""]
    assert Decoder(transform, kernel_or_none, fast=True).decode([memoryview(image)], np.empty((1, 0)), found) == [""]
    difference = np.abs(found.astype(int) - exact)
    if kind != "JPEG" or eighths == 8:
        assert not difference.any(), "only JPEG files at least twice as large are decoded at another size"
    else:
        assert difference.any()
        assert difference.mean() < 4


def test_fast_crops_are_equal_with_and_without_the_kernel(library):
    images = [jpeg(number, (290 + 37 * number, 700 - 39 * number)) for number in range(15)]
    transform = RandomResizedCrop(40)
    draws = uniform_draws(1, 1, np.arange(len(images)), transform.draws)
    outs = [np.empty((len(images), 40, 40, 3), np.uint8) for _ in range(3)]
    for out, kernel, fast in zip(outs, (None, JpegKernel(library), None), (True, True, False), strict=True):
        decoder = Decoder(transform, kernel, fast=fast)
        assert not any(decoder.decode([memoryview(image) for image in images], draws, out))
    assert (outs[0] == outs[1]).all()
    assert (outs[0] != outs[2]).any()
    assert np.abs(outs[0].astype(int) - outs[2]).mean() < 3


@pytest.mark.parametrize(
    ("region", "resized", "eighths"),
    [
        ((512, 512), (256, 256), 4),
        ((511, 512), (256, 256), 8),
        ((1024, 700), (256, 256), 4),
        ((1024, 1030), (256, 256), 2),
        ((4096, 3000), (341, 256), 1),
        ((100, 100), (300, 300), 8),
    ],
)
def test_the_smallest_scale_that_need_not_be_enlarged(region, resized, eighths):
    assert Crop(7, 9, *region, *resized).scaled() == Crop(7, 9, *region, *resized, eighths=eighths)


def test_random_crops_have_pil_s_pixels(kernel_or_none):
    images = [jpeg(number, (90 + 7 * number, 200 - 9 * number)) for number in range(15)]
    transform = RandomResizedCrop(40)
    draws = uniform_draws(1, 1, np.arange(len(images)), transform.draws)
    out = np.empty((len(images), 40, 40, 3), np.uint8)
    assert not any(Decoder(transform, kernel_or_none).decode([memoryview(image) for image in images], draws, out))
    for image, drawn, found in zip(images, draws, out, strict=True):
        rgb = Image.open(io.BytesIO(image))
        assert (found == np.asarray(apply_crop(rgb, transform.crop(*rgb.size, drawn), 40))).all()


def test_damaged_images_are_named_and_leave_the_others_alone(kernel_or_none):
    good = jpeg(5, (150, 131))
    images = [good, b"", good[:400], b"no image", good, good[: len(good) // 2], jpeg(6, (3000, 10)), good]
    out = np.empty((len(images), 56, 56, 3), np.uint8)
    faults = Decoder(CenterCrop(64, 56), kernel_or_none).decode(
        [memoryview(image) for image in images], np.empty((len(images), 0)), out
    )
    assert [bool(fault) for fault in faults] == [False, True, True, True, False, True, True, False]
    assert "longer side" in faults[6]
    assert (out[0] == out[4]).all()
    assert (out[0] == out[7]).all()


def lossless_jpeg(side: int) -> bytes:
    """A gray image of 128 in lossless JPEG, which Pillow doesn't write: each difference is 0, and its code one bit."""
    frame = b"\xff\xc3\x00\x0b\x08" + side.to_bytes(2, "big") * 2 + b"\x01\x01\x11\x00"
    codes = b"\xff\xc4\x00\x14\x00\x01" + bytes(15) + b"\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00" + bytes(side * side // 8)
    return b"\xff\xd8" + frame + codes + scan + b"\xff\xd9"


@pytest.mark.parametrize("fast", [False, True], ids=["exact", "fast"])
def test_lossless_jpeg_is_decoded_or_named(kernel_or_none, fast):
    """libjpeg-turbo decodes it from version 3 on, and Pillow has its own."""
    out = np.zeros((1, 56, 56, 3), np.uint8)
    decoder = Decoder(CenterCrop(64, 56), kernel_or_none, fast=fast)
    [fault] = decoder.decode([memoryview(lossless_jpeg(256))], np.empty((1, 0)), out)
    if (features.version("libjpeg_turbo") or "0") >= "3":
        assert not fault
        assert (out == 128).all()
    else:
        assert fault == "OSError: broken data stream when reading image file"
