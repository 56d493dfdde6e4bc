"""Which names of archive entries are safe, and which files operating systems leave behind."""

from pathlib import PurePosixPath

MAX_CHARS = 4096  # the longest path that Linux opens


def is_unsafe(name: str) -> bool:
    """Whether a name leaves the archive, on any system."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name


def readable(name: str) -> str:
    """A name as text that can be stored; bytes that are no UTF-8 are taken for Latin-1."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def is_dropping(name: str) -> bool:
    """Whether an entry is what Finder and Explorer leave behind, or hidden."""
    path = PurePosixPath(name)
    return path.parts[:1] == ("__MACOSX",) or path.name.startswith(".") or path.name in ("Thumbs.db", "desktop.ini")
