"""Check that the store can be written, before there is anything to load."""

from __future__ import annotations

from larder.artifacts import find_on_volume, require_dataset_name
from larder.bucket import BucketPrefix
from larder.contract import MANIFEST, find_manifest
from larder.dataset import LAYOUTS, folder_of
from larder.progress import Reporter
from larder.stage import StageOutcome
from services.load.compare import require_same_dataset
from services.load.job import PROBE
from services.load.settings import LoadSettings


def check_reachable(settings: LoadSettings, reporter: Reporter) -> StageOutcome:
    """Check that the store answers, accepts the keys, has the bucket, and allows reads and writes.

    If the volume holds the tree that is about to be packed, also check that the target folder in the store holds no
    other dataset.

    Raises ConfigurationError or ServiceError, with the next step.
    """
    packed = settings.folder in LAYOUTS and settings.folder != "tree" and not settings.input
    folder = find_on_volume(settings.volume, "tree", settings.dataset, reporter) if packed else ""
    tree = find_manifest(settings.volume / folder) if folder else None
    if tree is None:
        remote = BucketPrefix(settings, with_folder(settings, reporter).folder)
        remote.read(MANIFEST)
    else:
        name = settings.dataset or require_dataset_name(tree, folder)
        [layout] = [layout for layout in LAYOUTS if layout == settings.folder]  # the folder, typed as a layout
        remote = BucketPrefix(settings, folder_of(name, layout))
        if not settings.force:
            require_same_dataset(remote.find_manifest(), tree, remote.uri)
    remote.write(PROBE, b"larder")
    remote.delete([PROBE])
    return StageOutcome(f"{remote.uri} can be written", "")


def with_folder(settings: LoadSettings, reporter: Reporter) -> LoadSettings:
    """Replace the name of a layout in the settings by the name of its folder."""
    layout = next((layout for layout in LAYOUTS if layout == settings.folder), None)
    if layout is None:
        return settings
    folder = find_on_volume(settings.volume, layout, settings.dataset, reporter)
    return settings.model_copy(update={"folder": folder})
