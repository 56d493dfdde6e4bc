"""Readers of uploaded files, used by the API's header check and by ingest: what a file is, and what is in it."""

import gzip
import re
import shutil
import tempfile
import zipfile
import zlib
from contextlib import ExitStack
from functools import partial
from pathlib import PurePosixPath
from typing import IO

from app.errors import BadUpload, UnsupportedFormat
from app.intake.columns import open_table
from app.intake.csvs import HEAD_BYTES, CsvTable, looks_like_csv
from app.intake.guess import seems
from app.intake.idx import IMAGES_MAGIC, IdxPart, IdxSource, is_gzipped, pair_files, unzipped
from app.intake.kept import from_beginning
from app.intake.limits import IntakeLimits
from app.intake.names import split_named
from app.intake.notes import listed, note
from app.intake.npz import open_npy, open_npz
from app.intake.parquets import ParquetTable
from app.intake.pictures import PictureSource
from app.intake.sources import ImageEntry, ImageSource, Reject, Source, VectorSource, Wanted
from app.intake.tars import TarSource
from app.intake.zips import RefusedEntry, SafeZip, ZipSource, directory_bytes, looks_like_image

__all__ = [
    "ImageEntry",
    "ImageSource",
    "IntakeLimits",
    "Reject",
    "Source",
    "VectorSource",
    "Wanted",
    "check",
    "open_source",
]

_TAR_MAGIC_AT = 257
_TABLES = {".parquet", ".npz", ".npy", ".csv", ".tsv"}
_TEXTS = {".txt", ".md", ".json", ".yaml", ".yml", ".rst", ".license"}
COPIED_BYTES, MAX_SHARDS = 1 << 20, 200
CHECKED_DIRECTORY_BYTES = 4 << 20  # about 40,000 entries


def check(file: IO[bytes], limits: IntakeLimits, wanted: Wanted | None = None) -> None:
    """Refuse a file that can never become a dataset, as far as its headers show; ingest checks the rest.

    Raises:
        BadUpload, UnsupportedFormat: see `open_source` and the readers' `check`.
    """
    is_zip = file.read(2) == b"PK"
    file.seek(0)
    if is_zip and (directory_bytes(file) > CHECKED_DIRECTORY_BYTES or _holds_tables(SafeZip(file, limits))):
        return  # a large directory takes long, and a table in a zip has to be unpacked
    file.seek(0)
    open_source(file, limits, wanted=wanted).check()


def open_source(file: IO[bytes], limits: IntakeLimits, name: str = "upload", wanted: Wanted | None = None) -> Source:
    """The reader for a file, by its content.

    Args:
        file: seekable, at its beginning.
        limits: how much it may hold.
        name: what a single image will be called, and what a refusal may go by.
        wanted: what the caller says of it.

    Raises:
        BadUpload: `empty_body`, or what the format's reader finds wrong with the file's headers.
        UnsupportedFormat: no reader knows it.
    """
    head = file.read(HEAD_BYTES)
    file.seek(0)
    if not head:
        raise BadUpload("the body is empty", code="empty_body")
    try:
        source = _reader(file, head, limits, name, wanted or Wanted())
    except RefusedEntry as refusal:
        raise BadUpload(str(refusal), code=refusal.code) from refusal
    except (
        ArithmeticError,
        EOFError,
        gzip.BadGzipFile,
        zipfile.BadZipFile,
        LookupError,
        TypeError,
        ValueError,
        zlib.error,
    ) as error:
        # Wrong headers make the formats' own parsers raise many kinds of errors.
        raise BadUpload("the file's headers are damaged", code="broken_archive") from error
    if isinstance(source, ZipSource | TarSource | IdxSource | PictureSource) and (wanted or Wanted()).names_columns:
        raise BadUpload(
            "there are no columns in pictures; leave `columns`, `target` and `names` out", code="unknown_column"
        )
    return source


def _reader(file: IO[bytes], head: bytes, limits: IntakeLimits, name: str, wanted: Wanted) -> Source:
    if head.startswith(b"\x93NUMPY"):
        return open_npy(file, limits)
    if head.startswith(b"PAR1"):
        return open_table(ParquetTable([file], limits), limits, wanted)
    if head.startswith(b"PK"):
        return _zip_reader(SafeZip(file, limits), wanted)
    if head.startswith(IMAGES_MAGIC):
        return IdxSource([IdxPart(partial(from_beginning, file), None, _size(file))], limits)
    if is_gzipped(head):
        inner = unzipped(partial(from_beginning, file))().read(_TAR_MAGIC_AT + 5)
        if inner.startswith(IMAGES_MAGIC):
            return IdxSource([IdxPart(unzipped(partial(from_beginning, file)), None, _size(file))], limits)
        if inner[_TAR_MAGIC_AT:] == b"ustar":
            return TarSource(file, limits, is_gzipped=True, are_targets=wanted.are_folders_targets)
    if head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar":
        return TarSource(file, limits, is_gzipped=False, are_targets=wanted.are_folders_targets)
    # After tar: a tar begins with a file's name, which may look like the first bytes of an image.
    if looks_like_image(head):
        return PictureSource(file, limits, name)
    if looks_like_csv(head):
        return open_table(CsvTable(file, limits.max_entries), limits, wanted)
    raise UnsupportedFormat(
        f"this seems to be {seems(head, name)}; send images as zip, tar, .npz, .npy, IDX, CSV or Parquet, one image as "
        "it is, or vectors as .npy, .npz, CSV or Parquet"
    )


def _zip_reader(archive: SafeZip, wanted: Wanted) -> Source:
    files = archive.files()
    if _is_npz(archive):
        return open_npz(archive, wanted)
    if _holds_tables(archive):
        return _inner(archive, wanted)
    by_name = {info.filename: info for info in files}
    images = [name for name in by_name if "idx3-ubyte" in name]
    pairs = pair_files(images, [name for name in by_name if "idx1-ubyte" in name]) if images else None
    if pairs:
        opener = {name: partial(archive.open, info) for name, info in by_name.items()}
        parts = [
            IdxPart(
                unzipped(opener[name]), unzipped(opener[label]) if label else None, by_name[name].compress_size, split
            )
            for name, label, split in pairs
        ]
        return IdxSource(parts, archive.limits)
    return ZipSource(archive, are_targets=wanted.are_folders_targets)


def _is_npz(archive: SafeZip) -> bool:
    """Whether a zip is one that NumPy writes."""
    files = archive.files()
    return bool(files) and all(info.filename.endswith(".npy") and "/" not in info.filename for info in files)


def _holds_tables(archive: SafeZip) -> bool:
    """Whether a zip holds files of arrays or tables, and beside them nothing but text."""
    endings = {PurePosixPath(info.filename.lower()).suffix for info in archive.files()} - _TEXTS
    return bool(endings) and endings <= _TABLES and not _is_npz(archive)


def _inner(archive: SafeZip, wanted: Wanted) -> Source:
    """The reader of the one table or array in a zip, or of the Parquet shards."""
    files = [info for info in archive.files() if PurePosixPath(info.filename.lower()).suffix in _TABLES]
    is_shards = all(info.filename.lower().endswith(".parquet") for info in files)
    if len(files) > 1 and not is_shards:
        several = listed([info.filename for info in files])
        raise BadUpload(f"the archive holds several tables: {several}; upload one of them", code="several_tables")
    if archive.is_bomb:
        raise archive.limits.refuse_bomb()
    if len(files) > MAX_SHARDS:
        raise BadUpload(f"the archive holds more than {MAX_SHARDS} tables; join some", code="too_many_entries")
    with ExitStack() as stack:
        files.sort(key=lambda one: one.filename)
        names = [one.filename for one in files]
        copies = [stack.enter_context(_unpacked(archive, one)) for one in files]
        if is_shards:
            stems = [re.split(r"[^a-z]", PurePosixPath(name.lower()).stem)[0] for name in names]
            table = ParquetTable(copies, archive.limits, list(map(split_named, stems)))
            source: Source = open_table(table, archive.limits, wanted)
        else:
            source = open_source(copies[0], archive.limits, files[0].filename, wanted)
        source.reading.copies += copies
        stack.pop_all()
    if len(copies) > 1:
        text = f"{len(names)} Parquet files became one dataset, in the order of their names: {listed(names)}."
        source.reading.notes.append(note("parts_joined", text, len(names), names))
    return source


def _unpacked(archive: SafeZip, info: zipfile.ZipInfo) -> IO[bytes]:
    """A file of a zip that can be read from anywhere; it is gone once it is closed."""
    with archive.open(info) as entry, ExitStack() as stack:
        copy = stack.enter_context(tempfile.TemporaryFile())
        shutil.copyfileobj(entry, copy, COPIED_BYTES)
        copy.seek(0)
        stack.pop_all()  # it lives as long as its reader
    return copy


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)
