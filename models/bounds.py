"""How much work an image file asks for, counted before a decoder sees it: scans, markers, chunks and frames.

A file of a few megabytes can keep a decoder busy for minutes without being large: a progressive JPEG of forty thousand
scans, a PNG of a million chunks, a TIFF of thirty thousand directories. No camera and no program writes such files.
"""

from collections.abc import Callable

from PIL import Image

MAX_SCANS = 100  # of a progressive JPEG; encoders write about ten
MAX_SEGMENTS = 2_000  # of a JPEG before its first scan; a color profile of 16 MB takes 256
MAX_CHUNKS, BYTES_A_CHUNK = 10_000, 1_000  # of a PNG: so many, or more if each holds so much
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers of a JPEG that nothing follows


def is_endless(data: bytes) -> bool:
    """Whether a JPEG or PNG has more parts than any honest file."""
    if data.startswith(b"\xff\xd8"):
        return data.count(b"\xff\xda") > MAX_SCANS or _count_segments(data) > MAX_SEGMENTS
    if data.startswith(b"\x89PNG"):
        return _has_many_chunks(data)
    return False


def has_second_frame(image: Image.Image, open_again: Callable[[], Image.Image]) -> bool:
    """Whether an opened file holds more than one frame.

    GIF and TIFF count their frames by walking through the file. So of these only the second one is asked for, in a file
    that is opened once more.
    """
    if image.format not in ("GIF", "TIFF"):
        return bool(getattr(image, "is_animated", False))
    with open_again() as again:
        try:
            again.seek(1)
        except (EOFError, ValueError, SyntaxError, OSError):
            return False
    return True


def _count_segments(data: bytes) -> int:
    """Segments of a JPEG before its first scan, or one more than there may be."""
    at, n = 2, 0
    while n <= MAX_SEGMENTS and at + 4 <= len(data):
        if data[at] != 0xFF:
            return n
        marker = data[at + 1]
        if marker == 0xDA:
            return n
        if marker == 0xFF:
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        n += 1
    return n


def _has_many_chunks(data: bytes) -> bool:
    most = max(MAX_CHUNKS, len(data) // BYTES_A_CHUNK)
    at, n = 8, 0
    while at + 8 <= len(data):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
        n += 1
        if n > most:
            return True
    return False
