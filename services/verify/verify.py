"""The verify stage: every link of the chain in its order, a line on stdout for each."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from larder.errors import ConfigurationError, InputError, LarderError, ServiceError, explain_os_error
from larder.next_step import MAKES, Run, forced
from larder.progress import Reporter, amount
from larder.stage import Clock, Outcome
from larder.terminal import Lines, as_json, escaped, say
from larder.volume import reading
from services.commands import in_commands
from services.verify import files
from services.verify.archive import archive
from services.verify.chain import INDEX, OBJECTS, RAW_FILES, TREE_FILES, Chain, Kept
from services.verify.findings import AbsentError, BreakError, Checked, Fault, UnfollowedError, as_figures
from services.verify.packs import packs
from services.verify.settings import VerifySettings


class Link(NamedTuple):
    """One link: what follows it, the artifact at its end, and the next step when it is broken."""

    name: str
    follow: Callable[[Chain], Checked]
    kept: Kept | None
    mend: str
    always: bool = True
    """Whether it is told of where there is nothing to follow."""


def _packs(name: str, kept: Kept, mend: str) -> Link:
    return Link(name, functools.partial(packs, kept), kept, mend)


_AGAIN = "; then this again"
_LOCAL = f"run {MAKES['tree']} with the LARDER_SOURCE that it had{_AGAIN}"
_WDS, _LIT = f"run {MAKES['webdataset']}{_AGAIN}", f"run {MAKES['litdata']}{_AGAIN}"
LINKS = (
    Link("archive", archive, None, f"name the right source in LARDER_SOURCE, or run {MAKES['tree']} with this one"),
    Link("raw", files.raw, RAW_FILES, _LOCAL),
    Link("tree", files.tree, TREE_FILES, _LOCAL),
    _packs("shards", Kept("webdataset"), _WDS),
    _packs("chunks", Kept("litdata"), _LIT),
    Link("objects in the store", files.objects, OBJECTS, f"run {MAKES['objects']}{_AGAIN}"),
    Link("index in the store", files.indexed, INDEX, f"run {MAKES['index']}{_AGAIN}", always=False),
    _packs("shards in the store", Kept("webdataset", in_store=True), _WDS),
    _packs("chunks in the store", Kept("litdata", in_store=True), _LIT),
)
_WIDTH = max(len(link.name) for link in LINKS)


class Line(NamedTuple):
    """How a link ended: ok, BROKEN, FAILED, not there, not followed."""

    link: str
    result: str
    message: str
    checked: Checked | None = None
    error: LarderError | None = None


def verify(settings: VerifySettings, reporter: Reporter) -> Outcome:
    """Follow the chain. Raises the first break or failure, in the order of the chain, after all was followed."""
    clock, lines = Clock(), list[Line]()
    with ExitStack() as held:
        for volume in dict.fromkeys((settings.volume, settings.wds, settings.lit)):
            held.enter_context(reading(volume))
        chain = Chain(settings, reporter, Path(held.enter_context(tempfile.TemporaryDirectory(prefix="larder-"))))
        held.enter_context(chain.engine.held())
        for link in LINKS:
            line = _follow(link, chain)
            if line.checked is None and line.error is None and not link.always:
                continue
            lines.append(line)
            _say(line, reporter.json)
    for line in lines:
        if line.error is not None:
            raise line.error
    if not any(line.checked for line in lines):
        raise InputError(
            f"nothing to verify: no finished data in {settings.volume}, {settings.wds}, {settings.lit}, "
            + (f"or s3://{settings.bucket}" if settings.bucket else "and no store is set"),
            next_step=f"run {MAKES['tree']}, or set LARDER_DATA_VOLUME to the volume that holds the data",
        )
    return _outcome(settings, lines, clock)


def _follow(link: Link, chain: Chain) -> Line:
    try:
        checked = link.follow(chain)
    except AbsentError as absent:
        return Line(link.name, "not there", str(absent))
    except UnfollowedError as unfollowed:
        return Line(link.name, "not followed", str(unfollowed))
    except LarderError as error:
        return _failed(link, chain, error)
    except OSError as fault:
        explained = explain_os_error(fault)
        if explained is None:
            raise
        return _failed(link, chain, explained)
    if link.kept is not None:
        chain.sound.add(link.kept)
    return Line(link.name, "ok", checked.remark, checked)


def _failed(link: Link, chain: Chain, error: LarderError) -> Line:
    if not isinstance(error, InputError):
        if isinstance(error, ServiceError | ConfigurationError):
            chain.store_failed = link.name
        return Line(link.name, "FAILED", error.what, None, error)
    known = error.fault if isinstance(error, BreakError) else Fault(error.what, "", next_step=error.next_step)
    mend = forced(link.mend) if known.forced else link.mend
    broken = known._replace(what=f"the chain breaks at {link.name}: {known.what}", next_step=known.next_step or mend)
    return Line(link.name, "BROKEN", f"{known.what}: {known.sample or known.place}", None, BreakError(broken))


def _say(line: Line, for_machines: bool) -> None:
    if for_machines:
        fields = {"link": line.link, "result": line.result, "message": escaped(in_commands(line.message))}
        say(Lines(as_json(fields | _figures(line))))
        return
    done, checked = "", line.checked
    if checked is not None:
        done = f"{checked.looked_at:,} of {amount(checked.of, checked.unit)}, {amount(checked.bytes, 'B')} read"
    message = "; ".join(part for part in (done, " ".join(in_commands(line.message).split())) if part)
    say(f"{line.result:<12} {line.link:<{_WIDTH}}  {message}")


def _figures(line: Line) -> dict[str, Any]:
    """For machines."""
    if line.checked is not None:
        return line.checked._asdict()
    if isinstance(line.error, BreakError):
        figures = as_figures(line.error.fault)
        return {name: in_commands(value) if isinstance(value, str) else value for name, value in figures.items()}
    return {} if line.error is None else {"next_step": in_commands(line.error.next_step)}


def _outcome(settings: VerifySettings, lines: list[Line], clock: Clock) -> Outcome:
    followed = [line.checked for line in lines if line.checked is not None]
    others = ", ".join(f"{line.link} {line.result}" for line in lines if line.checked is None)
    left = f" ({others})" if others else ""
    looked_at, of = max((checked.looked_at, checked.of) for checked in followed)
    share = looked_at / max(of, 1)
    read = sum(checked.bytes for checked in followed)
    how = "every sample" if share >= 1 else f"{looked_at:,} of {amount(of, 'samples')} ({share:.1%})"
    return Outcome(
        f"the chain holds: {len(followed)} of {len(lines)} links followed{left}, {how} read at each, "
        f"{amount(read, 'B')} in {clock.seconds:.1f} s",
        "" if share >= 1 else f"{Run('verify').having(LARDER_VERIFY_SAMPLES='all')}, which reads every byte",
        {
            "followed": len(followed), "links": {line.link: line.result for line in lines}, "bytes": read,
            "share": round(share, 4), "seconds": round(clock.seconds, 3),
        },
    )  # fmt: skip
