"""Files that come one after another as one zip: written as they come, nothing is kept."""

import contextlib
import zipfile
from typing import IO, cast

from app.errors import BadUpload


class ZipStream:
    """A zip that is given out in pieces. Files are stored without compression; a name that comes again is numbered."""

    def __init__(self) -> None:
        self._sink = _Sink()
        self._zip = zipfile.ZipFile(cast(IO[bytes], self._sink), "w", zipfile.ZIP_STORED)
        self._entry: IO[bytes] | None = None
        self._names: dict[str, int] = {}

    def begin(self, name: str) -> None:
        """Begin the next file."""
        self._end_entry()
        n_before = self._names.get(name, 0)
        self._names[name] = n_before + 1
        head, dot, ending = name.rpartition(".")
        again = f"{head}-{n_before}.{ending}" if dot else f"{name}-{n_before}"
        self._entry = self._zip.open(zipfile.ZipInfo(again if n_before else name), "w", force_zip64=True)

    def write(self, data: bytes) -> bytes:
        """Add to the file that was begun; -> what of the zip is ready to be sent on."""
        assert self._entry is not None
        self._entry.write(data)
        return self._sink.take()

    def end(self) -> bytes:
        """The rest of the zip."""
        self._end_entry()
        try:
            self._zip.close()
        except (zipfile.LargeZipFile, ValueError) as error:
            raise BadUpload("too many files for one form; send an archive", code="too_many_entries") from error
        return self._sink.take()

    def _end_entry(self) -> None:
        if self._entry is not None:
            self._entry.close()

    def __del__(self) -> None:
        """Let a form that ended early go without a word."""
        with contextlib.suppress(Exception):
            self.end()


class _Sink:
    """What zipfile writes into: it cannot seek, so sizes follow the files."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._at = 0

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        self._at += len(data)
        return len(data)

    def flush(self) -> None:
        """Everything is given out at once."""

    def take(self) -> bytes:
        data, self._pieces = b"".join(self._pieces), []
        return data
