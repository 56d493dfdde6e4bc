"""Readers of uploaded files, used by the API's header check and by ingest: what a file is, and what is in it."""

import gzip
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from typing import IO, Self

from app.errors import BadUpload, UnsupportedFormat
from app.intake.arrays import NpySource, open_npz
from app.intake.columns import open_parquet
from app.intake.idx import IMAGES_MAGIC, IdxSource, is_gzipped, unzipped
from app.intake.limits import IntakeLimits
from app.intake.pictures import PictureSource
from app.intake.sources import ImageEntry, ImageSource, Reject, Source, VectorSource
from app.intake.tars import TarSource
from app.intake.zips import RefusedEntry, SafeZip, ZipSource, directory_bytes, looks_like_image

__all__ = ["ImageEntry", "ImageSource", "IntakeLimits", "Reject", "Source", "VectorSource", "check", "open_source"]

_TAR_MAGIC_AT = 257
CHECKED_DIRECTORY_BYTES = 4 << 20  # about 40,000 entries


def check(file: IO[bytes], limits: IntakeLimits) -> None:
    """Refuse a file that can never become a dataset, as far as its headers show; ingest checks the rest.

    Raises:
        BadUpload, UnsupportedFormat: see `open_source` and the readers' `check`.
    """
    is_zip = file.read(2) == b"PK"
    file.seek(0)
    if not is_zip or directory_bytes(file) <= CHECKED_DIRECTORY_BYTES:
        open_source(file, limits).check()


def open_source(file: IO[bytes], limits: IntakeLimits, name: str = "upload") -> Source:
    """The reader for a file, by its content; `name` is only what a single image will be called.

    Raises:
        BadUpload: `empty_body`, or what the format's reader finds wrong with the file's headers.
        UnsupportedFormat: no reader knows it.
    """
    head = file.read(8)
    file.seek(0)
    if not head:
        raise BadUpload("the body is empty", code="empty_body")
    try:
        return _reader(file, head, limits, name)
    except (
        ArithmeticError,
        EOFError,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
        LookupError,
        RefusedEntry,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        # Wrong headers make the formats' own parsers raise many kinds of errors.
        raise BadUpload("the file's headers are damaged", code="broken_archive") from error


def _reader(file: IO[bytes], head: bytes, limits: IntakeLimits, name: str) -> Source:
    if head.startswith(b"\x93NUMPY"):
        return NpySource(file)
    if head.startswith(b"PAR1"):
        return open_parquet(file, limits)
    if head.startswith(b"PK"):
        return _zip_reader(SafeZip(file, limits))
    if head.startswith(IMAGES_MAGIC):
        return IdxSource(_again(file), packed_bytes=_size(file), limits=limits)
    if is_gzipped(head):
        inner = unzipped(_again(file))().read(_TAR_MAGIC_AT + 5)
        if inner.startswith(IMAGES_MAGIC):
            return IdxSource(unzipped(_again(file)), packed_bytes=_size(file), limits=limits)
        if inner[_TAR_MAGIC_AT:] == b"ustar":
            return TarSource(file, limits, is_gzipped=True)
    file.seek(_TAR_MAGIC_AT)
    if file.read(5) == b"ustar":
        return TarSource(file, limits, is_gzipped=False)
    # After tar: a tar begins with a file's name, which may look like the first bytes of an image.
    if looks_like_image(head):
        return PictureSource(file, limits, name)
    raise UnsupportedFormat(
        "send images as zip, tar, .npz, IDX or Parquet, one image as it is, or vectors as .npy, .npz or Parquet"
    )


def _zip_reader(archive: SafeZip) -> Source:
    if archive.has("x.npy"):
        return open_npz(archive)
    images = [info for info in archive.files() if "idx3-ubyte" in info.filename]
    labels = [info for info in archive.files() if "idx1-ubyte" in info.filename]
    if len(images) == 1 and len(labels) <= 1:
        openers = [unzipped(partial(archive.open, info)) for info in images + labels]
        return IdxSource(*openers, packed_bytes=images[0].compress_size, limits=archive.limits)
    return ZipSource(archive)


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)


def _again(file: IO[bytes]) -> Callable[[], IO[bytes]]:
    """Opens a file from its beginning, without closing it after."""

    def open_again() -> IO[bytes]:
        file.seek(0)
        return _Kept(file)  # type: ignore[return-value]

    return open_again


class _Kept:
    """A file that outlives the `with` of its reader."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read = file.read
        self.seek = file.seek

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the file open."""
