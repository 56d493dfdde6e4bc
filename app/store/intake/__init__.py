"""Readers of uploaded files, used by the API's header check and by ingest: what a file is, and what is in it."""

from typing import IO

from app.errors import BadUpload, UnsupportedFormat
from app.store.intake.arrays import NpySource, open_npz
from app.store.intake.columns import ParquetVectorSource
from app.store.intake.sources import ImageEntry, ImageSource, Reject, Source, VectorSource
from app.store.intake.zips import SafeZip, ZipSource

__all__ = ["ImageEntry", "ImageSource", "Reject", "Source", "VectorSource", "open_source"]


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
    if head.startswith(b"\x93NUMPY"):
        return NpySource(file)
    if head.startswith(b"PAR1"):
        return ParquetVectorSource(file)
    if head.startswith(b"PK"):
        archive = SafeZip(file)
        return open_npz(archive) if archive.has("x.npy") else ZipSource(archive)
    raise UnsupportedFormat("send a zip of images, an .npz with `x`, or a .npy or Parquet file of vectors")
