"""A feed by torchvision's ImageFolder over a folder of class folders, on whatever file system it lies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from larder.contract import Artifact, Manifest, find_manifest, read_index
from larder.errors import InputError
from larder.progress import Reporter
from services.bench.feed import Feed, Network
from services.bench.inputs import check_manifest, mend
from services.bench.received import interface_bytes
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder


@contextmanager
def open_imagefolder(
    folder: Path, artifact: Artifact, made_by: str, settings: BenchSettings, reporter: Reporter,
    network: Callable[[], Network | None] = lambda: None, received: Callable[[], int] = interface_bytes,
) -> Iterator[Feed]:  # fmt: skip
    """A feed over `<folder>/<split>/class_XX/*.jpg`; `made_by` is the command that makes it.

    Raises InputError when that is not what the manifest says, ConfigurationError when there is no such split.
    """
    manifest = check_manifest(find_manifest(folder), artifact, settings, str(folder), made_by)
    samples = manifest.splits[settings.split].samples
    import torchvision  # noqa: F401  (takes seconds, which are not the listing's)

    with reporter.task(f"listing {settings.split}", samples, "images") as task:
        dataset = list_images(folder / settings.split, made_by, task.advance)
    if len(dataset) != samples:
        raise _not_as_listed(folder, settings.split, manifest, dataset, made_by)

    from services.bench.dataloader import open_dataloader

    with open_dataloader(manifest, dataset, samples, settings, made_by, network, received) as feed:
        yield feed


def list_images(folder: Path, made_by: str, advance: Callable[[], None]) -> ImageFolder:
    """ImageFolder over `folder` with the reference recipe; `advance` is called for each image that it finds.

    Raises InputError when the folder isn't there.
    """
    from torchvision.datasets import ImageFolder
    from torchvision.datasets.folder import is_image_file

    from services.bench import recipe

    def is_image(path: str) -> bool:
        found: bool = is_image_file(path)
        if found:
            advance()
        return found

    try:
        return ImageFolder(
            str(folder), recipe.transform(), loader=recipe.decode, is_valid_file=is_image, allow_empty=True
        )
    except FileNotFoundError as error:  # no such folder, or no class folder in it
        raise InputError(f"{folder} holds no images: {error}", next_step=f"run `{made_by}`") from error


def _not_as_listed(folder: Path, split: str, manifest: Manifest, dataset: ImageFolder, made_by: str) -> InputError:
    found = {path for path, _ in dataset.samples}
    wanted = (entry.path for entry in read_index(folder, manifest) if entry.path.startswith(f"{split}/"))
    missing = next((path for path in wanted if str(folder / path) not in found), None)
    return InputError(
        f"{folder / split} holds {len(dataset):,} images, and its manifest says {manifest.splits[split].samples:,}"
        + (f"; {missing} is missing" if missing else ""),
        next_step=mend(made_by) if missing else f"remove what is there beside what `{made_by}` made",
    )
