"""What do the pipelines take at a million, 100 million and 5 billion images? `python -m docs.scale` prints the tables.

Costs per image are measured (`Costs` names the benchmark of each); prices are public list prices. Each has a flag:
`python -m docs.scale --vcpu-hour 0.02 --get 0`. `make docs` writes the tables with the defaults to docs/scale.md.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

from larder.fingerprint import CUTOFF_BYTES, PART_BYTES

SIZES = (("ImageNet", 1_281_167), ("100 million", 100_000_000), ("5 billion", 5_000_000_000))


@dataclass(frozen=True)
class Costs:
    """What an image costs, by benchmark; CPU times in milliseconds of one core of an AMD EPYC 9R14."""

    image_bytes: float = 110_000
    """Mean length of an image: ImageNet's."""
    measured_bytes: float = 68_000
    """That of the benchmarks' images. The stages' CPU time is taken to grow with the length."""
    extract_ms: float = 0.20
    """`stage_costs`: extract, hashing included."""
    transform_ms: float = 0.17
    """`stage_costs`: transform, with header checks."""
    shard_ms: float = 0.23
    """`stage_costs`: shard into the store, verified."""
    load_ms: float = 1.06
    """`stage_costs`: load of single images, verified."""
    stream_ms: float = 0.74
    """`stream_speed`: an epoch of larder.stream with exact decoding, for 68 KB; it grows with pixels."""
    shard_bytes: float = 64 << 20
    """`LARDER_SHARD_BYTES`. Up to 200 MiB, a shard is one request; above, one for 16 MiB, and two."""
    block_bytes: float = 4 << 20
    """What larder.stream reads with one request."""
    header_bytes: float = 2_048
    """Tar headers, padding and label of a sample in a shard."""
    index_bytes: float = 200
    """`stream_scale`: a line of the index of samples."""
    open_us: float = 1.6
    """`stream_scale`: CPU time of opening a stream, per sample of the index."""
    open_bytes: float = 80
    """`stream_scale`: peak memory while opening, per sample; 56 bytes of it stay."""
    order_bytes: float = 41
    """`stream_scale`: peak memory of computing an order, per sample of a rank."""
    order_us: float = 0.16
    """`stream_scale`: CPU time of it, per sample of a rank."""
    block_order_bytes: float = 22
    """`stream_scale`: peak memory of permuting blocks, per block of all ranks."""
    block_order_us: float = 0.06
    """`stream_scale`: CPU time of it, per block of all ranks."""


@dataclass(frozen=True)
class Prices:
    """List prices in USD, US East (N. Virginia)."""

    vcpu_hour: float = 0.0408
    """A core for an hour: EC2 m7g.large, Linux, on demand, 0.0816 for two cores (June 2026)."""
    storage_gb_month: float = 0.023
    """A GB for a month in S3 Standard, of the first 50 TB (March 2026)."""
    storage_gb_month_above_50_tb: float = 0.022
    """Of the next 450 TB."""
    storage_gb_month_above_500_tb: float = 0.021
    """Of what is above 500 TB."""
    put: float = 0.005
    """1,000 PUT, POST or LIST requests to S3 Standard."""
    get: float = 0.0004
    """1,000 GET or HEAD requests to S3 Standard."""
    egress_gb: float = 0.09
    """A GB from S3 to another place, of the first 10 TB of a month, and here of all; nothing within the region."""


SOURCES = """
Prices: [EC2 on demand](https://www.factualminds.com/blog/amazon-ec2-on-demand-pricing-instance-families-2026/) (June
2026), [S3 storage](https://cloudburn.io/blog/amazon-s3-pricing) (March 2026),
[S3 requests](https://c3x.dev/blog/s3-request-fees-explained) (2026); the sellers' own pages are
[aws.amazon.com/ec2/pricing](https://aws.amazon.com/ec2/pricing/on-demand/) and
[aws.amazon.com/s3/pricing](https://aws.amazon.com/s3/pricing/).
""".strip()


class Step(NamedTuple):
    """What a step of a pipeline takes."""

    name: str
    core_hours: float
    puts: float
    gets: float
    stored_bytes: float
    """Bytes that it adds to the store."""
    fetched_bytes: float = 0
    """Bytes that it reads from the store."""

    def money(self, prices: Prices) -> float:
        """Return the price of cores and requests."""
        return self.core_hours * prices.vcpu_hour + (self.puts * prices.put + self.gets * prices.get) / 1000


def steps(images: int, costs: Costs) -> list[Step]:
    """Return the steps from an archive to an epoch of training, by shards and by single images."""

    def hours(milliseconds: float) -> float:
        return images * milliseconds / 3.6e6

    longer = costs.image_bytes / costs.measured_bytes
    packed = images * (costs.image_bytes + costs.header_bytes)
    shards = packed / costs.shard_bytes
    index = images * costs.index_bytes
    in_parts = costs.shard_bytes >= CUTOFF_BYTES
    puts = packed / PART_BYTES + 2 * shards if in_parts else shards
    return [
        Step("extract", hours(costs.extract_ms * longer), 0, 0, 0),
        Step("transform", hours(costs.transform_ms * longer), 0, 0, 0),
        Step("shard into the store", hours(costs.shard_ms * longer), puts, shards, packed + index),
        Step(
            "load of single images, instead",
            hours(costs.load_ms * longer),
            images,
            images / 1000,
            images * costs.image_bytes,
        ),
        Step("an epoch of larder.stream", hours(costs.stream_ms), 0, packed / costs.block_bytes, 0, packed),
        Step(
            "an epoch with one GET per image, instead", hours(costs.stream_ms), 0, images, 0, images * costs.image_bytes
        ),
    ]


def storage_month(stored_bytes: float, prices: Prices) -> float:
    """Return the price of storing bytes for a month, if the account stores nothing else. More is cheaper per GB."""
    tiers = (
        (0.0, prices.storage_gb_month),
        (50e3, prices.storage_gb_month_above_50_tb),
        (500e3, prices.storage_gb_month_above_500_tb),
    )
    ends = [begin for begin, _ in tiers[1:]] + [math.inf]
    gigabytes = stored_bytes / 1e9
    return sum(max(min(gigabytes, end) - begin, 0.0) * price for (begin, price), end in zip(tiers, ends, strict=True))


def cost_table(images: int, costs: Costs, prices: Prices, cores: int = 64) -> Iterator[str]:
    """Yield the lines of one size's table."""
    header = ("step", "core-hours", f"hours on {cores} cores", "requests", "USD", "from elsewhere, USD more", "stored")
    yield f"| {' | '.join(header)} | USD per month |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for step in steps(images, costs):
        stored = _size(step.stored_bytes) if step.stored_bytes else ""
        elsewhere = _number(step.fetched_bytes / 1e9 * prices.egress_gb) if step.fetched_bytes else ""
        monthly = _number(storage_month(step.stored_bytes, prices)) if stored else ""
        cells = (
            step.name, _number(step.core_hours), _number(step.core_hours / cores), _number(step.puts + step.gets),
            _number(step.money(prices)), elsewhere, stored, monthly,
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def stream_table(costs: Costs, ranks: Sequence[int] = (1, 64)) -> Iterator[str]:
    """Yield the lines of the table of what the stream holds in each process."""
    head = " | ".join(f"order, {_count(number, 'rank')}" for number in ranks)
    yield f"| images | index of samples | time to open | memory to open | {head} |"
    yield f"|---|---:|---:|---:|{'---:|' * len(ranks)}"
    for name, images in SIZES:
        blocks = images * (costs.image_bytes + costs.header_bytes) / costs.block_bytes
        orders = (
            f"{_size(images / number * costs.order_bytes + blocks * costs.block_order_bytes)}, "
            f"{_duration((images / number * costs.order_us + blocks * costs.block_order_us) / 1e6)}"
            for number in ranks
        )
        cells = (
            name, _size(images * costs.index_bytes), _duration(images * costs.open_us / 1e6),
            _size(images * costs.open_bytes), *orders,
        )  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def tables(costs: Costs, prices: Prices) -> dict[str, str]:
    """Return each table of docs/scale.md by its name."""
    found = {f"costs-{images}": "\n".join(cost_table(images, costs, prices)) for _, images in SIZES}
    return found | {
        "stream": "\n".join(stream_table(costs)),
        "inputs": "\n".join(_inputs(costs, prices)),
        "sources": SOURCES,
    }


def with_tables(text: str) -> str:
    """Return docs/scale.md with its tables renewed."""
    for name, table in tables(Costs(), Prices()).items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not end:
            raise ValueError(f"docs/scale.md has no place for the table {name}")
        text = f"{before}{mark}{table}\n{end}{after}"
    return text


def _inputs(costs: Costs, prices: Prices) -> Iterator[str]:
    yield "| flag | value | what |"
    yield "|---|---:|---|"
    for given in (costs, prices):
        for name, about in _documented(type(given)):
            yield f"| `{_flag(name)}` | {getattr(given, name):g} | {about} |"


def _documented(kind: type) -> Iterator[tuple[str, str]]:
    """Yield each field with its docstring."""
    import ast
    import inspect
    import textwrap

    [definition] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            assert isinstance(below.value, ast.Constant)
            yield field.target.id, " ".join(str(below.value.value).split())


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _number(value: float) -> str:
    if not value:
        return "0"
    if value >= 1e9:
        return f"{value / 1e9:,.1f} billion"
    if value >= 1e6:
        return f"{value / 1e6:,.1f} million"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _size(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} PB"


def _duration(seconds: float) -> str:
    for limit, unit, length in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.2g} {unit}" if seconds < 10 else f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _count(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"one of {number} {noun}s"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables, with the values that flags give."""
    parser = argparse.ArgumentParser(prog="python -m docs.scale", description="Costs of the pipelines at scale.")
    for kind in (Costs, Prices):
        for name, about in _documented(kind):
            parser.add_argument(_flag(name), type=float, help=about.replace("%", "%%"))
    given = {name: value for name, value in vars(parser.parse_args(argv)).items() if value is not None}
    costs = replace(Costs(), **{each.name: given[each.name] for each in fields(Costs) if each.name in given})
    prices = replace(Prices(), **{each.name: given[each.name] for each in fields(Prices) if each.name in given})
    for name, images in SIZES:
        print(f"{name}:\n")
        print("\n".join(cost_table(images, costs, prices)), end="\n\n")
    print("larder.stream, in each process:\n")
    print("\n".join(stream_table(costs)))


if __name__ == "__main__":
    main()
