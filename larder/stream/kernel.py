"""Decode, crop and resize JPEG images in one call of compiled code, without the GIL.

`jpeg_crop.c` does the work and explains it; this module loads it with ctypes, so that one library serves every version
of Python. `larder.stream.build` compiles it. Without it, `JpegKernel.load` returns None, and callers use Pillow, which
gives the same pixels.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.metadata
import mmap
import os
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from larder.stream.build import library_name

CROP: Final = np.dtype(
    [
        (name, np.int32)
        for name in (
            "x", "y", "width", "height", "resized_width", "resized_height", "window_x", "window_y", "flip", "eighths",
        )
    ]
)  # fmt: skip
"""What to make of an image, in pixels. The region (x, y, width, height) is cropped and resized. Of that, the window at
(window_x, window_y) is kept, and mirrored, left to right, if flip isn't 0. libjpeg decodes the image at so many eighths
of its size: 8 for exact pixels; 4, 2 or 1 for speed."""

HEADER: Final = np.dtype(
    [(name, np.int32) for name in ("width", "height", "components", "supported", "progressive", "rgb")]
)
"""What an image's header says: its size in pixels, the number of components (1: grayscale, 3: color), whether the
kernel decodes such images, whether it is progressive, and whether its components are red, green and blue instead of the
usual luma and chroma. All are 0 if the header can't be read."""

ReadableBuffer = bytes | bytearray | memoryview | mmap.mmap | NDArray[np.uint8]
_ABI = 2
_HERE = Path(__file__).parent
_DISTRIBUTION = "larder-data"
_MESSAGE_BYTES = 200


class Status(enum.IntEnum):
    """What became of an image, as jpeg_crop.c numbers it."""

    DONE = 0
    UNSUPPORTED = 1
    DAMAGED = 2
    INVALID = 3
    NO_MEMORY = 4


class JpegKernel:
    """The loaded kernel. Any number of threads can use it at once; each call works on its own thread.

    Example:
        >>> import io
        >>> from PIL import Image
        >>> file = io.BytesIO()
        >>> Image.new("RGB", (64, 48), "white").save(file, "JPEG")
        >>> crops = np.array([(8, 0, 48, 48, 24, 24, 0, 0, False, 8)], CROP)
        >>> pixels = np.empty((1, 24, 24, 3), np.uint8)
        >>> kernel = JpegKernel.load()
        >>> kernel is None or kernel.decode([file.getvalue()], crops, pixels) == [None]
        True
    """

    def __init__(self, library: Path, *, portable: bool = False) -> None:
        """Load a library.

        Args:
            library: The file that `larder.stream.build` made.
            portable: Don't use the CPU's vector instructions. The pixels are the same.

        Raises:
            OSError: If it can't be loaded, or is of another version.
        """
        self._library, self._portable = _open(library), portable
        self._threads = threading.local()

    @classmethod
    def load(cls, folders: Sequence[Path] | None = None) -> JpegKernel | None:
        """Return the kernel, or None if it has not been compiled or can't be loaded.

        Args:
            folders: Where to look for it; default: beside this module, in the installed package, then `larder` in the
                user's cache folder.
        """
        for folder in _default_folders() if folders is None else folders:
            try:
                return cls(folder / library_name())
            except OSError:
                continue  # the kernel is absent, or the libjpeg that it needs: the caller has Pillow
        return None

    @property
    def is_portable(self) -> bool:
        """Whether the kernel works without AVX2, since the CPU lacks it or `portable` was given."""
        return bool(self._library.larder_scratch_is_portable(self._scratch()))

    def headers(self, jpegs: Sequence[ReadableBuffer]) -> NDArray[np.void]:
        """Read the headers of images without decoding them.

        Args:
            jpegs: The files' contents.

        Returns:
            An array of HEADER, one element per image.
        """
        addresses, lengths, kept = _point_at(jpegs)
        found = np.zeros(len(jpegs), HEADER)
        self._library.larder_jpeg_headers(
            self._scratch(), len(jpegs), _address(addresses), _address(lengths), _address(found)
        )
        del kept  # until here, nobody may free the contents
        return found

    def decode(
        self, jpegs: Sequence[ReadableBuffer], crops: NDArray[np.void], out: NDArray[np.uint8]
    ) -> list[str | None]:
        """Decode, crop and resize images.

        The pixels are those that Pillow 13 makes of an RGB image: crop the region, resize it with BILINEAR, crop the
        window. With fewer than 8 eighths, they are those that it makes of a draft (`larder.stream.decode.apply_crop`).

        Args:
            jpegs: The files' contents. They are read in place: don't change them meanwhile.
            crops: An array of CROP, one element per image.
            out: The pixels: uint8 (images, height, width, 3), contiguous. Height and width are those of the windows.

        Returns:
            For each image, None if it was decoded; else the reason, and its part of `out` is undefined. The reason is
            "" for a kind of image that only Pillow decodes, and libjpeg's error or warning for a damaged image. Pillow
            accepts some of the damaged ones.

        Raises:
            ValueError: If the arrays don't fit each other, or a region or window isn't inside of its image.
        """
        _check_arrays(len(jpegs), crops, out)
        addresses, lengths, kept = _point_at(jpegs)
        statuses = np.zeros(len(jpegs), np.int32)
        messages = np.zeros((len(jpegs), _MESSAGE_BYTES), np.uint8)
        failed = self._library.larder_jpeg_crop_batch(
            self._scratch(),
            len(jpegs),
            _address(addresses),
            _address(lengths),
            _address(crops),
            out.shape[2],
            out.shape[1],
            _address(out),
            _address(statuses),
            _address(messages),
        )
        del kept  # until here, nobody may free the contents
        if not failed:
            return [None] * len(jpegs)
        return [_explain(i, Status(int(status)), messages[i]) for i, status in enumerate(statuses)]

    def _scratch(self) -> int:
        """Return the calling thread's memory, which it keeps for its next call."""
        own = getattr(self._threads, "scratch", None)
        if own is None:
            own = self._threads.scratch = _Scratch(self._library, self._portable)
        return own.address


class _Scratch:
    """Memory of a thread, freed when the thread ends."""

    def __init__(self, library: ctypes.CDLL, portable: bool) -> None:
        self._free = library.larder_scratch_free
        self.address: int = library.larder_scratch_new(portable) or 0
        if not self.address:
            raise MemoryError("no memory for the JPEG kernel")

    def __del__(self) -> None:
        # At the interpreter's end, threads that still decode lose their locals; the memory goes with the process.
        if getattr(self, "address", 0) and not sys.is_finalizing():
            self._free(self.address)


class MissingKernel(NamedTuple):
    """Why there is no kernel, and what compiles it."""

    cause: str
    next_step: str


def explain_missing_kernel(folder: Path = _HERE) -> MissingKernel:
    """Return why `JpegKernel.load` finds none, and the command that compiles it.

    Args:
        folder: The folder of the imported `larder.stream`.
    """
    checkout = folder.parents[1]
    is_checkout = (checkout / "pyproject.toml").exists()
    cause = (
        f"the JPEG kernel isn't compiled in the checkout {checkout}, from which `larder` was imported"
        if is_checkout
        else "the JPEG kernel isn't compiled: larder was installed where a C compiler or libjpeg-turbo was missing"
    )
    words = [sys.executable or "python3", str(folder / "build.py")]
    command = shlex.join(words) + ("" if is_checkout else " ~/.cache/larder")
    return MissingKernel(cause, f"install gcc and libjpeg-turbo's headers (libjpeg62-turbo-dev), then run `{command}`")


def _default_folders() -> list[Path]:
    """Return where the kernel may be: here, in the installed package that a checkout hides, and in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [_HERE, *_installed_folders(), Path(cache) / "larder"]


def _installed_folders() -> list[Path]:
    """Return the folder of `larder.stream` in the installed package.

    A script that runs in a checkout imports the checkout's `larder`, which isn't compiled. A library of another source
    has another name, so none is loaded that doesn't fit.
    """
    try:
        return [Path(str(importlib.metadata.distribution(_DISTRIBUTION).locate_file("larder/stream")))]
    except importlib.metadata.PackageNotFoundError:
        return []


def _open(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    size, pointer, side = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int32
    _declare(library, "larder_kernel_abi", ctypes.c_int)
    _declare(library, "larder_scratch_new", pointer, ctypes.c_int)
    _declare(library, "larder_scratch_free", None, pointer)
    _declare(library, "larder_scratch_is_portable", ctypes.c_int, pointer)
    _declare(library, "larder_jpeg_headers", None, pointer, size, pointer, pointer, pointer)
    _declare(
        library,
        "larder_jpeg_crop_batch",
        *(size, pointer, size, pointer, pointer, pointer, side, side, pointer, pointer, pointer),
    )
    if library.larder_kernel_abi() != _ABI:
        raise OSError(f"{path} is of another version")
    return library


def _declare(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> None:
    try:
        function = getattr(library, name)
    except AttributeError as error:
        raise OSError(f"it is no JPEG kernel: {error}") from error
    function.restype, function.argtypes = result, arguments


def _point_at(jpegs: Sequence[ReadableBuffer]) -> tuple[NDArray[np.uintp], NDArray[np.uintp], list[NDArray[np.uint8]]]:
    """Return addresses and lengths of contents, and what keeps them where they are."""
    views = [np.frombuffer(jpeg, np.uint8) for jpeg in jpegs]
    addresses = np.array([_address(view) for view in views], np.uintp)
    return addresses, np.array([view.size for view in views], np.uintp), views


def _address(array: NDArray[Any]) -> int:
    """Return where an array's elements are. `__array_interface__` takes 20 µs to describe a CROP."""
    return array.ctypes.data


def _check_arrays(images: int, crops: NDArray[np.void], out: NDArray[np.uint8]) -> None:
    if crops.dtype != CROP or crops.shape != (images,) or not crops.flags.c_contiguous:
        raise ValueError(f"crops must be a contiguous array of CROP with {images} elements, one per image")
    if out.dtype != np.uint8 or out.ndim != 4 or out.shape[0] != images or out.shape[3] != 3:
        raise ValueError(f"out must be an array of uint8 of shape ({images}, height, width, 3), not {out.shape}")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError("out must be contiguous and writable")


def _explain(image: int, status: Status, message: NDArray[np.uint8]) -> str | None:
    """Return what `decode` returns for an image."""
    text = message.tobytes().partition(b"\0")[0].decode("ascii", "replace")
    match status:
        case Status.DONE:
            return None
        case Status.DAMAGED:
            return text
        case Status.INVALID:
            raise ValueError(f"image {image}: {text}")
        case _:
            return ""
