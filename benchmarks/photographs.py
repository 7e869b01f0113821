"""Write an archive of real photographs, for the example of docs/benchmarking.md: `python -m benchmarks.photographs`.

The pictures come with scikit-image and scikit-learn, which larder doesn't install. Each image is a random crop of one
of them; its number is the seed, so every archive has the same images.
"""

from __future__ import annotations

import argparse
import io
import random
import zipfile
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

PICTURES = {
    "skimage/data": (
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "retina.jpg",
        "rocket.jpg",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
"""Colour photographs, by the folder in which they are installed. Each is a class."""
LONGER_SIDE, QUALITY = 512, 85
MIN_SHARE = 0.55
"""The least share of each side that a crop keeps."""


def write_archive(path: Path, images: int) -> None:
    """Write a zip file with a folder for each picture.

    Args:
        path: The archive; one in its place is replaced.
        images: Number of images, all pictures together.
    """
    pictures = {
        Path(name).stem: Image.open(find_folder(folder) / name).convert("RGB")
        for folder, names in PICTURES.items()
        for name in names
    }
    names = sorted(pictures)
    new = path.with_name(f"{path.name}.new")
    with zipfile.ZipFile(new, "w") as archive:
        for number in range(images):
            name = names[number % len(names)]
            entry = zipfile.ZipInfo(f"photographs/{name}/{number:06d}.jpg")
            archive.writestr(entry, cropped(pictures[name], random.Random(number)))
    new.replace(path)


def find_folder(folder: str) -> Path:
    """Return where a folder of an installed package is, without importing the package."""
    package, _, below = folder.partition("/")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit("the pictures are missing: pip install scikit-image scikit-learn")
    return Path(spec.origin).parent / below


def cropped(picture: Image.Image, chance: random.Random) -> bytes:
    """Return a JPEG file: a random part of a picture, at most LONGER_SIDE pixels on its longer side."""
    width, height = (round(side * chance.uniform(MIN_SHARE, 1)) for side in picture.size)
    left, top = chance.randint(0, picture.width - width), chance.randint(0, picture.height - height)
    part = picture.crop((left, top, left + width, top + height))
    factor = LONGER_SIDE / max(part.size)
    sides = (round(part.width * factor), round(part.height * factor))
    stream = io.BytesIO()
    part.resize(sides, Image.Resampling.LANCZOS).save(stream, "JPEG", quality=QUALITY)
    return stream.getvalue()


def main() -> None:
    """Write the archive."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photographs", description=__doc__)
    parser.add_argument("archive", type=Path, help="the zip file to write")
    parser.add_argument("--images", type=int, default=4000, help="number of images (default: %(default)s)")
    words = parser.parse_args()
    write_archive(words.archive, words.images)


if __name__ == "__main__":
    main()
