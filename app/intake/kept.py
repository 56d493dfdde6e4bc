"""A file that is read from its beginning more than once."""

from typing import IO, Self, cast


class _Kept:
    """A file that outlives the `with` of its reader."""

    def __init__(self, file: IO[bytes]) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the file open."""


def from_beginning(file: IO[bytes]) -> IO[bytes]:
    """The file at its beginning; closing it is left to whoever opened it."""
    file.seek(0)
    return cast(IO[bytes], _Kept(file))
