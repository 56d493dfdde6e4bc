"""Files that ask for far more work than their size: refused before a decoder sees them, in milliseconds."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from models import bounds, pixels
from models.pixels import BadImage
from tests.factories import picture

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def saved(form: str, **how) -> bytes:
    out = io.BytesIO()
    Image.fromarray(NOISE).save(out, form, **how)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def many_scans(n: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    data = saved("JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * n + b"\xff\xd9"


def many_chunks(n: int) -> bytes:
    data = picture()
    return data[:33] + chunk(b"tEXt", b"a\0b") * n + data[33:]


def many_segments(n: int) -> bytes:
    return b"\xff\xd8" + b"\xff\xfe\x00\x02" * n + saved("JPEG")[2:]


def many_directories(n: int) -> bytes:
    """A TIFF of one pixel and as many directories."""
    entries = [(256, 3, 1, 1), (257, 3, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    entries += [(277, 3, 1, 1), (278, 3, 1, 1), (279, 4, 1, 1)]
    size = 2 + 12 * len(entries) + 4
    out = b"II*\0" + struct.pack("<I", 12) + b"\x80\0\0\0"
    for number in range(n):
        following = 12 + size * (number + 1) if number + 1 < n else 0
        out += struct.pack("<H", len(entries))
        out += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", following)
    return out


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (many_scans(40_000), "too_many_parts"),
        (many_chunks(1_000_000), "too_many_parts"),
        (many_segments(1_000_000), "too_many_parts"),
        (many_directories(30_000), "animated_image"),
    ],
    ids=["scans", "chunks", "segments", "directories"],
)
def test_endless_files_are_refused_at_once(data, code):
    started = time.thread_time()

    with pytest.raises(BadImage) as error:
        pixels.open_image(data, pixels.IN_DATASETS)

    assert error.value.code == code
    assert time.thread_time() - started < 0.1  # CPU seconds; a decoder takes up to minutes


@pytest.mark.parametrize(
    "data",
    [
        saved("JPEG", progressive=True),
        saved("JPEG", icc_profile=b"x" * 500_000),
        saved("PNG"),
        saved("TIFF"),
        saved("GIF"),
        saved("WEBP"),
        many_directories(1),
        many_chunks(9_000),
        many_segments(1_500),
    ],
)
def test_honest_files_are_read(data):
    assert pixels.load(pixels.open_image(data, pixels.IN_DATASETS)).size in ((64, 64), (8, 8), (1, 1))


def test_frames_are_told_from_one_picture():
    for form in ("GIF", "TIFF", "WEBP", "PNG"):
        frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
        out = io.BytesIO()
        frames[0].save(out, form, save_all=True, append_images=frames[1:])
        with pytest.raises(BadImage) as error:
            pixels.open_image(out.getvalue(), pixels.IN_DATASETS)
        assert error.value.code == "animated_image"


def test_a_chunk_of_a_large_file_counts_by_its_size():
    body = chunk(b"IDAT", bytes(1_000)) * 30_000
    assert not bounds.is_endless(b"\x89PNG\r\n\x1a\n" + body)
    assert bounds.is_endless(b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b"x") * 30_000)
