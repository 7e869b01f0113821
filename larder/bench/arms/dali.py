"""NVIDIA DALI over the tree on local disk: its pipeline on the CPU, with an iterator for PyTorch.

Its pixels differ from PIL's by some levels, since it decodes and resizes differently.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from larder.bench.arm_errors import map_arm_errors
from larder.bench.arms import ARMS
from larder.bench.measured_loader import MeasuredLoader
from larder.bench.peers import EpochLoader, find_files
from larder.bench.settings import LoaderSettings
from larder.imagenet import IMAGENET_MEAN, IMAGENET_STD
from larder.next_step import CREATED_BY
from larder.progress import Reporter

if TYPE_CHECKING:
    from larder.loaders.loader import Batch

_PREPROCESSING = "DALI's decoder, resize of the shorter side to 256, crop of 224, ImageNet normalization"


@contextmanager
def open_loader(settings: LoaderSettings, reporter: Reporter) -> Iterator[MeasuredLoader]:
    """Open the loader of `<data_dir>/<split>/class_XX/*.jpg`. Raises what `find_files` raises."""
    import nvidia.dali.plugin.pytorch  # noqa: F401  # imported before the first epoch, as in a training script

    with map_arm_errors(type(settings), CREATED_BY["tree"]):
        folder, manifest, table = find_files(settings, reporter)
        files = [str(folder / table.path(number)) for number in range(len(table))]
        labels = [table.label(number) for number in range(len(table))]
        reader = f"readers.file and decoders.image of DALI {version('nvidia-dali-cuda120')}, on the CPU"

        def open_epoch(epoch: int) -> Generator[Batch, None, None]:
            return _read_epoch(files, labels, settings, epoch)

        yield MeasuredLoader(EpochLoader(manifest, settings, reader, open_epoch, _PREPROCESSING), lambda: None)


def _read_epoch(
    files: list[str], labels: list[int], settings: LoaderSettings, epoch: int
) -> Generator[Batch, None, None]:
    from nvidia.dali.plugin.base_iterator import LastBatchPolicy
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    pipeline = make_pipeline(files, labels, settings, epoch)
    batches = DALIGenericIterator(
        [pipeline], ["images", "labels"], reader_name="reader", last_batch_policy=LastBatchPolicy.PARTIAL
    )
    for [batch] in batches:
        yield batch["images"], batch["labels"].squeeze(1).long()


def make_pipeline(files: list[str], labels: list[int], settings: LoaderSettings, epoch: int) -> Any:
    """Return the pipeline that decodes, resizes and normalizes files."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(
        batch_size=settings.batch_size,
        num_threads=max(settings.workers, 1),
        device_id=None,
        seed=settings.seed + epoch,
        **ARMS["dali"].options,
    )  # type: ignore[untyped-decorator]
    def pipeline() -> Any:
        encoded, label = fn.readers.file(files=files, labels=labels, random_shuffle=True, name="reader")
        images = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        images = fn.resize(images, resize_shorter=256, interp_type=types.INTERP_LINEAR)
        images = fn.crop_mirror_normalize(
            images,
            crop=(224, 224),
            dtype=types.FLOAT,
            output_layout="CHW",
            mean=[255 * value for value in IMAGENET_MEAN],
            std=[255 * value for value in IMAGENET_STD],
        )
        return images, label

    return pipeline()
