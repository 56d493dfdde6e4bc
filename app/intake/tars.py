"""Tar archives of images, plain or gzipped: read once from front to back, bytes counted, nothing extracted to disk."""

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any, Literal

from app.errors import BadUpload
from app.intake import names
from app.intake.guess import why
from app.intake.limits import ARCHIVE_APPLIES_FROM, IntakeLimits, too_many_entries
from app.intake.sources import ImageEntry, Reading, Reject
from app.intake.zips import hidden_left_out
from models import pixels

MAX_EXTENSION_BYTES = 1 << 20
_CHECKED_ENTRIES, _CHECKED_BYTES = 100, ARCHIVE_APPLIES_FROM
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


@contextmanager
def _damage() -> Iterator[None]:
    """What the parsers of a damaged archive raise becomes the caller's error."""
    try:
        yield
    except _DAMAGE as error:
        raise BadUpload("the archive is damaged or incomplete", code="broken_archive") from error


class TarSource:
    """Image files in a tar or tar.gz, in folders or not; `are_targets`: as of `ZipSource`."""

    kind: Literal["images"] = "images"

    def __init__(self, file: IO[bytes], limits: IntakeLimits, *, is_gzipped: bool, are_targets: bool = True) -> None:
        self._file, self._limits, self._is_gzipped = file, limits, is_gzipped
        self._are_targets = are_targets
        self._folders = names.Folders()
        self.reading = Reading()
        self._size = file.seek(0, 2)
        self._unpacked = 0
        self.progress = 0.0

    def check(self) -> None:
        """Look for an image among the first entries; an archive that shows none there is left to ingest."""
        rejects: list[Reject] = []
        for number, entry in enumerate(self._entries(head_only=True), 1):
            if isinstance(entry, ImageEntry):
                return
            if entry is not None:
                rejects.append(entry)
            if number == _CHECKED_ENTRIES or self._unpacked > _CHECKED_BYTES:
                return
        if not rejects:
            raise BadUpload("the archive holds no files", code="no_images")
        code = rejects[0].code if len({reject.code for reject in rejects}) == 1 else "no_images"
        code = "no_images" if code == "not_an_image" else code
        first = f"`{rejects[0].name}`: {rejects[0].reason}"
        raise BadUpload(f"no file in the archive is an image that can be used; {first}", code=code)

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every file's bytes, or why it was refused; before them all names are read, for what the folders say."""
        listed, n_droppings = list[str](), 0
        for _, info in self._headers():
            if names.is_dropping(info.name):
                n_droppings += 1
            elif info.isfile():
                listed.append(info.name)
        self._folders = names.Folders.of(listed, are_targets=self._are_targets)
        self.reading.notes += self._folders.notes
        self.reading.target_names = self._folders.target_names
        if self._folders.target_names:
            self.reading.facts["target_from"] = "folders"
        if n_droppings:
            self.reading.notes.append(hidden_left_out(n_droppings))
        yield from (entry for entry in self._entries(head_only=False) if entry is not None)

    def _entries(self, *, head_only: bool) -> Iterator[ImageEntry | Reject | None]:
        """Every entry; None for a folder, and for what is left out."""
        seen: set[str] = set()
        for archive, info in self._headers():
            is_file = not info.isdir() and not names.is_dropping(info.name)
            with _damage():
                entry = self._entry(archive, info, seen, head_only) if is_file else None
            yield entry
            self.progress = self._file.tell() / self._size

    def _headers(self) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
        """Every header, its name as text, and the archive that stands at its data."""
        self._file.seek(0)
        self._unpacked = 0
        # Not tarfile's own "r|gz": it unpacks 10 kB at once, and copies what is left of them at every read.
        file: Any = gzip.GzipFile(fileobj=self._file) if self._is_gzipped else self._file
        with _damage(), tarfile.open(fileobj=file, mode="r|", tarinfo=_Header) as archive:
            for number, info in enumerate(archive):
                if number == self._limits.max_entries:
                    raise too_many_entries()
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header it has read
                self._unpacked = info.offset_data + info.size
                if self._limits.is_bomb(self._size, self._unpacked, applies_from=ARCHIVE_APPLIES_FROM):
                    raise self._limits.refuse_bomb()
                info.name = names.readable(info.name)
                yield archive, info

    def _entry(
        self, archive: tarfile.TarFile, info: tarfile.TarInfo, seen: set[str], head_only: bool
    ) -> ImageEntry | Reject:
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
                return Reject(info.name, error.code, why(error, data, info.name))
        folder = str(PurePosixPath(info.name).parent)
        target = self._folders.targets.get(folder)
        return ImageEntry(info.name, data, target, split=self._folders.splits.get(folder, ""))
