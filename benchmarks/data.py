"""Make the archives for the benchmarks, once."""

from __future__ import annotations

import io
import itertools
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from benchmarks.harness import WORK, CannotRunError, run_stage_on_volume
from larder import sample
from larder.sample import picture
from larder.sample.scene import paint

FOOD11_IMAGES = sample.IMAGES
FEW_IMAGES = 4000
"""So few that the start of processes matters."""
SIDE = 512
"""Of square photos, in pixels."""
_QUALITY, _SEED, _PAINTED = 55, 1, 2000
_MAX_SIDE = 700


def photos(images: int = FOOD11_IMAGES) -> Path:
    """Return a zip of generated images. For Food-11's number of images, LARDER_SOURCE may name another zip."""
    given = os.environ.get("LARDER_SOURCE", "")
    if given and given != sample.NAME and images == FOOD11_IMAGES:
        if not Path(given).is_file():
            raise CannotRunError(f"LARDER_SOURCE={given} is no file; benchmarks need a local zip")
        return Path(given).resolve()
    path = WORK / f"sample-{images}-v{sample.GENERATOR_VERSION}.zip"
    if not path.exists():
        volume = WORK / "sample"
        volume.mkdir(parents=True, exist_ok=True)
        print(f"making {path} (once)", flush=True)
        run_stage_on_volume("extract", volume, "--source", "sample", "--sample-images", str(images))
        _zip(path, {image.path: volume / "raw" / image.path for image in sample.plan_images(images)})
    return path


def square_photos(images: int) -> Path:
    """Return a zip of generated images of 512 x 512 pixels and about 41 KB each, as photographs have.

    2,000 are painted; the others are copies, each with another comment.
    """
    path = WORK / f"square-{images}-v{sample.GENERATOR_VERSION}.zip"
    if not path.exists():
        print(f"making {path} (once)", flush=True)
        WORK.mkdir(parents=True, exist_ok=True)
        _write_copies(path, images, SIDE, _PAINTED)
    return path


def square_photo(image: sample.SampleImage, side: int = SIDE) -> bytes:
    """Return a square picture of the sample as JPEG; of about 41 KB, with 512 pixels on each side."""
    part = side if side <= _MAX_SIDE else -(-side // 2)  # the generator's textures are no larger
    painted = paint(picture._random(_SEED, image, 1), image.label, part, part, picture._textures(_SEED))
    if part < side:
        quarter, painted = painted, Image.new("RGB", (side, side))
        for at in range(4):
            painted.paste(quarter, (at % 2 * part, at // 2 * part))
    stream = io.BytesIO()
    painted.save(stream, "JPEG", quality=_QUALITY, subsampling="4:2:0")
    return stream.getvalue()


def sized_photos(images: int, side: int, painted: int) -> Path:
    """Return a zip of generated images with the density of photographs: 0.16 bytes for each pixel.

    Args:
        images: Number of images.
        side: Of each square image, in pixels.
        painted: How many are painted; the others are copies, each with another comment.
    """
    path = WORK / f"sized-{images}-{side}-{painted}-v{sample.GENERATOR_VERSION}.zip"
    if not path.exists():
        print(f"making {path} (once)", flush=True)
        WORK.mkdir(parents=True, exist_ok=True)
        _write_copies(path, images, side, painted)
    return path


def _write_copies(path: Path, images: int, side: int, painted: int) -> None:
    with zipfile.ZipFile(path.with_suffix(".part"), "w") as archive:
        originals = [square_photo(image, side) for image in itertools.islice(sample.plan_images(images), painted)]
        for number, image in enumerate(sample.plan_images(images)):
            archive.writestr(image.path, _with_comment(originals[number % painted], number))
    path.with_suffix(".part").rename(path)


def tiny(images: int) -> Path:
    """Return a zip of tiny images, with Food-11's layout."""
    path = WORK / f"tiny-{images}.zip"
    if not path.exists():
        print(f"making {path} (once)", flush=True)
        WORK.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(path.with_suffix(".part"), "w") as archive:
            for name, content in tiny_images(images):
                archive.writestr(name, content)
        path.with_suffix(".part").rename(path)
    return path


def tiny_tar(images: int) -> Path:
    """The images of `tiny` in a tar archive."""
    path = WORK / f"tiny-{images}.tar"
    if not path.exists():
        print(f"making {path} (once)", flush=True)
        WORK.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".part").open("wb") as archive:
            for name, content in tiny_images(images):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.write(member.tobuf() + content + bytes(-len(content) % tarfile.BLOCKSIZE))
            archive.write(bytes(2 * tarfile.BLOCKSIZE))
        path.with_suffix(".part").rename(path)
    return path


def tiny_images(images: int) -> Iterator[tuple[str, bytes]]:
    """Paths as in Food-11, each with a JPEG of a few hundred bytes; no two are alike."""
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (180, 120, 60)).save(stream, "JPEG")
    for number, image in enumerate(sample.plan_images(images)):
        yield image.path, _with_comment(stream.getvalue(), number)


def _with_comment(jpeg: bytes, number: int) -> bytes:
    """Return a JPEG file with a number in a comment segment (marker FFFE), so that no two are alike."""
    return jpeg[:2] + b"\xff\xfe\x00\x0a%08d" % number + jpeg[2:]


def _zip(path: Path, files: dict[str, Path]) -> None:
    beside = path.with_suffix(".part")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in files.items():
            archive.write(file, name)
    beside.rename(path)
