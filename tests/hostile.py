"""Malicious manifests, indexes, shards, chunks and images, for every reader.

Each table has the name of an attack and what it makes of the sound thing. A reader ends with an error of ours, or reads
on as if nothing were wrong; it runs nothing, leaves nothing anywhere, and takes little memory.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

HUGE = 10**400
ARROW_FOOTER = b"LDARW01\0"
DEEP = b"[" * 100_000


class Payload:
    """An object that creates the file `mark` when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self._mark), "w")


def payload(mark: Path) -> bytes:
    """Return a pickle that creates the file `mark`."""
    return pickle.dumps(Payload(mark))


def dumped(value: Any) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def changed(**fields: Any) -> Callable[[bytes], bytes]:
    """Return the object with other values of some keys. `a__b` names the key b inside of a."""

    def change(data: bytes) -> bytes:
        value = json.loads(data)
        for name, new in fields.items():
            *outer, last = name.split("__")
            place = value
            for key in outer:
                place = place[key]
            place[last] = new
        return dumped(value)

    return change


def each_chunk(**fields: Any) -> Callable[[bytes], bytes]:
    """LitData's index with other values for each chunk."""
    return lambda data: changed(chunks=[chunk | fields for chunk in json.loads(data)["chunks"]])(data)


def instead(data: bytes) -> Callable[[bytes], bytes]:
    """Return a function that replaces the whole by something else."""
    return lambda _: data


def number(name: str, text: bytes) -> Callable[[bytes], bytes]:
    """Replace a number by a form that Python doesn't write."""
    return lambda data: changed(**{name: "HERE"})(data).replace(b'"HERE"', text)


NO_JSON: dict[str, Callable[[bytes], bytes]] = {
    "empty": instead(b""),
    "null": instead(b"null"),
    "a list": instead(b"[]"),
    "a number": instead(b"5"),
    "text": instead(b'"text"'),
    "deep": instead(DEEP),
    "no UTF-8": instead(b"\xff\xfe{}"),
    "zeros": instead(bytes(500)),
    "deep inside": lambda data: data.rstrip()[:-1] + b',"x":' + DEEP + b"}",
}

MANIFESTS = NO_JSON | {
    "a key twice": lambda data: data.rstrip()[:-1] + b',"files":1}',
    "a key more": changed(pickle="x"),
    "text for a number": changed(files="1"),
    "NaN": number("bytes", b"NaN"),
    "infinity": number("bytes", b"1e400"),
    "a fraction": number("bytes", b"1.5"),
    "negative": changed(bytes=-1),
    "huge": changed(files=HUGE),
    "a truth": changed(files=True),
    "a path for a digest": changed(index__sha256="../../../../etc/passwd"),
    "no digest": changed(index__sha256="0" * 63),
    "an index without end": changed(index__bytes=1 << 62),
    "a split outside": lambda data: changed(splits={"../..": json.loads(data)["splits"]["training"]})(data),
    "a split without a name": lambda data: changed(splits={"": json.loads(data)["splits"]["training"]})(data),
    "samples without end": changed(splits__training__samples=1 << 62),
    "huge samples": changed(splits__training__samples=HUGE),
    "fewer classes": changed(splits__training__samples_per_class=[1]),
    "splits that are none": changed(splits=[]),
    "huge settings": changed(settings={"seed": HUGE}),
    "long": lambda data: data.rstrip() + b" " * (33 << 20),
}
"""Of the manifest."""

LINES = NO_JSON | {
    "outside": changed(path="../../x.jpg"),
    "absolute": changed(path="/etc/passwd"),
    "outside in the middle": changed(path="training/../../x.jpg"),
    "no part": changed(path="training//x.jpg"),
    "no name": changed(path=""),
    "NUL": changed(path="training/\0.jpg"),
    "half a character": lambda data: changed(path="HERE")(data).replace(b"HERE", rb"\ud800"),
    "a number for a path": changed(path=5),
    "negative": changed(bytes=-1),
    "text for a number": changed(bytes="5"),
    "infinity": number("bytes", b"1e400"),
    "NaN": number("bytes", b"NaN"),
    "huge": changed(bytes=HUGE),
    "a truth": changed(bytes=True),
    "no digest": changed(sha256="../x"),
    "a list for a digest": changed(sha256=["0"] * 64),
    "a key more": changed(pickle="x"),
    "long": changed(source="x" * (3 << 20)),
}
"""Of a line of the index."""
LABELS = {
    "class huge": changed(**{"class": HUGE}),
    "class negative": changed(**{"class": -1}),
    "class of more than there are": changed(**{"class": 1000}),
    "class large": changed(**{"class": 1 << 40}),
    "class in words": changed(**{"class": "bread"}),
    "class a fraction": number("class", b"0.5"),
}
"""Of a line of the index of a tree or of objects."""

CHUNK_INDEXES = NO_JSON | {
    "pickle": changed(config__data_format=["pickle", "int"], config__types={"image": "pickle", "label": "int"}),
    "pickle alone": changed(config__data_format=["pickle", "int"]),
    "pickle for the label": changed(config__data_format=["bytes", "pickle"]),
    "graphs": changed(config__data_format=["graph:pickle", "int"]),
    "JPEG": changed(config__data_format=["jpeg", "int"]),
    "PIL": changed(config__data_format=["pil", "int"]),
    "tensors": changed(config__data_format=["tensor", "int"]),
    "arrays": changed(config__data_format=["numpy", "int"]),
    "tokens": changed(config__data_format=["no_header_tensor:16"], config__item_loader="TokensLoader"),
    "another loader": changed(config__item_loader="ParquetLoader"),
    "modules to import": changed(
        config__data_spec=json.dumps(
            [
                1,
                {
                    "type": "collections.defaultdict",
                    "children_spec": [],
                    "context": json.dumps(
                        {"default_factory_module": "antigravity", "default_factory_name": "geohash", "dict_context": []}
                    ),
                },
            ]
        )
    ),
    "zstd": changed(config__compression="zstd", config__compression_level="batch"),
    "encryption": changed(config__encryption={"algorithm": "fernet", "level": "sample"}),
    "Arrow": changed(config__ipc_compression="zstd"),
    "MDS": changed(config__format="mds"),
    "shards for chunks": lambda data: dumped({"shards": [], "version": 2}),
    "no chunks": changed(chunks=[]),
    "a name outside": each_chunk(filename="../x.bin"),
    "an absolute name": each_chunk(filename="/x.bin"),
    "another's name": each_chunk(filename="chunk-1-0.bin"),
    "a region": each_chunk(region_of_interest=[0, 1]),
    "one twice": lambda data: changed(chunks=json.loads(data)["chunks"][:1] * 2)(data),
    "one less": lambda data: changed(chunks=json.loads(data)["chunks"][1:])(data),
    "more samples": each_chunk(chunk_size=10**9),
    "no samples": each_chunk(chunk_size=0),
    "huge samples": each_chunk(chunk_size=HUGE),
    "another length": each_chunk(chunk_bytes=1 << 40),
    "a time that is a path": changed(updated_at="../../../../tmp"),
    "a key twice": lambda data: data[:-1] + b',"chunks":[]}',
    "long": lambda data: data + b" " * (1 << 20),
}
"""Of LitData's index."""


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, size: int | None = None, **more: Any
) -> bytes:
    """A tar header with content, whatever size the header states."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content) if size is None else size
    for field, value in more.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


def sparse(name: str, size: int) -> bytes:
    """GNU's header of a sparse file of so many bytes, of which none is there."""
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:482] = bytes(96)
    block[386:410] = b"%011o\0%011o\0" % (0, 0)
    block[483:495] = b"\x80" + size.to_bytes(11)
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def pax(**records: str) -> bytes:
    """A pax header of these records."""
    body = b""
    for key, value in records.items():
        text = f" {key.replace('__', '.')}={value}\n".encode()
        length = len(text) + len(str(len(text)))
        length = len(text) + len(str(length))
        body += b"%d" % length + text
    return member("PaxHeaders/0", body, tarfile.XHDTYPE)


def shards(mark: Path) -> dict[str, Callable[[bytes], bytes]]:
    """Malicious shards. Payloads create the file `mark`."""
    label, corrupt = member("0.cls", b"0"), payload(mark)

    def sample(extension: str) -> Callable[[bytes], bytes]:
        return instead(member(f"0.{extension}", corrupt) + label + bytes(1024))

    extensions = ("pyd", "pickle", "pkl", "pth", "pt", "npy", "npz", "ten", "json", "jpg", "gz", "zip", "__bad__")
    return {
        **{f"a pickle as .{extension}": sample(extension) for extension in extensions},
        "empty": instead(b""),
        "text": instead(b"no tar at all" * 1000),
        "zeros": instead(bytes(1 << 16)),
        "gzip": lambda data: b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + zlib.compress(bytes(200 << 20))[2:-4],
        "a sparse file": instead(sparse("0.jpg", 8 << 30) + label + bytes(1024)),
        "a sparse file by pax": instead(
            pax(
                GNU__sparse__major="0",
                GNU__sparse__minor="1",
                GNU__sparse__size=str(8 << 30),
                GNU__sparse__numblocks="1",
                GNU__sparse__map="0,0",
            )
            + member("0.jpg")
            + label
            + bytes(1024)
        ),
        "a size by pax": instead(pax(size=str(8 << 30)) + member("0.jpg") + label + bytes(1024)),
        "a size that is none by pax": instead(pax(size="-5") + member("0.jpg") + label + bytes(1024)),
        "a file without end": instead(member("0.jpg", size=7 << 30) + label),
        "a long name": instead(member("././@LongLink", b"x" * (4 << 20), tarfile.GNUTYPE_LONGNAME) + member("0.jpg")),
        "names of names": instead(member("././@LongLink", b"x", tarfile.GNUTYPE_LONGNAME) * 5000 + member("0.jpg")),
        "a link": instead(member("0.jpg", kind=tarfile.SYMTYPE, linkname="/etc/passwd") + label + bytes(1024)),
        "a hard link": instead(member("0.jpg", kind=tarfile.LNKTYPE, linkname="0.cls") + label + bytes(1024)),
        "a device": instead(member("0.jpg", kind=tarfile.CHRTYPE, devmajor=1, devminor=5) + label + bytes(1024)),
        "a folder with content": instead(member("0/", b"x" * 512, tarfile.AREGTYPE) + label + bytes(1024)),
        "a path outside": instead(member("../../../0.jpg", b"x") + member("../../../0.cls", b"0") + bytes(1024)),
        "a class of more than there are": instead(member("0.jpg", b"x") + member("0.cls", b"1000") + bytes(1024)),
        "a huge class": instead(member("0.jpg", b"x") + member("0.cls", b"9" * 5000) + bytes(1024)),
        "a negative class": instead(member("0.jpg", b"x") + member("0.cls", b"-1") + bytes(1024)),
        "lines in a name": instead(
            member("0\nlarder.WorkerError: [].jpg", b"x") + member("0\nlarder.cls", b"0") + bytes(1024)
        ),
    }


def chunk(samples: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A chunk of images and labels."""
    items = [struct.pack("<II", len(image), len(label)) + image + label for image, label in samples]
    offsets = [4 * (len(items) + 2)]
    for item in items:
        offsets.append(offsets[-1] + len(item))
    return struct.pack(f"<{len(offsets) + 1}I", len(items), *offsets) + b"".join(items)


def chunks(mark: Path, samples: int) -> dict[str, Callable[[bytes], bytes]]:
    """Malicious chunks with this number of samples and the same length. Payloads create the file `mark`."""
    zero, corrupt, rows = struct.pack("<q", 0), payload(mark), arrow_rows()

    def padded(head: bytes) -> Callable[[bytes], bytes]:
        return lambda data: (head + bytes(len(data)))[: len(data)]

    count = struct.pack("<I", samples)
    return {
        "pickles": padded(chunk([(corrupt, zero)] * samples)),
        "labels of more than there are": padded(chunk([(b"x", struct.pack("<q", 1000))] * samples)),
        "negative labels": padded(chunk([(b"x", struct.pack("<q", -1))] * samples)),
        "short labels": padded(chunk([(b"x", b"\0")] * samples)),
        "zeros": padded(b""),
        "frames": padded(b"LDFZ01\0\0" + count * 1000),
        "offsets outside": padded(count + b"\xff\xff\xff\xff" * (samples + 1)),
        "offsets backwards": padded(count + struct.pack("<II", 4000, 100) * samples),
        "sizes outside": padded(count + struct.pack("<I", 4 * (samples + 2)) * (samples + 1) + b"\xff" * 64),
        "rows of Arrow at its end": lambda data: data[: -len(rows)] + rows,
    }


def arrow_rows() -> bytes:
    """Rows of Arrow, as LitData looks for them at a chunk's end. `bytes()` of a number in them takes a gigabyte."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    table = pa.table({"image": [10**9] * 20, "label": [0] * 20})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content + struct.pack("<I", len(content)) + ARROW_FOOTER


def webp(width: int, height: int) -> bytes:
    """A lossless WebP file that states a size; its data are those of a small one."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "WEBP", lossless=True)
    data = bytearray(file.getvalue())
    start = data.index(b"VP8L") + 9  # behind the chunk's length and a signature: WebP Lossless Bitstream, 3
    data[start : start + 4] = (width - 1 | (height - 1) << 14).to_bytes(4, "little")
    return bytes(data)


def jpeg_of_scans(scans: int, side: int = 64) -> bytes:
    """A progressive JPEG file with so many scans, nearly all of them without new coefficients."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (side, side), 90).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    begin = data.rindex(b"\xff\xda")
    last = data[begin : data.rindex(b"\xff\xd9")]
    return data[:begin] + last * scans + b"\xff\xd9"


def thin(width: int, height: int, kind: str = "JPEG") -> bytes:
    """An image with sides that differ much."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, kind)
    return file.getvalue()


def litdata_index(lengths: dict[str, tuple[int, int]]) -> bytes:
    """LitData's index as larder writes it, of chunks by their names, with their lengths and numbers of samples."""
    leaf: dict[str, Any] = {"type": None, "context": None, "children_spec": []}
    spec = [1, {"type": "builtins.dict", "context": json.dumps(["image", "label"]), "children_spec": [leaf, leaf]}]
    config = {
        "chunk_bytes": 1 << 26,
        "chunk_size": None,
        "compression": None,
        "compression_batch_size": None,
        "compression_level": None,
        "data_format": ["bytes", "int"],
        "data_spec": json.dumps(spec),
        "encryption": None,
        "ipc_compression": None,
        "item_loader": "PyTreeLoader",
        "types": {"image": "bytes", "label": "int"},
    }
    listed = [
        {"chunk_bytes": size, "chunk_size": samples, "dim": None, "filename": name}
        for name, (size, samples) in lengths.items()
    ]
    return json.dumps({"chunks": listed, "config": config, "updated_at": "b38ead16e7aa109e"}, sort_keys=True).encode()
