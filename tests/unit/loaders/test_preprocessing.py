"""Decoding and the reference preprocessing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from larder.loaders import failures


def test_is_what_torchvision_evaluates_imagenet_models_with() -> None:
    import torch
    from PIL import Image
    from torchvision.models import ResNet50_Weights

    from larder.loaders import preprocessing

    noise = Image.effect_noise((500, 375), 80).convert("RGB")
    ours = preprocessing.reference_transform()(noise)
    assert (tuple(ours.shape), ours.dtype) == ((3, 224, 224), torch.float32)
    torch.testing.assert_close(ours, ResNet50_Weights.IMAGENET1K_V1.transforms()(noise))


def test_decodes_gray_images_as_rgb(tmp_path: Path) -> None:
    from PIL import Image

    from larder.loaders import preprocessing

    Image.new("L", (300, 300), 90).save(tmp_path / "gray.jpg")
    assert preprocessing.decode(str(tmp_path / "gray.jpg")).mode == "RGB"


def test_decodes_bytes_as_it_decodes_files(tmp_path: Path) -> None:
    from PIL import Image

    from larder.loaders import preprocessing

    path = tmp_path / "noise.jpg"
    Image.effect_noise((301, 299), 80).convert("RGB").save(path)
    assert preprocessing.decode(path.read_bytes()).tobytes() == preprocessing.decode(str(path)).tobytes()


def test_an_error_says_whether_a_file_is_unreadable_damaged_or_gone(tmp_path: Path) -> None:
    from larder.loaders import preprocessing

    (tmp_path / "text.jpg").write_text("no image")
    damaged = (tmp_path / "text.jpg", tmp_path / "absent.jpg")
    for path, kind in [(path, failures.UnreadableImageError) for path in damaged] + [
        ("/proc/self/mem", failures.UnreadableFileError)  # its first page gives EIO
    ]:
        with pytest.raises(failures.UnreadableImageError) as caught:
            preprocessing.decode(str(path))
        assert caught.type is kind, path
    with pytest.raises(failures.UnreadableImageError, match=r"^training/a\.jpg can't be read: UnidentifiedImageError"):
        preprocessing.decode(b"no image", "training/a.jpg")


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "absent"])
def test_an_unreadable_image_is_named(tmp_path: Path, kind: str) -> None:
    from PIL import Image

    from larder.loaders import preprocessing

    buffer = io.BytesIO()
    Image.effect_noise((300, 300), 80).save(buffer, "JPEG")
    content = {"text": b"no image", "empty": b"", "truncated": buffer.getvalue()[:2000]}.get(kind)
    path = tmp_path / "a.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(failures.UnreadableImageError, match=r"a\.jpg can't be read: \w+"):
        preprocessing.decode(str(path))
