"""torchvision's ImageFolder over the tree on local disk, by PyTorch's DataLoader.

The baseline: what a training script does that follows torchvision's own examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from larder.contract import Manifest, first_missing, read_manifest
from larder.errors import ConfigurationError, InputError
from larder.progress import Reporter
from services.bench.feed import Feed
from services.bench.settings import BenchSettings

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

MADE_BY = "make etl-local"


@contextmanager
def open_feed(settings: BenchSettings, reporter: Reporter) -> Iterator[Feed]:
    """A feed over `<data_dir>/<split>/class_XX/*.jpg`.

    Raises InputError when that is not what the manifest says, ConfigurationError when there is no such split.
    """
    manifest = read_tree(settings.data_dir, settings.split)
    samples = manifest.splits[settings.split].samples
    import torchvision  # noqa: F401  (takes seconds, which are not the listing's)

    with reporter.task(f"listing {settings.split}", samples, "images") as task:
        dataset = list_images(settings.data_dir / settings.split, task.advance)
    if len(dataset) != samples:
        raise _not_as_listed(settings, manifest, len(dataset))

    from services.bench.dataloader import open_dataloader

    with open_dataloader(manifest, dataset, samples, settings) as feed:
        yield feed


def read_tree(data_dir: Path, split: str) -> Manifest:
    """The manifest of the tree at `data_dir`, which must have the split."""
    manifest = read_manifest(data_dir, made_by=MADE_BY)
    if manifest.artifact != "tree":
        raise InputError(
            f"{data_dir} holds {manifest.artifact!r} data; this arm reads a tree of class folders",
            next_step=f"set FOOD11_DATA_DIR to the folder that `{MADE_BY}` made",
        )
    if split not in manifest.splits:
        raise ConfigurationError(
            f"FOOD11_SPLIT={split!r}: {data_dir} has no such split",
            next_step=f"set it to one of: {', '.join(sorted(manifest.splits))}",
        )
    return manifest


def list_images(folder: Path, advance: Callable[[], None]) -> ImageFolder:
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
        raise InputError(f"{folder} holds no images: {error}", next_step=f"run `{MADE_BY}`") from error


def _not_as_listed(settings: BenchSettings, manifest: Manifest, found: int) -> InputError:
    missing = first_missing(settings.data_dir, manifest)
    example = f"; {missing} is missing or has another length" if missing else ""
    return InputError(
        f"{settings.data_dir / settings.split} holds {found:,} images, "
        f"and its manifest says {manifest.splits[settings.split].samples:,}{example}",
        next_step=f"run `{MADE_BY} LARDER_FORCE=true`, which makes the tree anew",
    )
