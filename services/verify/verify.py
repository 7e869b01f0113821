"""The verify stage: check every link of the chain in order, and print a line for each on stdout."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from larder.errors import ConfigurationError, InputError, LarderError, ServiceError, explain_os_error
from larder.next_step import CREATED_BY, StageRun, with_force
from larder.progress import Reporter, format_amount
from larder.stage import Clock, StageOutcome
from larder.terminal import Lines, as_json, escape, print_escaped
from larder.volume import read_lock
from services.commands import replace_stage_names
from services.verify import files
from services.verify.archive import check_archive
from services.verify.chain import INDEX, OBJECTS, RAW_FILES, TREE_FILES, ArtifactRef, Chain
from services.verify.findings import AbsentError, BreakError, ChainBreak, UnfollowedError, VerifiedLink, to_json_fields
from services.verify.packs import check_packs
from services.verify.settings import VerifySettings


class Link(NamedTuple):
    """A link: the function that checks it, the artifact that it verifies, and the next step if it is broken."""

    name: str
    check: Callable[[Chain], VerifiedLink]
    artifact: ArtifactRef | None
    next_step: str
    always: bool = True
    """Whether it is listed even if there is nothing to check."""


def _pack_link(name: str, artifact: ArtifactRef, next_step: str) -> Link:
    return Link(name, functools.partial(check_packs, artifact), artifact, next_step)


_VERIFY_AGAIN = "; then this again"
_CREATE_TREE = f"run {CREATED_BY['tree']} with the LARDER_SOURCE that it had{_VERIFY_AGAIN}"
_CREATE_SHARDS, _CREATE_CHUNKS = (
    f"run {CREATED_BY['webdataset']}{_VERIFY_AGAIN}",
    f"run {CREATED_BY['litdata']}{_VERIFY_AGAIN}",
)
LINKS = (
    Link(
        "archive",
        check_archive,
        None,
        f"name the right source in LARDER_SOURCE, or run {CREATED_BY['tree']} with this one",
    ),
    Link("raw", files.check_raw, RAW_FILES, _CREATE_TREE),
    Link("tree", files.check_tree, TREE_FILES, _CREATE_TREE),
    _pack_link("shards", ArtifactRef("webdataset"), _CREATE_SHARDS),
    _pack_link("chunks", ArtifactRef("litdata"), _CREATE_CHUNKS),
    Link("objects in the store", files.check_objects, OBJECTS, f"run {CREATED_BY['objects']}{_VERIFY_AGAIN}"),
    Link(
        "index in the store",
        files.check_indexed_images,
        INDEX,
        f"run {CREATED_BY['index']}{_VERIFY_AGAIN}",
        always=False,
    ),
    _pack_link("shards in the store", ArtifactRef("webdataset", in_store=True), _CREATE_SHARDS),
    _pack_link("chunks in the store", ArtifactRef("litdata", in_store=True), _CREATE_CHUNKS),
)
_WIDTH = max(len(link.name) for link in LINKS)


class LinkResult(NamedTuple):
    """The result of a link: ok, BROKEN, FAILED, not there, or not followed."""

    link: str
    result: str
    message: str
    checked: VerifiedLink | None = None
    error: LarderError | None = None


def verify(settings: VerifySettings, reporter: Reporter) -> StageOutcome:
    """Run the stage. Check all links, then raise the first break or failure in the order of the chain."""
    clock, lines = Clock(), list[LinkResult]()
    with ExitStack() as stack:
        for volume in dict.fromkeys((settings.volume, settings.wds, settings.lit)):
            stack.enter_context(read_lock(volume))
        chain = Chain(settings, reporter, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="larder-"))))
        stack.enter_context(chain.engine.keep_connected())
        for link in LINKS:
            line = _check_link(link, chain)
            if line.checked is None and line.error is None and not link.always:
                continue
            lines.append(line)
            _print_result(line, reporter.json)
    for line in lines:
        if line.error is not None:
            raise line.error
    if not any(line.checked for line in lines):
        raise InputError(
            f"nothing to verify: no finished data in {settings.volume}, {settings.wds}, {settings.lit}, "
            + (f"or s3://{settings.bucket}" if settings.bucket else "and no store is set"),
            next_step=f"run {CREATED_BY['tree']}, or set LARDER_DATA_VOLUME to the volume that holds the data",
        )
    return _make_outcome(settings, lines, clock)


def _check_link(link: Link, chain: Chain) -> LinkResult:
    try:
        checked = link.check(chain)
    except AbsentError as absent:
        return LinkResult(link.name, "not there", str(absent))
    except UnfollowedError as unfollowed:
        return LinkResult(link.name, "not followed", str(unfollowed))
    except LarderError as error:
        return _failed(link, chain, error)
    except OSError as fault:
        larder_error = explain_os_error(fault)
        if larder_error is None:
            raise
        return _failed(link, chain, larder_error)
    if link.artifact is not None:
        chain.verified.add(link.artifact)
    return LinkResult(link.name, "ok", checked.remark, checked)


def _failed(link: Link, chain: Chain, error: LarderError) -> LinkResult:
    if not isinstance(error, InputError):
        if isinstance(error, ServiceError | ConfigurationError):
            chain.store_failed = link.name
        return LinkResult(link.name, "FAILED", error.what, None, error)
    known = error.fault if isinstance(error, BreakError) else ChainBreak(error.what, "", next_step=error.next_step)
    next_step = with_force(link.next_step) if known.forced else link.next_step
    broken = known._replace(
        what=f"the chain breaks at {link.name}: {known.what}", next_step=known.next_step or next_step
    )
    return LinkResult(link.name, "BROKEN", f"{known.what}: {known.sample or known.place}", None, BreakError(broken))


def _print_result(line: LinkResult, as_json_line: bool) -> None:
    if as_json_line:
        fields = {"link": line.link, "result": line.result, "message": escape(replace_stage_names(line.message))}
        print_escaped(Lines(as_json(fields | _figures(line))))
        return
    done, checked = "", line.checked
    if checked is not None:
        done = f"{checked.looked_at:,} of {format_amount(checked.of, checked.unit)}"
        done += f", {format_amount(checked.bytes, 'B')} read"
    message = "; ".join(part for part in (done, " ".join(replace_stage_names(line.message).split())) if part)
    print_escaped(f"{line.result:<12} {line.link:<{_WIDTH}}  {message}")


def _figures(line: LinkResult) -> dict[str, Any]:
    """Return the fields of a line for JSON output."""
    if line.checked is not None:
        return line.checked._asdict()
    if isinstance(line.error, BreakError):
        figures = to_json_fields(line.error.fault)
        return {
            name: replace_stage_names(value) if isinstance(value, str) else value for name, value in figures.items()
        }
    return {} if line.error is None else {"next_step": replace_stage_names(line.error.next_step)}


def _make_outcome(settings: VerifySettings, lines: list[LinkResult], clock: Clock) -> StageOutcome:
    followed = [line.checked for line in lines if line.checked is not None]
    unchecked = ", ".join(f"{line.link} {line.result}" for line in lines if line.checked is None)
    left = f" ({unchecked})" if unchecked else ""
    looked_at, of = max((checked.looked_at, checked.of) for checked in followed)
    share = looked_at / max(of, 1)
    read = sum(checked.bytes for checked in followed)
    how = "every sample" if share >= 1 else f"{looked_at:,} of {format_amount(of, 'samples')} ({share:.1%})"
    return StageOutcome(
        f"the chain holds: {len(followed)} of {len(lines)} links followed{left}, {how} read at each, "
        f"{format_amount(read, 'B')} in {clock.seconds:.1f} s",
        ""
        if share >= 1
        else f"{StageRun('verify').with_settings(LARDER_VERIFY_SAMPLES='all')}, which reads every byte",
        {
            "followed": len(followed),
            "links": {line.link: line.result for line in lines},
            "bytes": read,
            "share": round(share, 4),
            "seconds": round(clock.seconds, 3),
        },
    )
