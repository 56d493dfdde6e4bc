"""The archive reader: entry by entry, nothing extracted to disk, bytes counted as they come."""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO, Literal

from app.errors import BadUpload
from app.intake import names
from app.intake.guess import why
from app.intake.limits import ARCHIVE_APPLIES_FROM, BYTES_PER_ENTRY, IntakeLimits, too_many_entries
from app.intake.notes import Note, counted, note
from app.intake.sources import ImageEntry, Reading, Reject
from models import pixels

_UTF8, _DEFLATE64 = 0x800, 9  # the flag of names, and a method of packing
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis"}
_HEAD_BYTES = 4096
_MAX_CHECKED = 1000
_END_SEARCHED = 66_000  # an end record, its comment, and the 64-bit records before it


class RefusedEntry(Exception):
    """An entry that is not read; `code` is stable."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class SafeZip:
    """A zip whose entries are judged by their headers before a byte is unpacked, and counted while they are."""

    def __init__(self, file: IO[bytes], limits: IntakeLimits) -> None:
        self.limits = limits
        if directory_bytes(file) > limits.max_entries * BYTES_PER_ENTRY:
            raise too_many_entries()
        try:
            self._zip = zipfile.ZipFile(file)
            self._zip.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, EOFError, IndexError, NotImplementedError) as error:
            raise BadUpload("the archive is damaged or incomplete", code="broken_archive") from error
        if len(self._zip.infolist()) > limits.max_entries:
            raise too_many_entries()
        self.has_repaired_names = False
        for info in self._zip.infolist():
            self._read_name(info)
        files = [info for info in self._zip.infolist() if info.filename and not info.is_dir()]
        self._files = [info for info in files if not names.is_dropping(info.filename)]
        self.n_droppings = len(files) - len(self._files)
        packed = sum(info.compress_size for info in self._zip.infolist())
        unpacked = sum(info.file_size for info in self._zip.infolist())
        self.is_bomb = limits.is_bomb(packed, unpacked, applies_from=ARCHIVE_APPLIES_FROM)

    def files(self) -> list[zipfile.ZipInfo]:
        """Entries that hold a caller's file: no folders, nothing hidden or left behind by systems and programs."""
        return self._files

    def open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        """An entry's bytes, behind the checks on its headers.

        Raises:
            RefusedEntry: unsafe or repeated name, link, encrypted, packed too well, unknown compression.
        """
        self._judge(info)
        try:
            return self._zip.open(info)
        except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError) as error:
            raise RefusedEntry("broken_entry", "the entry is damaged") from error

    def read(self, info: zipfile.ZipInfo, limit: int) -> bytes:
        """At most `limit` bytes of an entry; its checksum is verified when it is read to its end.

        Raises:
            RefusedEntry: see `open`; `too_large` where it goes on past the largest entry there may be.
        """
        try:
            with self.open(info) as entry:
                data = entry.read(limit + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError) as error:
            raise RefusedEntry("broken_entry", "the entry is damaged") from error
        if limit >= self.limits.max_entry_bytes and len(data) > limit:
            raise self.too_large()
        return data[:limit]

    def _read_name(self, info: zipfile.ZipInfo) -> None:
        """Give an entry its name as text; without the flag for UTF-8 zipfile takes it for code page 437."""
        if not info.flag_bits & _UTF8:
            try:
                name = info.filename.encode("cp437").decode()
            except UnicodeError:
                name = info.filename
            self.has_repaired_names |= name != info.filename
            info.filename = name
        info.filename = names.normal(info.filename)

    def _judge(self, info: zipfile.ZipInfo) -> None:
        name = info.filename
        if names.is_unsafe(name) or "\0" in info.orig_filename:
            raise RefusedEntry("unsafe_name", "the name leaves the archive")
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise RefusedEntry("not_a_file", "a link or a device")
        if info.flag_bits & 1:
            raise RefusedEntry("encrypted", "the entry is encrypted")
        if info.compress_type == _DEFLATE64:
            reason = "it is packed by Deflate64, as Windows Explorer does above 2 GB; zip it with 7-Zip, or send a tar"
            raise RefusedEntry("unsupported_compression", reason)
        if info.compress_type not in _METHODS:
            raise RefusedEntry("unsupported_compression", "only stored and deflated entries are read")
        if self.limits.is_suspicious(info.compress_size, info.file_size):
            reason = f"it unpacks to more than {self.limits.max_entry_ratio} times its size"
            raise RefusedEntry("suspicious_compression", reason)

    def too_large(self) -> RefusedEntry:
        """What to raise where an entry goes on for too long."""
        return RefusedEntry("too_large", f"unpacked it is larger than {self.limits.max_entry_bytes} bytes")


def directory_bytes(file: IO[bytes]) -> int:
    """Size of the central directory by the archive's end record, before anything is allocated for it.

    Raises:
        BadUpload: `broken_archive` where there is no end record.
    """
    size = file.seek(0, 2)
    start = max(0, size - _END_SEARCHED)
    file.seek(start)
    tail = file.read(_END_SEARCHED)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        raise BadUpload("the archive is damaged or incomplete", code="broken_archive")
    (n_bytes,) = struct.unpack_from("<I", tail, at + 12)
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    # zipfile believes the 64-bit record wherever there is one, whatever the other says.
    if wide >= 0 and len(tail) - wide >= 56:
        n_bytes = max(n_bytes, *struct.unpack_from("<Q", tail, wide + 40))
    file.seek(0)
    return int(n_bytes)


class ZipSource:
    """A zip of image files, in folders or not; `are_targets`: names of folders are targets where they are classes."""

    kind: Literal["images"] = "images"

    def __init__(self, archive: SafeZip, *, are_targets: bool = True) -> None:
        self._archive = archive
        self._files = archive.files()
        self._folders = names.Folders.of((info.filename for info in self._files), are_targets=are_targets)
        self.progress = 0.0
        self.reading = Reading(target_names=self._folders.target_names)

    def check(self) -> None:
        """Refuse an archive that as a whole is a bomb or shows no image among its first entries."""
        if not self._files:
            raise BadUpload("the archive holds no files", code="no_images")
        self._refuse_bomb()
        refused: list[Reject] = []
        for info in self._files[:_MAX_CHECKED]:
            reject = self._head_reject(info)
            if reject is None:
                return
            refused.append(reject)
        if len(self._files) <= _MAX_CHECKED:
            codes = {reject.code for reject in refused}
            code = codes.pop() if len(codes) == 1 and "not_an_image" not in codes else "no_images"
            errors = [{"name": reject.name, "code": reject.code, "detail": reject.reason} for reject in refused[:20]]
            detail = f"no file in the archive is an image that can be used; `{refused[0].name}`: {refused[0].reason}"
            raise BadUpload(detail, code=code, errors=errors)

    def entries(self) -> Iterator[ImageEntry | Reject]:
        """Every file's bytes, read whole (an image needs them all), or why it was refused."""
        self._refuse_bomb()
        self._tell()
        seen: set[str] = set()
        for number, info in enumerate(self._files):
            self.progress = number / len(self._files)
            name, folder = info.filename, str(PurePosixPath(info.filename).parent)
            if name in seen:
                yield Reject(name, "duplicate_name", "the archive has this name twice")
                continue
            seen.add(name)
            try:
                data = self._archive.read(info, self._archive.limits.max_entry_bytes)
            except RefusedEntry as refusal:
                yield Reject(name, refusal.code, str(refusal))
                continue
            yield ImageEntry(name, data, self._folders.targets.get(folder), split=self._folders.splits.get(folder, ""))

    def _tell(self) -> None:
        self.reading.notes += self._folders.notes
        if self._folders.target_names:
            self.reading.facts["target_from"] = "folders"
        if self._archive.has_repaired_names:
            text = "Names were read as UTF-8, although the archive does not say that they are."
            self.reading.notes.append(note("names_repaired", text))
        if n := self._archive.n_droppings:
            self.reading.notes.append(hidden_left_out(n))

    def _refuse_bomb(self) -> None:
        if self._archive.is_bomb:
            raise self._archive.limits.refuse_bomb()

    def _head_reject(self, info: zipfile.ZipInfo) -> Reject | None:
        head = b""
        try:
            if info.file_size > self._archive.limits.max_entry_bytes:
                raise self._archive.too_large()
            head = self._archive.read(info, _HEAD_BYTES)
            pixels.open_image(head, self._archive.limits.image)
        except RefusedEntry as refusal:
            return Reject(info.filename, refusal.code, str(refusal))
        except pixels.BadImage as error:
            # Ingest judges a header that is longer than what was read.
            is_judged = error.code != "not_an_image" or len(head) < _HEAD_BYTES or not looks_like_image(head)
            return Reject(info.filename, error.code, why(error, head, info.filename)) if is_judged else None
        return None


def hidden_left_out(n: int) -> Note:
    """What to say of files that were not looked at."""
    return note("hidden_left_out", f"Left out: {counted(n, 'file')}, hidden or of other programs.", n)


def looks_like_image(head: bytes) -> bool:
    """Whether a file begins as one of the image formats does."""
    if head[4:8] == b"ftyp":
        return head[8:12] in _HEIF_BRANDS
    is_riff = head.startswith(b"RIFF") and (len(head) < 12 or head[8:12] == b"WEBP")
    return is_riff or head.startswith((b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM", b"II", b"MM"))
