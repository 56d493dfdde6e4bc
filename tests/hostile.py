"""Files made to do harm or to be misread, by kind: what nobody should be able to hurt the service with."""

import gzip
import io
import itertools
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.factories import idx, npy, npz, picture, tarred, zipped

GOOD = picture()
ROUGH = np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8)
NAMES = [
    "../a.png", "../../../../etc/passwd.png", "/a.png", "//host/a.png", "C:\\a.png", "C:a.png", "..\\a.png",
    "a/../../b.png", "\\\\host\\share\\a.png", "./../a.png", "a/\0b.png", "....//....//a.png/../../../x.png",
]  # fmt: skip
FORMS = {"png": "PNG", "jpeg": "JPEG", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF", "webp": "WEBP"}
OTHER_FORMS = {"ico": "ICO", "ppm": "PPM", "tga": "TGA", "pcx": "PCX", "sgi": "SGI", "jp2": "JPEG2000", "dds": "DDS"}


@cache
def archives() -> dict[str, bytes]:
    """Whole uploads: zip, tar, npz, npy, IDX, Parquet."""
    return dict(itertools.chain(_zips(), _tars(), _arrays(), _tables(), _cut(), _two_in_one()))


@cache
def images() -> dict[str, bytes]:
    """Single files that call themselves images."""
    return dict(itertools.chain(_huge_images(), _frames(), _other_forms(), _cut_images(), _changed_images()))


def _zips() -> Iterator[tuple[str, bytes]]:
    for number, name in enumerate(NAMES):
        yield f"zip, name {number}", zipped({name: GOOD})
    for mode in (0o120777, 0o020666, 0o060666, 0o010666, 0o140777):  # link, devices, pipe, socket
        info = zipfile.ZipInfo("a.png")
        info.external_attr = mode << 16
        yield f"zip, file of mode {mode:o}", _zip_of([(info, b"/etc/passwd")])
    yield "zip, the same name often", _zip_of([(zipfile.ZipInfo("a.png"), GOOD)] * 50)
    yield "zip, overlapping entries", _overlapping(200)
    for field, offset in (("packed", 20), ("unpacked", 24), ("place", 42), ("comment", 32), ("name", 28)):
        for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFE):
            yield f"zip, {field} size of {value}", _changed_directory(offset, value)
    inner = zipped({"a.png": GOOD})
    for _ in range(5):
        inner = zipped({"inner.zip": inner})
    yield "zip in zip in zip", inner
    yield "zip that holds itself", zipped({"self.zip": zipped({"a.png": GOOD}), "self.png": zipped({"b.png": GOOD})})
    yield "zip, all too well packed", zipped({f"{n}.png": bytes(40 << 20) for n in range(3)})
    yield "zip, many empty files", zipped({f"{n}.png": b"" for n in range(20_000)})
    for kind in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"zip of compression {kind}", zipped({"a.png": bytes(1 << 20)}, kind)
    yield "zip, a count that lies", _changed_end(10, struct.pack("<H", 60_000))
    yield "zip, a place that lies", _changed_end(16, struct.pack("<I", 0xFFFFFFF0))
    yield "zip with much behind it", zipped({"a.png": GOOD}) + bytes(100_000)


def _zip_of(files: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    import warnings

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a name comes twice is the point
        for info, data in files:
            archive.writestr(info, data)
    return out.getvalue()


def _overlapping(n: int) -> bytes:
    """A directory whose entries all point at the same packed bytes."""
    data = zipped({"a.png": bytes(4 << 20)})
    directory = data.index(b"PK\x01\x02")
    entry = data[directory : data.index(b"PK\x05\x06")]
    entries = b"".join(entry[:46] + b"%c%c%c%c%c" % tuple(f"{number:05d}".encode()) for number in range(n))
    end = struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, n, n, len(entries), directory, 0)
    return data[:directory] + entries + end


def _changed_directory(offset: int, value: int) -> bytes:
    data = bytearray(zipped({"a.png": GOOD, "b.png": GOOD}))
    at = data.index(b"PK\x01\x02") + offset
    packed = struct.pack("<I", value) if offset in (20, 24, 42) else struct.pack("<H", value & 0xFFFF)
    data[at : at + len(packed)] = packed
    return bytes(data)


def _changed_end(offset: int, value: bytes) -> bytes:
    data = bytearray(zipped({"a.png": GOOD}))
    at = data.index(b"PK\x05\x06") + offset
    data[at : at + len(value)] = value
    return bytes(data)


def _tars() -> Iterator[tuple[str, bytes]]:
    for number, name in enumerate(NAMES):
        if "\0" not in name:
            yield f"tar, name {number}", tarred({name: GOOD}, "w")
    kinds = (
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.BLKTYPE,
        tarfile.FIFOTYPE,
        tarfile.GNUTYPE_SPARSE,
    )
    for kind in kinds:
        yield f"tar, entry of type {kind!r}", _tar_of_type(kind)
    for size in (-1, 1 << 33, 8**11 - 1):
        header = bytearray(tarfile.TarInfo("a.png").tobuf())
        header[124:136] = b"%011o\0" % size if size >= 0 else b"\xff" * 12
        yield f"tar, size of {size}", _signed(header) + bytes(512)
    yield "tar.gz, too well packed", tarred({f"{n}.png": bytes(40 << 20) for n in range(3)})
    yield "tar.gz in tar.gz", tarred({"a.tar.gz": tarred({"a.png": bytes(1 << 20)})})
    yield "gzip, a hundred members", gzip.compress(bytes(1 << 20)) * 100
    extended = tarfile.TarInfo("a.png")
    extended.pax_headers = {"comment": "x" * (8 << 20)}
    yield "tar, a long comment", _tar_with(extended)
    yield "tar of a million empty blocks", gzip.compress(bytes(512 << 16))


def _tar_of_type(kind: bytes) -> bytes:
    info = tarfile.TarInfo("a.png")
    info.type, info.linkname = kind, "/etc/passwd"
    return _tar_with(info)


def _tar_with(info: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.addfile(info)
    return out.getvalue()


def _signed(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _arrays() -> Iterator[tuple[str, bytes]]:
    shapes = [
        "(2**40,)",
        "(-1, 8, 8)",
        "(1 << 62, 2)",
        "()",
        "(0,)",
        "(10**9, 10**9)",
        "(4, 8, 8, 8, 8)",
        "'x'",
        "None",
    ]
    for shape in shapes:
        yield f"npy of shape {shape}", _npy_header(shape)
    for kind in ("|O", "<U1000", "|V9", "[('a', '<f4')]", "<M8[s]", ">c16", "|S4", "garbage", "__import__('os')"):
        yield f"npy of type {kind}", _npy_header("(4, 4)", kind) + bytes(256)
    yield "npy, endless header", b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFFFFF0) + b"{" * 1000
    yield "npy, deep header", b"\x93NUMPY\x01\x00" + struct.pack("<H", 60_000) + b"(" * 60_000
    yield "npz of objects", npz(x=np.array([{}, []], dtype=object))
    yield "npz, too well packed", _compressed_npz(np.zeros((4000, 100, 100), np.uint8))
    yield "npz, x is no array", zipped({"x.npy": b"os.system('true')"})
    yield "npz, x is a pickle", zipped({"x.npy": b"\x80\x04cposix\nsystem\n(S'true'\ntR."})
    yield "npz, x twice", _zip_of([(zipfile.ZipInfo("x.npy"), npy(np.zeros((4, 8, 8), np.uint8)))] * 2)
    for sides in ((0xFFFFFFFF, 28, 28), (1, 0xFFFFFFFF, 0xFFFFFFFF), (2, 0, 0), (0xFFFF, 0xFFFF, 1)):
        yield f"IDX of {sides}", bytes([0, 0, 8, 3]) + struct.pack(">3I", *sides) + bytes(2000)
    for kind, n_sides in ((8, 0), (8, 255), (0, 3), (0x0E, 3)):
        yield f"IDX of type {kind}, {n_sides} sides", bytes([0, 0, kind, n_sides]) + bytes(4000)


def _npy_header(shape: str, kind: str = "|u1") -> bytes:
    described = kind if kind.startswith("[") else repr(kind)
    text = f"{{'descr': {described}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(64)


def _compressed_npz(x: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, x=x)
    return out.getvalue()


def _tables() -> Iterator[tuple[str, bytes]]:
    out = io.BytesIO()
    pq.write_table(pa.table({"image": [GOOD] * 4, "label": [0, 1, 0, 1]}), out)
    whole = out.getvalue()
    footer = struct.unpack("<I", whole[-8:-4])[0]
    for value in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF):
        yield f"Parquet, footer of {value}", whole[:-8] + struct.pack("<I", value) + b"PAR1"
    yield "Parquet, encrypted footer", whole[:-4] + b"PARE"
    yield "Parquet, nothing", b"PAR1PAR1"
    for seed in range(12):
        yield f"Parquet, changed footer {seed}", _changed(whole, seed, len(whole) - 8 - footer, len(whole) - 8)
    for seed in range(6):
        yield f"Parquet, changed pages {seed}", _changed(whole, seed, 4, len(whole) - 8 - footer)
    out = io.BytesIO()
    pq.write_table(pa.table({"image": pa.array([bytes(1 << 20)] * 400)}), out, compression="zstd")
    yield "Parquet, too well packed", out.getvalue()


def _cut() -> Iterator[tuple[str, bytes]]:
    whole = {
        "zip": zipped({"a.png": picture(ROUGH), "b.png": GOOD}),
        "tar": tarred({"a.png": picture(ROUGH), "b.png": GOOD}, "w"),
        "tar.gz": tarred({"a.png": picture(ROUGH), "b.png": GOOD}),
        "npz": npz(x=np.zeros((4, 8, 8), np.uint8)),
        "npy": npy(np.zeros((40, 4))),
        "IDX": idx(np.zeros((4, 8, 8), np.uint8)),
    }
    for name, data in whole.items():
        for share in (0.3, 0.6, 0.95):
            yield f"{name}, cut at {share:.0%}", data[: int(len(data) * share)]
        for seed in range(3):
            yield f"{name}, changed {seed}", _changed(data, seed, 0, len(data))


def _two_in_one() -> Iterator[tuple[str, bytes]]:
    archive = zipped({"../a.png": GOOD})
    for name, head in (
        ("PNG", GOOD),
        ("GIF", picture(form="GIF")),
        ("PDF", b"%PDF-1.7\n"),
        ("HTML", b"<script>1</script>"),
    ):
        yield f"{name} and zip in one", head + archive
    yield "gzip and zip in one", gzip.compress(b"x") + archive


def _huge_images() -> Iterator[tuple[str, bytes]]:
    for width, height in ((40_000, 40_000), (0x7FFFFFFF, 0x7FFFFFFF), (1, 0x7FFFFFFF), (0, 0), (17_000, 2)):
        yield f"PNG of {width}x{height}", _png(struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        yield (
            f"BMP of {width}x{height}",
            b"BM"
            + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, *_signed32(width, height), 1, 24, 0, 0, 0, 0, 0, 0)
            + bytes(99),
        )
        yield (
            f"GIF of {width}x{height}",
            b"GIF89a"
            + struct.pack("<HHBBB", width & 0xFFFF, height & 0xFFFF, 0, 0, 0)
            + b"\x2c"
            + struct.pack("<HHHHB", 0, 0, width & 0xFFFF, height & 0xFFFF, 0)
            + b"\x02\x02\x44\x01\x00;",
        )
    for bits, kind in ((99, 0), (16, 9), (1, 6), (8, 255)):
        yield f"PNG of {bits} bits, kind {kind}", _png(struct.pack(">IIBBBBB", 8, 8, bits, kind, 0, 0, 0))
    yield (
        "PNG, a text of 60 MB",
        _png(struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0), b"zTXt", b"k\0\0" + zlib.compress(bytes(60 << 20))),
    )
    yield (
        "PNG, a profile of 60 MB",
        _png(struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0), b"iCCP", b"k\0\0" + zlib.compress(bytes(60 << 20))),
    )
    yield (
        "PNG, pixels for a thousand images",
        _png(struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0), pixels=zlib.compress(bytes(60 << 20))),
    )
    for tag, value in (
        (256, 0x7FFFFFFF),
        (257, 0x7FFFFFFF),
        (258, 64),
        (259, 34_925),
        (277, 60_000),
        (273, 0xFFFFFFF0),
    ):
        yield f"TIFF with {tag} = {value}", _tiff(tag, value)
    data = bytearray(picture(ROUGH, "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    yield "JPEG of 65535x65535", bytes(data)
    data = bytearray(picture(ROUGH, "WEBP"))
    data[26:30] = b"\xff\x3f\xff\x3f"
    yield "WebP of 16383x16383", bytes(data)


def _signed32(width: int, height: int) -> tuple[int, int]:
    return width, -height


def _png(
    header: bytes, kind: bytes = b"tEXt", extra: bytes = b"k\0v", pixels: bytes = zlib.compress(b"\0" * 100)
) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    parts = [(b"IHDR", header), (kind, extra), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def _tiff(tag: int, value: int) -> bytes:
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 8, 279: 64} | {tag: value}
    entries = b"".join(struct.pack("<HHII", name, 4, 1, number) for name, number in sorted(tags.items()))
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)).ljust(200, b"\0") + bytes(64)


def _frames() -> Iterator[tuple[str, bytes]]:
    pictures = [Image.fromarray(np.full((8, 8), gray, np.uint8)) for gray in range(0, 250, 5)]
    for name, form in (("GIF", "GIF"), ("TIFF", "TIFF"), ("WebP", "WEBP"), ("PNG", "PNG")):
        out = io.BytesIO()
        pictures[0].save(out, form, save_all=True, append_images=pictures[1:])
        yield f"{name} of 50 frames", out.getvalue()


def _other_forms() -> Iterator[tuple[str, bytes]]:
    for name, form in OTHER_FORMS.items():
        yield f"an image in {name}", picture(ROUGH, form)
    yield "an image in svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>"
    yield "an image in eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%true) (w) file"
    yield "an image in pdf", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj"
    yield "a program", b"\x7fELF" + bytes(200)
    yield "a pickle", b"\x80\x04cposix\nsystem\n(S'true'\ntR."


def _cut_images() -> Iterator[tuple[str, bytes]]:
    for name, form in FORMS.items():
        data = picture(ROUGH, form)
        for share in (0.1, 0.5, 0.9):
            yield f"{name} cut at {share:.0%}", data[: max(4, int(len(data) * share))]


def _changed_images() -> Iterator[tuple[str, bytes]]:
    for name, form in FORMS.items():
        for seed in range(6):
            yield f"{name} changed {seed}", _changed(picture(ROUGH, form), seed, 0, len(picture(ROUGH, form)))


def _changed(data: bytes, seed: int, start: int, stop: int) -> bytes:
    """Some bytes between two places set to anything."""
    rng, changed = np.random.default_rng(seed), bytearray(data)
    for at in rng.integers(start, max(stop, start + 1), max(1, (stop - start) // 60)):
        changed[at] = rng.integers(256)
    return bytes(changed)
