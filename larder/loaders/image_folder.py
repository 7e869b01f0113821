"""Read image files in class folders with torchvision's ImageFolder and PyTorch's DataLoader, on any file system.

Training scripts that follow torchvision's examples read like this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from larder.contract import Artifact, Manifest, find_manifest, read_index
from larder.errors import InputError
from larder.loaders.dataloader import MapStyleLoader
from larder.loaders.failures import UnreadableImageError
from larder.loaders.hints import CREATE_AGAIN, CREATE_FIRST, REMOVE_SURPLUS
from larder.loaders.image_table import ImageTable
from larder.loaders.loader import check_manifest, requires_extras
from larder.progress import NullReporter, Reporter

if TYPE_CHECKING:
    from PIL import Image
    from torchvision.datasets import ImageFolder

    from larder.loaders.loader import Transform


class ImageFolderLoader(MapStyleLoader):
    """Load the files `<folder>/<split>/<class>/*.jpg` from a disk or a mount.

    The constructor lists the folder once; it must contain as many images as its manifest says. Labels are those of the
    manifest, even if a split lacks a class. Each epoch is a permutation of all images, determined by `seed`.

    Args:
        folder: The dataset's folder.
        split: The split to read, such as "training".
        batch_size: Images per batch.
        workers: Processes that read and decode; 0 uses the calling process, None starts one per available core.
        seed: Seed of the shuffle.
        transform: Function from an RGB image to float32 [3, 224, 224]; None is the reference preprocessing.
        check_digests: Whether to check each image's sha256 against the index before decoding. See Loader.
        artifact: The artifact that the manifest must describe: "tree" for a folder on a disk, "objects" for a mounted
            bucket.
        reporter: Receives progress while the folder is listed; None reports nothing.

    Raises:
        ConfigurationError: If there is no such split.
        InputError: If the folder doesn't match its manifest.

    Example:
        with ImageFolderLoader("/mnt/photos", "training", batch_size=64) as loader:
            for images, labels in loader:  # float32 [64, 3, 224, 224], int64 [64]
                print(images.mean(), loader.classes[labels[0]])
    """

    @requires_extras("torch")
    def __init__(
        self,
        folder: Path | str,
        split: str,
        *,
        batch_size: int = 64,
        workers: int | None = None,
        seed: int = 0,
        transform: Transform | None = None,
        check_digests: bool = True,
        artifact: Artifact = "tree",
        reporter: Reporter | None = None,
    ) -> None:
        folder = Path(folder)
        manifest = check_manifest(find_manifest(folder), artifact, split, str(folder))
        samples = manifest.splits[split].samples
        import torchvision  # noqa: F401  (takes seconds, which are not the listing's)

        reporter, table = reporter or NullReporter(), None
        if check_digests:
            with reporter.task("reading the index", samples, "images") as task:
                table = ImageTable(read_index(folder, manifest), split, task.advance)
        with reporter.task(f"listing {split}", samples, "images") as task:
            dataset = list_images(folder, split, len(manifest.classes), transform, table, task.advance)
        if len(dataset) != samples:
            raise _count_error(folder, split, manifest, dataset)
        super().__init__(
            dataset, manifest, split, batch_size=batch_size, workers=workers, seed=seed, transform=transform
        )


class ImageOpener:
    """Image opener for ImageFolder: check the digest of a file below `folder` against the table, then decode it."""

    def __init__(self, folder: Path, table: ImageTable | None) -> None:
        from larder.loaders.preprocessing import decode

        self._start, self._table, self._decode = f"{folder}/", table, decode

    def __call__(self, path: str) -> Image.Image:
        """Return the image as RGB. Raise UnreadableImageError if it can't be read."""
        if self._table is None:
            return self._decode(path)
        number = self._table.find(path.removeprefix(self._start))
        if number is None:
            raise UnreadableImageError(f"{ascii(path)[1:-1]} is not in the dataset's index")
        return self._decode(path, sha256=self._table.sha256(number))


def list_images(
    folder: Path,
    split: str,
    classes: int,
    transform: Transform | None,
    table: ImageTable | None,
    advance: Callable[[], None],
) -> ImageFolder:
    """Return an ImageFolder over a split, with the labels of a dataset's manifest.

    Args:
        folder: The dataset's folder.
        split: The split to list, such as "training".
        classes: Number of classes in the manifest.
        transform: Function from an RGB image to float32 [3, 224, 224]; None is the reference preprocessing.
        table: Digests to compare before decoding; None skips the comparison.
        advance: Called for each image.

    Raises:
        InputError: If the folder is missing or has no class folders.
    """
    from torchvision.datasets.folder import is_image_file

    from larder.loaders.labelled_folder import LabelledImageFolder
    from larder.loaders.preprocessing import reference_transform

    def is_image(path: str) -> bool:
        valid: bool = is_image_file(path)
        if valid:
            advance()
        return valid

    try:
        return LabelledImageFolder(
            folder / split,
            classes,
            transform=transform or reference_transform(),
            loader=ImageOpener(folder, table),
            is_valid_file=is_image,
        )
    except FileNotFoundError as error:  # no such folder, or no class folder in it
        raise InputError(f"{folder / split} holds no images: {error}", next_step=CREATE_FIRST) from error


def _count_error(folder: Path, split: str, manifest: Manifest, dataset: ImageFolder) -> InputError:
    listed = {path for path, _ in dataset.samples}
    expected = (entry.path for entry in read_index(folder, manifest) if entry.path.startswith(f"{split}/"))
    missing = next((path for path in expected if str(folder / path) not in listed), None)
    return InputError(
        f"{folder / split} holds {len(dataset):,} images, and its manifest says {manifest.splits[split].samples:,}"
        + (f"; {missing} is missing" if missing else ""),
        next_step=CREATE_AGAIN if missing else REMOVE_SURPLUS,
    )
