"""Reads image files in class folders by torchvision's ImageFolder and PyTorch's DataLoader, on whatever file system.

What a training script does that follows torchvision's own examples.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from larder.contract import Artifact, Manifest, find_manifest, read_index
from larder.errors import InputError
from larder.loaders.dataloader import MapStyleLoader
from larder.loaders.failures import UnreadableImageError
from larder.loaders.image_table import ImageTable
from larder.loaders.loader import check_manifest, needs
from larder.loaders.remedies import ABSENT, RENEW, SURPLUS
from larder.progress import Reporter, Silent

if TYPE_CHECKING:
    from PIL import Image
    from torchvision.datasets import ImageFolder

    from larder.loaders.loader import Transform


class ImageFolderLoader(MapStyleLoader):
    """Reads the files `<folder>/<split>/<class>/*.jpg`, on a disk or on a mount.

    The folder is listed once, when the loader is made, and must hold as many images as its manifest says. Labels are
    those of the manifest, also where a split lacks a class. Each epoch is a permutation of all images, the same for the
    same seed.

    Args:
        folder: The data set's folder.
        split: The split to read, such as "training".
        batch_size: Images per batch.
        workers: Processes that read and decode; 0 does both in this one, None takes one per available core.
        seed: Seed of the shuffle.
        transform: From an RGB image to float32 [3, 224, 224]; None is the reference preprocessing.
        check_digests: Whether an image must have the sha256 of the index before it is decoded. See Loader.
        artifact: "tree" for a folder on a disk, "objects" for a mounted bucket: what the manifest must say.
        reporter: What is told of the listing as it goes on; by default nobody.

    Raises:
        ConfigurationError: If there is no such split.
        InputError: If the folder isn't what its manifest says.

    Example:
        with ImageFolderLoader("/mnt/photos", "training", batch_size=64) as loader:
            for images, labels in loader:  # float32 [64, 3, 224, 224], int64 [64]
                print(images.mean(), loader.classes[labels[0]])
    """

    @needs("torch")
    def __init__(
        self, folder: Path | str, split: str, *, batch_size: int = 64, workers: int | None = None, seed: int = 0,
        transform: Transform | None = None, check_digests: bool = True, artifact: Artifact = "tree",
        reporter: Reporter | None = None,
    ) -> None:  # fmt: skip
        folder = Path(folder)
        manifest = check_manifest(find_manifest(folder), artifact, split, str(folder))
        samples = manifest.splits[split].samples
        import torchvision  # noqa: F401  (takes seconds, which are not the listing's)

        reporter, table = reporter or Silent(), None
        if check_digests:
            with reporter.task("reading the index", samples, "images") as task:
                table = ImageTable(read_index(folder, manifest), split, task.advance)
        with reporter.task(f"listing {split}", samples, "images") as task:
            dataset = list_images(folder, split, len(manifest.classes), transform, table, task.advance)
        if len(dataset) != samples:
            raise _not_as_listed(folder, split, manifest, dataset)
        super().__init__(
            dataset, manifest, split, batch_size=batch_size, workers=workers, seed=seed, transform=transform
        )


class ReadImage:
    """What ImageFolder opens files with: from a path below `folder` to an image, whose bytes are those of the table."""

    def __init__(self, folder: Path, table: ImageTable | None) -> None:
        from larder.loaders.preprocessing import decode

        self._start, self._table, self._decode = f"{folder}/", table, decode

    def __call__(self, path: str) -> Image.Image:
        """The image as RGB. Raises UnreadableImageError."""
        if self._table is None:
            return self._decode(path)
        number = self._table.find(path.removeprefix(self._start))
        if number is None:
            raise UnreadableImageError(f"{ascii(path)[1:-1]} is not in the data set's index")
        return self._decode(path, sha256=self._table.sha256(number))


def list_images(
    folder: Path, split: str, classes: int, transform: Transform | None, table: ImageTable | None,
    advance: Callable[[], None],
) -> ImageFolder:  # fmt: skip
    """ImageFolder over a split in `folder`, with the labels of a data set of so many classes; `advance` is called for
    each image.

    Raises InputError when the folder isn't there.
    """
    from torchvision.datasets.folder import is_image_file

    from larder.loaders.labelled_folder import LabelledImageFolder
    from larder.loaders.preprocessing import reference_transform

    def is_image(path: str) -> bool:
        found: bool = is_image_file(path)
        if found:
            advance()
        return found

    try:
        return LabelledImageFolder(
            folder / split, classes, transform=transform or reference_transform(), loader=ReadImage(folder, table),
            is_valid_file=is_image,
        )  # fmt: skip
    except FileNotFoundError as error:  # no such folder, or no class folder in it
        raise InputError(f"{folder / split} holds no images: {error}", next_step=ABSENT) from error


def _not_as_listed(folder: Path, split: str, manifest: Manifest, dataset: ImageFolder) -> InputError:
    found = {path for path, _ in dataset.samples}
    wanted = (entry.path for entry in read_index(folder, manifest) if entry.path.startswith(f"{split}/"))
    missing = next((path for path in wanted if str(folder / path) not in found), None)
    return InputError(
        f"{folder / split} holds {len(dataset):,} images, and its manifest says {manifest.splits[split].samples:,}"
        + (f"; {missing} is missing" if missing else ""),
        next_step=RENEW if missing else SURPLUS,
    )
