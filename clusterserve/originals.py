"""Files as they were before they were uploaded: where a dataset came from, and copies of its files from there.

The service keeps pictures without their metadata. So that `export --copy-to` can give back the files themselves, the
command line remembers where each dataset was uploaded from, in `uploads.json` in the user's data folder.
"""

import json
import os
import shutil
import time
import unicodedata
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

MAX_NAME_BYTES = 255  # of one file, on every system
_HIDDEN = (".", "@", "__MACOSX")


def remember(dataset_id: str, source: Path) -> None:
    """Note what a dataset was made of."""
    known = _known()
    known[dataset_id] = {"from": str(source.resolve()), "at": time.time()}
    path = _notes()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(known, indent=1))
    unfinished.replace(path)


def source_of(dataset_id: str) -> Path | None:
    """The file or folder that a dataset was uploaded from, where this user did it and it is still there."""
    found = _known().get(dataset_id)
    return Path(found["from"]) if found and Path(found["from"]).exists() else None


def uploaded_at(dataset_id: str) -> float | None:
    """When this user uploaded a dataset, in seconds since 1970; files that are newer have changed since."""
    found = _known().get(dataset_id)
    return None if found is None else float(found["at"])


def _notes() -> Path:
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "clusterserve" / "uploads.json"


def _known() -> dict[str, dict[str, Any]]:
    try:
        known: dict[str, dict[str, Any]] = json.loads(_notes().read_text())
    except (OSError, ValueError):
        return {}
    return known


@contextmanager
def packed(folder: Path, into: Path) -> Iterator[Path]:
    """A folder as a zip, stored without compression, names relative to the folder; hidden files stay out."""
    archive = into / f"{folder.resolve().name or 'folder'}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED, strict_timestamps=False) as out:
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(_HIDDEN) for part in inner.parts):
                out.write(path, inner.as_posix())
    try:
        yield archive
    finally:
        archive.unlink(missing_ok=True)


class Originals:
    """Files of a folder, a zip or a single file, by the names that their images have."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._zip = zipfile.ZipFile(source) if zipfile.is_zipfile(source) else None
        if self._zip is not None:
            self._entries = {_normal(_text(info)): info for info in self._zip.infolist() if not info.is_dir()}
        else:
            paths = source.rglob("*") if source.is_dir() else [source]
            base = source if source.is_dir() else source.parent
            self._paths = {_normal(path.relative_to(base).as_posix()): path for path in paths if path.is_file()}

    def copy(self, name: str, to: Path) -> bool:
        """Copy the file of that name with its date; False where there is none."""
        name = _normal(name)
        if self._zip is None:
            path = self._paths.get(name)
            if path is not None:
                shutil.copy2(path, to)
            return path is not None
        info = self._entries.get(name)
        if info is None:
            return False
        with self._zip.open(info) as file, to.open("wb") as copy:
            shutil.copyfileobj(file, copy)
        moment = time.mktime((*info.date_time, 0, 0, -1))
        os.utime(to, (moment, moment))
        return True

    def close(self) -> None:
        """Close the archive."""
        if self._zip is not None:
            self._zip.close()


def _normal(name: str) -> str:
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _text(info: zipfile.ZipInfo) -> str:
    """An entry's name; without the flag for UTF-8 zipfile takes it for code page 437."""
    if info.flag_bits & 0x800:
        return info.filename
    try:
        return info.filename.encode("cp437").decode()
    except UnicodeError:
        return info.filename


def file_name(name: str, ending: str) -> str:
    """A name for a copy that is safe on every system and not too long; `ending` is what its content has, or empty."""
    last = PurePosixPath(name.replace("\\", "/")).name
    clean = "".join(letter if letter.isalnum() or letter in "-_. " else "_" for letter in last).strip(". ") or "image"
    stem, suffix = PurePosixPath(clean).stem, PurePosixPath(clean).suffix
    if ending and suffix.lower() not in _SAME.get(ending, {ending}):
        suffix = ending
    room = MAX_NAME_BYTES - len(suffix.encode()) - 12  # for "-" and a number where two names are alike
    return stem.encode()[:room].decode(errors="ignore") + suffix


_SAME = {".jpg": {".jpg", ".jpeg", ".jpe"}, ".tif": {".tif", ".tiff"}}
