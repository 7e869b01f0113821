"""Determine how much of some files is in the page cache: by cachestat (Linux 6.5 and later), else by mincore."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

_CACHESTAT = 451  # the same on all architectures, since Linux numbers new calls alike
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
_MAP_FAILED = ctypes.c_void_p(-1).value


class CacheState(NamedTuple):
    """How much of some files is cached."""

    share: float | None
    """Share of the pages that are in memory; None if unknown."""
    method: Literal["cachestat", "mincore"] | None
    """How it was determined."""


def cache_state(files: Iterable[Path]) -> CacheState:
    """Return how much of some files is in the page cache."""
    cached = pages = 0
    method: Literal["cachestat", "mincore"] | None = None
    for path in files:
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if not size:
                    continue
                of_file = -(-size // mmap.PAGESIZE)
                found = _by_cachestat(file.fileno(), size) if method != "mincore" else None
                method = method or ("mincore" if found is None else "cachestat")
                found = _by_mincore(file.fileno(), size) if found is None else found
        except OSError:
            return CacheState(None, None)
        if found is None:
            return CacheState(None, None)
        cached, pages = cached + min(found, of_file), pages + of_file
    return CacheState(round(cached / pages, 4), method) if pages else CacheState(None, None)


def _by_cachestat(descriptor: int, size: int) -> int | None:
    """Return the number of cached pages, or None if the kernel has no such call."""
    if sys.platform != "linux":
        return None
    extent, result = (ctypes.c_uint64 * 2)(0, size), (ctypes.c_uint64 * 5)()
    return None if _LIBC.syscall(_CACHESTAT, descriptor, extent, result, 0) else int(result[0])


def _by_mincore(descriptor: int, size: int) -> int | None:
    address = _LIBC.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address in (None, _MAP_FAILED):
        return None
    pages = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
    failed = _LIBC.mincore(address, size, pages)
    _LIBC.munmap(address, size)
    return None if failed else sum(page & 1 for page in pages.raw)
