"""Find out which arms the data at hand allow, and say once what is missing for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from larder.bench.arm_errors import map_arm_errors, require_bucket
from larder.bench.arms import ARMS, IN_BUCKET, Layout, install_command, is_in_image, missing_packages, prepare_command
from larder.bench.comparison.settings import ComparisonSettings
from larder.bench.comparison_parts import LayoutData
from larder.bench.comparison_record import LeftOut
from larder.bench.layout_locations import locate_in_bucket, locate_mounted_tree, locate_tree, mount_path
from larder.bench.passes import plan_batches
from larder.bench.peer_data import LAYOUTS, PeerLayout, locate_peer_data
from larder.bench.rclone_mount import check_mount, map_mount_errors
from larder.bench.report.facts import left_out_by_reason
from larder.bench.settings import LoaderSettings
from larder.bench.wording import name_settings_in_errors
from larder.contract import Artifact, Manifest, find_manifest
from larder.dataset import ArtifactLayout
from larder.errors import InputError, LarderError, ServiceError
from larder.loaders.loader import check_manifest
from larder.next_step import CREATED_BY, StageRun
from larder.progress import Reporter
from larder.terminal import join_lines

_PEERS: dict[Layout, PeerLayout] = {layout: layout for layout in LAYOUTS}
_ARTIFACTS: dict[Layout, tuple[ArtifactLayout, Artifact]] = {
    "tree": ("tree", "tree"),
    "mount": ("tree", "objects"),
    "objects": ("tree", "objects"),
    "webdataset": ("webdataset", "webdataset"),
    "litdata": ("litdata", "litdata"),
}
_REFERENCES: tuple[Layout, ...] = ("tree", "webdataset")
_ORDER: tuple[Layout, ...] = ("tree", "objects", "mount", "webdataset", "litdata", *LAYOUTS)


class Location(NamedTuple):
    """Where a layout is, and its manifest."""

    where: str
    manifest: Manifest


class FoundData(NamedTuple):
    """What can be compared."""

    arms: list[str]
    """Arms whose data are there."""
    locations: dict[Layout, Location]
    """Layouts that these arms read."""
    left_out: list[LeftOut]
    """The other arms."""
    references: dict[Layout, str]
    """Where images for the reference and for upper bounds are, also of layouts that no arm reads."""

    @property
    def manifest(self) -> Manifest:
        """A manifest of the data."""
        return self.locations[next(layout for layout in _ORDER if layout in self.locations)].manifest

    def layouts(self) -> list[LayoutData]:
        """Describe the layouts for the record."""
        return [
            LayoutData(
                layout=layout,
                where=location.where,
                files=location.manifest.files,
                bytes=location.manifest.bytes,
                manifest_sha256=location.manifest.digest(),
            )
            for layout, location in self.locations.items()
        ]


def find_data(settings: ComparisonSettings, arms: Sequence[str], to_commands: Callable[[str], str]) -> FoundData:
    """Return the arms that the data allow.

    Args:
        settings: Where the data are.
        arms: The arms that were asked for.
        to_commands: Replaces the names of stages by commands.

    Raises:
        ConfigurationError: If the split has too few samples.
        InputError: If no arm can be measured.
        LarderError: If LARDER_SHARDS can't be read.
    """
    left_out: list[LeftOut] = []
    if settings.shards:
        others = [name for name in arms if settings.arms and ARMS[name].layout != "webdataset"]
        left_out = [LeftOut(arm=name, reason="it doesn't read tar shards", command="") for name in others]
        arms = [name for name in arms if ARMS[name].layout == "webdataset"]
    found = _locate_layouts(settings, arms)
    if settings.shards and isinstance(fault := found.get("webdataset"), LarderError):
        raise fault  # all arms read these shards, and no stage makes them
    locations = {layout: location for layout, location in found.items() if isinstance(location, Location)}
    different = _find_differences(locations, settings.split)
    reasons = {name: _reason_against(name, settings, found, different, to_commands) for name in arms}
    reasons |= _not_installed(arms, to_commands)
    left_out += [reason for reason in reasons.values() if reason is not None]
    measured = [name for name, reason in reasons.items() if reason is None]
    if not measured:
        raise InputError(
            join_lines("no arm can be compared:", *(f"  - {each}" for each in describe_left_out(left_out))),
            next_step=_next_step(settings, has_command=any(one.command for one in left_out)),
        )
    used = {ARMS[name].layout for name in measured}
    references = {
        layout: locations[layout].where for layout in _REFERENCES if layout in locations and layout not in different
    }
    used_locations = {layout: locations[layout] for layout in _ORDER if layout in used}
    data = FoundData(measured, used_locations, left_out, references)
    with name_settings_in_errors(type(settings), {}):
        plan_batches(data.manifest.splits[settings.split].samples, settings.split, settings.batch_size, 0)
    return data


def describe_left_out(left_out: Sequence[LeftOut]) -> list[str]:
    """Return why arms are left out, each reason with its command once."""
    rows = ((one.arm, one.reason, one.command) for one in left_out)
    return [f"{', '.join(arms)}: {reason}" for arms, reason in left_out_by_reason(rows)]


def _locate_layouts(settings: ComparisonSettings, arms: Sequence[str]) -> dict[Layout, Location | LarderError]:
    """Return where each layout is that the arms or the reference need, or why it can't be read.

    A store that doesn't answer is asked once, since it takes long to give up.
    """
    found: dict[Layout, Location | LarderError] = {}
    silent: ServiceError | None = None
    for layout in _ORDER:
        is_read = any(ARMS[name].layout == layout for name in arms)
        if not is_read and (layout not in _REFERENCES or settings.shards):
            continue
        if silent is not None and layout in IN_BUCKET:
            found[layout] = silent
            continue
        found[layout] = fault = _try_to_locate(layout, settings)
        if isinstance(fault, ServiceError) and layout in IN_BUCKET:
            silent = fault
    return found


def _not_installed(arms: Sequence[str], to_commands: Callable[[str], str]) -> dict[str, LeftOut]:
    """Return the arms whose libraries are missing, all with the same command unless they need one of their own."""
    missing = [name for name in arms if missing_packages(name)]
    together = [name for name in missing if not ARMS[name].environment]
    where = "not in larder's images" if is_in_image() else "not installed"
    return {
        name: LeftOut(
            arm=name,
            reason=where,
            command=_plain(to_commands(install_command(*(together if name in together else [name])))),
        )
        for name in missing
    }


def _reason_against(
    name: str,
    settings: ComparisonSettings,
    found: Mapping[Layout, Location | LarderError],
    different: Mapping[Layout, str],
    to_commands: Callable[[str], str],
) -> LeftOut | None:
    """Return why an arm can't be measured, or None if it can."""
    layout = ARMS[name].layout
    location = found[layout]
    if layout in (*IN_BUCKET, "mount") and not (settings.bucket or settings.shards):
        start = _plain(to_commands(str(StageRun("s3", "up"))))
        return LeftOut(arm=name, reason="it reads from a bucket, and S3_BUCKET is not set", command=start)
    if name != "stream" and settings.shards and not settings.shards.startswith("s3://"):
        return LeftOut(arm=name, reason="it reads shards from a bucket, and these are files", command="")
    if layout == "mount" and settings.link is not None:
        reason = "rclone has mounted the store directly, and not the distant one that LARDER_LINK_LATENCY asks for"
        return LeftOut(arm=name, reason=reason, command="")
    if isinstance(location, LarderError):
        return _explain(name, layout, location, to_commands)
    if layout in different:
        return LeftOut(arm=name, reason=different[layout], command=_plain(to_commands(_made_by(layout))))
    return None


def _next_step(settings: ComparisonSettings, *, has_command: bool) -> str:
    """Return what to do if there is no arm."""
    if settings.shards:
        readers = " or ".join(name for name, entry in ARMS.items() if entry.layout == "webdataset")
        return f"leave LARDER_ARMS empty, or name {readers} in it; only stream reads from a folder"
    first = "run one of these commands" if has_command else "remove one of these reasons"
    return f"{first}, or name a folder of tar shards in LARDER_SHARDS"


def _try_to_locate(layout: Layout, settings: LoaderSettings) -> Location | LarderError:
    try:
        with map_arm_errors(type(settings), _made_by(layout)):
            return _locate(layout, settings)
    except LarderError as error:
        return error


def _locate(layout: Layout, settings: LoaderSettings) -> Location:
    from larder.progress import NullReporter

    reporter: Reporter = NullReporter()
    if layout in _PEERS:
        return _locate_peer_data(layout, settings)
    folder_layout, artifact = _ARTIFACTS[layout]
    if settings.shards:
        from larder.bench.plain_shards import describe_shards

        return Location(settings.shards, describe_shards(settings))
    if layout == "tree":
        where = str(locate_tree(settings, reporter))
        manifest = find_manifest(Path(where))
    elif layout == "mount":
        require_bucket(settings, "imagefolder_rclone_mount")
        with map_mount_errors(mount_path(settings)):
            check_mount(mount_path(settings))
            where = str(locate_mounted_tree(settings, reporter))
            manifest = find_manifest(Path(where))
    else:
        require_bucket(settings, f"the layout {layout}")
        from larder.loaders.bucket_data import open_artifact_prefix

        where = locate_in_bucket(settings, folder_layout, reporter)
        manifest = open_artifact_prefix(where, settings).find_manifest()
    return Location(where, check_manifest(manifest, artifact, settings.split, where))


def _locate_peer_data(layout: Layout, settings: LoaderSettings) -> Location:
    if layout != "tar":
        require_bucket(settings, f"the layout {layout}")
    where, manifest = locate_peer_data(settings, _PEERS[layout])
    return Location(where, check_manifest(manifest, "tree", settings.split, where))


def _made_by(layout: Layout) -> str:
    if layout in _PEERS:
        return prepare_command(next(name for name, entry in ARMS.items() if entry.layout == layout))
    return CREATED_BY[_ARTIFACTS[layout][1]]


def _plain(commands: str) -> str:
    return commands.replace("`", "")


def _explain(name: str, layout: Layout, error: LarderError, to_commands: Callable[[str], str]) -> LeftOut:
    """Return why an arm is left out, with the command that helps; none does if the store doesn't answer."""
    is_mount = layout == "mount"  # mounting again also removes a dead mount
    helps = is_mount or not isinstance(error, ServiceError)
    made_by = str(StageRun("mount")) if is_mount else _made_by(layout)
    command = _plain(to_commands(made_by)) if helps else ""
    return LeftOut(arm=name, reason=to_commands(" ".join(str(error.what).split())), command=command)


def _find_differences(locations: dict[Layout, Location], split: str) -> dict[Layout, str]:
    """Return which layouts have other samples than the first one, and how they differ."""
    different: dict[Layout, str] = {}
    present = [layout for layout in _ORDER if layout in locations]
    if not present:
        return different
    first = locations[present[0]]
    expected = first.manifest.splits[split]
    for layout in present[1:]:
        where, manifest = locations[layout]
        summary = manifest.splits[split]
        if summary.samples_per_class != expected.samples_per_class:
            different[layout] = (
                f"{where} has {summary.samples:,} samples in {split!r}, and {first.where} has {expected.samples:,}, or "
                "other classes: arms must read the same samples"
            )
    return different
