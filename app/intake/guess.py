"""What a file that is not read seems to be, for the sentence that refuses it."""

from pathlib import PurePosixPath

from models.pixels import BadImage

_MAGICS = (
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"MATLAB", "a MATLAB file"),
    (b"PAR1", "a Parquet file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"PK\x03\x04", "a zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7-Zip archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"8BPS", "a Photoshop file"),
    (b"SIMPLE  =", "a FITS image"),
    (b"\x1aE\xdf\xa3", "a Matroska video"),
    (b"ARROW1", "an Arrow file"),
    (b"Obj\x01", "an Avro file"),
    (b"SQLite format 3", "a SQLite database"),
    (b"\x80\x04", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x02", "a Python pickle"),
    (b"\0\0\x08\x03", "an IDX file of images"),
    (b"\0\0\x08\x01", "an IDX file of labels"),
    (b"\x76\x2f\x31\x01", "an OpenEXR image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML file"),
    (b"<!DOCTYPE html", "a web page"),
    (b"<html", "a web page"),
)
_PICTURES = (
    (b"\x89PNG", "PNG"),
    (b"\xff\xd8", "JPEG"),
    (b"GIF8", "GIF"),
    (b"II", "TIFF"),
    (b"MM", "TIFF"),
    (b"RIFF", "WebP"),
    (b"BM", "BMP"),
)
_RAW_CAMERAS = {".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"}
_VIDEOS = {b"mp4", b"iso", b"qt ", b"M4V", b"avc", b"3gp"}


def seems(head: bytes, name: str = "") -> str:
    """A few words for what a file seems to be, by its first bytes and its name: "a PDF document"."""
    ending = PurePosixPath(name.lower()).suffix
    if not head:
        return "an empty file"
    if ending in _RAW_CAMERAS:
        return f"a camera's raw file ({ending[1:].upper()})"
    if head[4:8] == b"ftyp":
        return "a video" if head[8:11] in _VIDEOS else "an image in a container that is not read"
    for magic, words in _MAGICS:
        if head.lstrip()[: len(magic)].lower() == magic.lower() or head.startswith(magic):
            return words
    if head[:4] == b"RIFF" and head[8:12] != b"WEBP":
        return "an AVI or WAV file"
    for magic, form in _PICTURES:
        if head.startswith(magic):
            return f"a {form} file that is damaged or of a kind that is not read"
    return _text(head)


def why(error: BadImage, head: bytes, name: str) -> str:
    """Why a file is refused; what is no image is called what it seems to be."""
    if error.code != "not_an_image":
        return str(error)
    words = seems(head, name)
    return f"it is {words}" if "not read" in words else f"it is {words}, not an image"


def _text(head: bytes) -> str:
    try:
        text = head[:4096].decode("utf-8-sig", "ignore" if len(head) >= 4096 else "strict")
    except UnicodeDecodeError:
        return "a file of an unknown kind"
    if any(ord(letter) < 32 and letter not in "\t\r\n\f" for letter in text):
        return "a file of an unknown kind"
    start = text.lstrip()[:1]
    return "a JSON file" if start in ("{", "[") else "a text file"
