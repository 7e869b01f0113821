"""Define the parts of a comparison's record that are measured: machine, data, arms, rounds, upper bounds.

"unknown" stands for what can't be determined; null for what doesn't apply or wasn't measured.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

UNKNOWN = "unknown"

Amount = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class Part(BaseModel):
    """Base class of all parts of a record."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)


class Interval(Part):
    """A median with its 95% bootstrap interval."""

    median: float
    """Median of the rounds."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""


class Provenance(Part):
    """Code, libraries and machine; no host names or secrets."""

    time_utc: str
    """Start of the run."""
    larder: str
    """Version of larder."""
    revision: str
    """Commit of the code, with `-dirty` if it was changed; "unknown" outside a checkout."""
    python: str
    """Version of Python."""
    versions: dict[str, str]
    """Version of each library; "unknown" if it isn't installed."""
    cpu_model: str
    """Name of the CPU."""
    cores: float
    """Cores that the run may use."""
    cpu_quota_cores: float | None
    """CPU limit of the container; null without one."""
    memory_bytes: Count
    """Memory of the machine."""
    memory_limit_bytes: Count | None
    """Memory limit of the container; null without one."""
    kernel: str
    """Operating system and its version."""
    storage: str
    """File system and kind of device that hold the local data."""
    endpoint: str
    """Scheme, host and port of the store, without keys; "AWS" by default."""
    latency_s: Amount | None = None
    """Round-trip time that links added on the way to the store: that of `s3-up` and that of `compare`; null without."""
    bandwidth_bits_per_s: Count | None = None
    """Bandwidth to which they limited all connections together, in each direction; null without a limit."""
    accelerator: str
    """Name of the GPU; "none" without one."""
    in_container: bool
    """Whether the run was in a container."""
    load_average: list[float]
    """Load averages over 1, 5 and 15 minutes, at the start."""


class LayoutData(Part):
    """One layout of the dataset."""

    layout: str
    """`tree`, `mount`, `objects`, `webdataset`, `litdata`, `mds`, `parquet` or `tar`."""
    where: str
    """Folder or URI, without secrets."""
    files: Count | None
    """Number of files or objects; null if unknown."""
    bytes: Count | None
    """Their total length; null if unknown."""
    manifest_sha256: str
    """Digest of the manifest; "unknown" without one."""


class Data(Part):
    """The dataset and its layouts."""

    dataset: str
    """Name of the dataset."""
    split: str
    """The split that was read."""
    samples: Count
    """Samples of the split."""
    classes: Count
    """Number of classes."""
    image_bytes: Count
    """Total length of the split's images."""
    samples_digest: str
    """Digest of the ids and labels of all samples, which each epoch must have; "unknown" if it wasn't computed."""
    layouts: list[LayoutData]
    """The layouts that were read."""


class PixelError(Part):
    """Absolute difference from PIL's pixels, in levels of 0 to 255."""

    mean: Amount
    """Mean over the compared pixels."""
    max: Amount
    """Maximum over the compared pixels."""
    pixels: Count
    """Number of compared pixels."""


class Arm(Part):
    """An arm: one loader on one layout."""

    name: str
    """Name of the arm; the second run of the A/A arm ends in ` (again)`."""
    layout: str
    """The layout that it reads; `none` for the arm that costs nothing."""
    about: str
    """What reads the data, in a line."""
    library: str
    """The library that reads, with its version."""
    how: str
    """How it is run, and how its settings were chosen."""
    settings: dict[str, str]
    """Options and environment variables of the library that differ from its defaults."""
    pixel_error: PixelError | None
    """Difference of its pixels from PIL's; null if it wasn't measured."""
    workers: Literal["processes", "threads", "all cores"] | None = None
    """What its number of workers counts; `all cores`: it ignores the number. Null if unknown, or without workers."""


class Waits(Part):
    """Seconds from requesting to receiving a batch."""

    p50: Amount
    """Median."""
    p95: Amount
    """95th percentile (nearest rank)."""
    p99: Amount
    """99th percentile (nearest rank)."""
    max: Amount
    """Longest wait."""


class PageCache(Part):
    """Evidence of the page cache's state."""

    resident_before: Share | None
    """Share of the local data's pages in memory before the epoch; null if unknown or not local."""
    method: Literal["cachestat", "mincore"] | None
    """How that was determined; null if it wasn't."""
    disk_read_bytes: Count | None
    """Bytes that the machine's disks delivered in the epoch, also to other programs; null if unknown."""


class Timeline(Part):
    """Rates over time. There is one more time than rates."""

    t_s: list[float]
    """Times of the samples, in seconds from the start of the epoch."""
    bytes_per_s: list[float]
    """Received bytes per second, from each sample to the next; includes headers and other programs."""
    images_per_s: list[float]
    """Images per second, from each sample to the next."""


class EpochRecord(Part):
    """Figures of one epoch of a round."""

    epoch: Annotated[int, Field(ge=1)]
    """1, or 2 where a cache or workers are left from the first."""
    images: Count
    """Images that the arm yielded."""
    batches: Count
    """Batches that the arm yielded."""
    seconds: Amount
    """From requesting the first batch to receiving the last."""
    imgs_per_s: Amount
    """Images over seconds."""
    batches_per_s: Amount
    """Batches over seconds."""
    avg_batch_s: Amount
    """Seconds over batches."""
    first_batch_s: Amount
    """Time to the first batch; in epoch 1 it includes the start of the workers."""
    wait_s: Waits
    """Waits for batches."""
    cpu_s: Amount
    """User and system time of the client: the loader, its workers and its helper processes."""
    instrument_cpu_s: Amount
    """CPU time of the measuring threads while the epoch ran; `cpu_s` leaves it out."""
    peak_memory_bytes: Count
    """Highest sum over the client's processes, to 10%, with all libraries that it has imported; sampled each second in
    warm-ups and quick comparisons, else before and after the epoch."""
    peak_memory_kind: Literal["pss", "rss"]
    """`pss`: shared pages count once; `rss`: once per process."""
    network_bytes: Count | None
    """Bytes that the arm fetched; null without network, or if unknown."""
    network_requests: Count | None
    """Requests that the arm sent; null if they can't be counted."""
    disk_bytes: Count | None
    """Bytes that the client read from disks; null if unknown."""
    page_cache: PageCache
    """Whether the data were cached."""
    samples_digest: str
    """Digest of the ids and labels of what was yielded, sorted; "unknown" if ids weren't determined."""
    exactly_once: bool | None
    """Whether each sample was yielded exactly once; null if unknown, or if the pass isn't a whole epoch."""
    order_entropy: Share | None
    """Entropy of the differences of successive ids, over that of a full shuffle; null if unknown."""
    timeline: Timeline
    """Rates over time."""


class StepsRecord(Part):
    """Training steps on an arm's batches, in a further epoch of a round."""

    device: str
    """`cpu`, or `cuda` with the name of the GPU."""
    model: str
    """The model and its precision."""
    steps: Count
    """Steps, without the first ones."""
    imgs_per_s: Amount
    """Images of these steps over their time."""
    busy_share: Share
    """Share of that time in which the device computed steps."""
    step_p50_s: Amount
    """Median time from the end of a step to that of the next one, with its wait for data."""
    step_p99_s: Amount
    """99th percentile (nearest rank)."""
    synthetic_step_p50_s: Amount
    """Median of steps on one batch again and again, which is on the device already."""
    synthetic_step_p99_s: Amount
    """99th percentile of these."""


class Round(Part):
    """One run of an arm, in a process of its own."""

    arm: str
    """Name of the arm."""
    workers: Count
    """Worker processes, or threads for `stream`."""
    round: Count
    """Number of the round; 0 is the warm-up, which no summary includes."""
    position: Count
    """Position in the order of the whole run."""
    started_utc: str
    """Start of the process."""
    process_s: Amount
    """Duration of the process, including imports and opening the data."""
    open_s: Amount
    """Time to open the data: manifests, indexes, listings."""
    epochs: Annotated[list[EpochRecord], Field(min_length=1)]
    """The first epoch, and the second one where it was measured."""
    steps: StepsRecord | None = None
    """Training steps; null if LARDER_DEVICE asked for none."""


class Roofline(Part):
    """An upper bound, measured in the same run."""

    name: str
    """`decode`, `decode_pil`, `stream_from_memory`, `disk_read` or `store_read`."""
    about: str
    """What was measured."""
    imgs_per_s: Amount
    """Images per second; for reads, bytes per second over the mean length of an image with its share of headers."""
    bytes_per_s: Amount | None
    """Bytes per second; null for decoding."""
    rounds: list[Amount]
    """Images per second of each round."""
    workers: Count
    """Threads that were used."""
