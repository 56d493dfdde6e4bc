"""Readers of uploaded files, used by the API's header check and by ingest: what a file is, and what is in it."""

from typing import IO

from app.errors import BadUpload, UnsupportedFormat
from app.store.intake.arrays import NpySource, open_npz
from app.store.intake.columns import ParquetVectorSource
from app.store.intake.sources import ImageEntry, ImageSource, Reject, Source, VectorSource
from app.store.intake.zips import SafeZip, ZipSource, directory_bytes

__all__ = ["ImageEntry", "ImageSource", "Reject", "Source", "VectorSource", "check", "open_source"]

CHECKED_DIRECTORY_BYTES = 4 << 20  # about 40,000 entries


def check(file: IO[bytes]) -> None:
    """Refuse at once what can never become a dataset, as far as that is cheap to see; ingest looks at the rest.

    Raises:
        BadUpload, UnsupportedFormat: see `open_source` and the readers' `check`.
    """
    is_zip = file.read(2) == b"PK"
    file.seek(0)
    if not is_zip or directory_bytes(file) <= CHECKED_DIRECTORY_BYTES:
        open_source(file).check()


def open_source(file: IO[bytes]) -> Source:
    """The reader for a file, by its content rather than its name.

    Raises:
        BadUpload: `empty_body`, or what the format's reader finds wrong with the file's headers.
        UnsupportedFormat: no reader knows it.
    """
    head = file.read(8)
    file.seek(0)
    if not head:
        raise BadUpload("the body is empty", code="empty_body")
    try:
        return _reader(file, head)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # Headers that lie make the formats' own parsers raise whatever they meet.
        raise BadUpload("the file's headers are damaged", code="broken_archive") from error


def _reader(file: IO[bytes], head: bytes) -> Source:
    if head.startswith(b"\x93NUMPY"):
        return NpySource(file)
    if head.startswith(b"PAR1"):
        return ParquetVectorSource(file)
    if head.startswith(b"PK"):
        archive = SafeZip(file)
        return open_npz(archive) if archive.has("x.npy") else ZipSource(archive)
    raise UnsupportedFormat("send a zip of images, an .npz with `x`, or a .npy or Parquet file of vectors")
