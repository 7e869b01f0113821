"""The JPEG kernel, under AddressSanitizer: no image makes it read or write outside of its buffers, or hang."""

from __future__ import annotations

import atexit
import io
import os
import random
import struct
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from larder.stream import build
from tests.fuzz.mutations import corrupt

DRIVER = Path(__file__).with_name("jpeg_driver.c")
SANITIZERS = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer")
SIDES = ((1, 1), (8, 8), (17, 130), (64, 48), (200, 40), (600, 24))
_START_OF_FRAME = (b"\xff\xc0", b"\xff\xc2")


def _seeds() -> list[tuple[bytes, int, int]]:
    chance, found = random.Random(1), []
    for width, height in SIDES:
        noise = Image.frombytes("RGB", (width, height), chance.randbytes(3 * width * height))
        for mode, options in (
            ("RGB", {"subsampling": 0}),
            ("RGB", {"subsampling": 1, "restart_marker_blocks": 2}),
            ("RGB", {"subsampling": 2}),
            ("RGB", {"subsampling": 2, "progressive": True}),
            ("L", {}),
            ("L", {"progressive": True}),
            ("CMYK", {}),
        ):
            stream = io.BytesIO()
            noise.convert(mode).save(stream, "JPEG", quality=chance.randrange(10, 95), **options)
            found.append((stream.getvalue(), width, height))
    return found


def _start_driver() -> subprocess.Popen[bytes]:
    with tempfile.TemporaryDirectory(prefix="larder-fuzz-") as folder:
        program = Path(folder) / "driver"
        compile_it = ["cc", *build.FLAGS, *SANITIZERS, "-o", str(program), str(DRIVER), "-ljpeg", "-lm"]
        subprocess.run(compile_it, check=True)
        options = {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
        driver = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **options}
        )
        _ask(driver, b"", (0, 0, 1, 1, 1, 1, 0, 0, 0, 8), (1, 1))  # it runs: the folder isn't needed any more
    return driver


def _ask(driver: subprocess.Popen[bytes], data: bytes, crop: tuple[int, ...], window: tuple[int, int]) -> bytes:
    assert driver.stdin and driver.stdout
    driver.stdin.write(struct.pack("=10i2iI", *crop, *window, len(data)) + data)
    driver.stdin.flush()
    answer = driver.stdout.read(1)
    assert answer in (b"d", b"-"), f"the driver ended with {driver.wait()}: see its words above"
    return answer


def _crop(chance: random.Random, width: int, height: int) -> tuple[tuple[int, ...], tuple[int, int]]:
    """A crop inside of the image, or, at times, numbers of any kind."""
    x, y = chance.randrange(width), chance.randrange(height)
    region = (x, y, chance.randint(1, width - x), chance.randint(1, height - y))
    resized = (chance.randint(1, 80), chance.randint(1, 80))
    at = (chance.randrange(resized[0]), chance.randrange(resized[1]))
    window = (chance.randint(1, resized[0] - at[0]), chance.randint(1, resized[1] - at[1]))
    crop = [*region, *resized, *at, chance.randrange(2), chance.choice((1, 2, 4, 8))]
    if chance.random() < 0.05:
        wild = (-1, 0, 1, 65_500, 65_501, 2**31 - 1, -(2**31), chance.randrange(2**31))
        crop[chance.choice((*range(8), 9))] = chance.choice(wild)
    return tuple(crop), window


def _change_frame(data: bytes, chance: random.Random) -> bytes:
    """Change a byte of what the frame says of sizes and samplings: T.81, B.2.2."""
    at = max(data.find(marker) for marker in _START_OF_FRAME)
    changed = bytearray(data)
    changed[at + chance.randrange(1, 19)] = chance.choice((0, 1, 2, 4, 0x11, 0x21, 0x22, 0x41, 0xFF))
    return bytes(changed)


SEEDS = _seeds()
# Started before the harness limits this process's addresses: AddressSanitizer needs terabytes of them.
_driver = _start_driver()


@atexit.register
def _end_driver() -> None:
    """Have it look for leaks, and end this process with a failure if it found any."""
    assert _driver.stdin
    _driver.stdin.close()
    if _driver.wait():
        os._exit(1)


def fuzz(chance: random.Random, folder: Path) -> None:
    """Have a corrupt image decoded by both paths."""
    data, width, height = chance.choice(SEEDS)
    crop, window = _crop(chance, width, height)
    if chance.random() < 0.3:
        data = _change_frame(data, chance)
    if chance.random() < 0.8:
        data = corrupt(data, chance)
    _ask(_driver, data, crop, window)
