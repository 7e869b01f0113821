"""System calls that Python lacks: mount, unmount and drop capabilities."""

from __future__ import annotations

import ctypes
import os

SYS_ADMIN, DAC_OVERRIDE = 21, 1
"""Capabilities (linux/capability.h): to mount, and to enter a folder that root can't access otherwise."""
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 4, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LIBC = ctypes.CDLL(None, use_errno=True)


def mount_fuse(source: str, kind: str, point: str, options: str) -> None:
    """Mount read-only, without devices and setuid programs. Raises OSError."""
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV
    words = [os.fsencode(word) for word in (source, point, kind)]
    _check(_LIBC.mount(*words, ctypes.c_ulong(flags), options.encode()))


def unmount(point: str, *, lazily: bool) -> None:
    """Unmount; `lazily` even while files are open. Raises OSError."""
    _check(_LIBC.umount2(os.fsencode(point), _UMOUNT_NOFOLLOW | (_MNT_DETACH if lazily else 0)))


def keep_capabilities(*capabilities: int) -> None:
    """Drop all capabilities of this thread but these, and prevent new ones. Raises OSError.

    Children get no more than these. The process is also made non-dumpable, so that other processes of its user can't
    take over its capabilities.
    """
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _LIBC.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)  # fails on old kernels, which have no ambient set
    for capability in range(64):
        if capability not in capabilities:  # fails without SETPCAP; then NO_NEW_PRIVS has to suffice
            _LIBC.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    mask = sum(1 << capability for capability in capabilities)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    _check(_LIBC.capset(header, (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)))
    _check(_LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
