"""Tar archives of images, plain or gzipped: read once from front to back, bytes counted, nothing extracted to disk."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Any, Literal

from app.errors import BadUpload
from app.intake import names
from app.intake.limits import TOTAL_APPLIES_FROM, IntakeLimits, too_many_entries
from app.intake.sources import ImageEntry, Reject
from models import pixels

MAX_EXTENSION_BYTES = 1 << 20
_CHECKED_ENTRIES, _CHECKED_BYTES = 100, TOTAL_APPLIES_FROM
# Extended headers that follow each other are read by recursion.
_DAMAGE = (tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, ValueError, OverflowError, RecursionError)


class _Header(tarfile.TarInfo):
    """A header whose extensions are bounded: tarfile reads a long name or a pax record whole, however long it is."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        is_extension = self.type in (
            tarfile.XHDTYPE,
            tarfile.XGLTYPE,
            tarfile.GNUTYPE_LONGNAME,
            tarfile.GNUTYPE_LONGLINK,
        )
        if is_extension and self.size > MAX_EXTENSION_BYTES:
            raise tarfile.ReadError("an extended header is too long")
        return super()._proc_member(archive)  # type: ignore[misc]


class TarSource:
    """Image files in a tar or tar.gz, in folders or not."""

    kind: Literal["images"] = "images"

    def __init__(self, file: IO[bytes], limits: IntakeLimits, *, is_gzipped: bool) -> None:
        self._file, self._limits, self._is_gzipped = file, limits, is_gzipped
        self._size = file.seek(0, 2)
        self._unpacked = 0
        self.progress = 0.0

    def check(self) -> None:
        """Look for an image among the first entries; an archive that shows none there is left to ingest."""
        rejects: list[Reject] = []
        for number, entry in enumerate(self._read(head_only=True), 1):
            if isinstance(entry, ImageEntry):
                return
            if entry is not None:
                rejects.append(entry)
            if number == _CHECKED_ENTRIES or self._unpacked > _CHECKED_BYTES:
                return
        code = rejects[0].code if len({reject.code for reject in rejects}) == 1 else "no_images"
        code = "no_images" if code == "not_an_image" else code
        raise BadUpload("no file in the archive is an image that can be used", code=code)

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every file's bytes, or why it was refused."""
        yield from (entry for entry in self._read(head_only=False) if entry is not None)

    def _read(self, *, head_only: bool) -> Iterator[ImageEntry | Reject | None]:
        """Every entry; None for a folder, and for what operating systems leave behind."""
        self._file.seek(0)
        seen: set[str] = set()
        self._unpacked = 0
        # Not tarfile's own "r|gz": it unpacks 10 kB at once, and copies what is left of them at every read.
        file: Any = gzip.GzipFile(fileobj=self._file) if self._is_gzipped else self._file
        try:
            with tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as archive:
                for number, info in enumerate(archive):
                    if number == self._limits.max_entries:
                        raise too_many_entries()
                    archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header it has read
                    self._unpacked = info.offset_data + info.size
                    if self._limits.is_bomb(self._size, self._unpacked):
                        raise self._limits.refuse_bomb()
                    is_file = not info.isdir() and not names.is_dropping(info.name)
                    yield self._entry(archive, info, seen, head_only) if is_file else None
                    self.progress = self._file.tell() / self._size
        except _DAMAGE as error:
            raise BadUpload("the archive is damaged or incomplete", code="broken_archive") from error

    def _entry(
        self, archive: tarfile.TarFile, info: tarfile.TarInfo, seen: set[str], head_only: bool
    ) -> ImageEntry | Reject:
        info.name = names.readable(info.name)
        if len(info.name) > names.MAX_CHARS:
            return Reject(info.name[: names.MAX_CHARS], "name_too_long", f"it has more than {names.MAX_CHARS} letters")
        if names.is_unsafe(info.name):
            return Reject(info.name, "unsafe_name", "the name leaves the archive")
        if info.name in seen:
            return Reject(info.name, "duplicate_name", "the archive has this name twice")
        seen.add(info.name)
        if not info.isfile():
            return Reject(info.name, "not_a_file", "a link or a device")
        most = self._limits.max_entry_bytes
        if info.size > most:
            return Reject(info.name, "too_large", f"it is larger than {most} bytes")
        content = archive.extractfile(info)
        assert content is not None
        data = content.read()
        if len(data) < info.size:
            raise EOFError
        if head_only:
            try:
                pixels.open_image(data, self._limits.image)
            except pixels.BadImage as error:
                return Reject(info.name, error.code, str(error))
        return ImageEntry(info.name, data, folder=str(PurePosixPath(info.name).parent))
