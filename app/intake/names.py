"""Names of archive entries: as text, as safe paths, and what they say of targets and splits."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from app.intake.notes import Note, listed, note

MAX_CHARS = 4096  # the longest path that Linux opens
MAX_CLASSES = 10_000  # with more of them, folders are a filing scheme and no targets
_SPLIT = re.compile(
    r"^(?:(train|training)|(test|testing|eval|holdout|t10k)|(val|valid|validation|dev))"
    r"(?:[_ -]?(?:set|split|data|images|imgs|\d{4}))*$"
)
_PROGRAMS = {"__macosx", "@eadir", "$recycle.bin", "#recycle", "system volume information", "lost+found", "__pycache__"}
_DROPPINGS = {"thumbs.db", "desktop.ini", "icon\r"}
_NO_PICTURES = {
    ".txt",
    ".csv",
    ".json",
    ".xml",
    ".md",
    ".html",
    ".pdf",
    ".yaml",
    ".yml",
    ".py",
    ".ipynb",
    ".mat",
    ".doc",
}


def is_unsafe(name: str) -> bool:
    """Whether a name leaves the archive, on any system."""
    path = PurePosixPath(name)
    has_drive = bool(path.parts) and len(path.parts[0]) == 2 and path.parts[0].endswith(":")
    return path.is_absolute() or ".." in path.parts or has_drive or "\0" in name


def readable(name: str) -> str:
    """A name as text that can be stored; bytes that are no UTF-8 are taken for Latin-1."""
    raw = name.encode("utf-8", "surrogateescape")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return normal(text)


def normal(name: str) -> str:
    """A name in composed form (NFC), with `/` between its folders: macOS splits letters, Windows has backslashes."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def is_dropping(name: str) -> bool:
    """Whether an entry is hidden, or lies in a folder that is, or is what systems and programs leave behind."""
    parts = [part for part in PurePosixPath(name.lower()).parts if part != ".."]
    return any(part.startswith(".") or part in _PROGRAMS for part in parts) or bool(_DROPPINGS & set(parts[-1:]))


@dataclass
class Folders:
    """What the folders of an archive say.

    `targets`: of each folder that is a class. `splits`: of each folder in a split.
    """

    targets: Mapping[str, int] = field(default_factory=dict)
    target_names: list[str] = field(default_factory=list)
    splits: Mapping[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    @classmethod
    def of(cls, names: Iterable[str], *, are_targets: bool) -> "Folders":
        """Splits and classes by the names of all files.

        A folder named `train`, `test` or `val` is a split. Of the others the last one of a path is a class if it has a
        sibling with images: another folder beside it, or, across splits, under the same path.
        """
        folders = dict.fromkeys(
            str(path.parent)
            for path in map(PurePosixPath, names)
            if path.suffix.lower() not in _NO_PICTURES and str(path.parent) != "."
        )
        found = cls(splits={folder: split for folder in folders if (split := _split_of(folder))})
        if found.splits:
            kinds = sorted(set(found.splits.values()))
            text = f"Folders named {listed(kinds)} are splits, not classes. Every image has its split."
            found.notes.append(note("splits_found", text, len(kinds), kinds))
        if are_targets:
            found._find_classes(list(folders))
        return found

    def _find_classes(self, folders: list[str]) -> None:
        siblings: dict[PurePosixPath, set[str]] = {}
        own = {folder: _without_splits(folder) for folder in folders}
        for path in own.values():
            if path.name:
                siblings.setdefault(path.parent, set()).add(path.name)
        classes = {folder: path.name for folder, path in own.items() if len(siblings.get(path.parent, ())) > 1}
        names = sorted(set(classes.values()))
        if len(names) > MAX_CLASSES or (folders and len(names) < 2):
            text = "Folders did not become targets: "
            why = f"there are more than {MAX_CLASSES}." if names else "no folder with images has another one beside it."
            self.notes.append(note("folders_are_no_classes", text + why, len(folders), folders))
            return
        if names:
            number = {name: target for target, name in enumerate(names)}
            self.targets = {folder: number[name] for folder, name in classes.items()}
            self.target_names = names
            text = f"{len(names)} names of folders became targets: {listed(names)}."
            self.notes.append(note("classes_from_folders", text, len(names), names))


def _split_of(folder: str) -> str:
    """The split that a folder lies in, by the outermost of its names that is one; "" for none."""
    return next((split for part in PurePosixPath(folder).parts if (split := split_named(part))), "")


def _without_splits(folder: str) -> PurePosixPath:
    return PurePosixPath(*(part for part in PurePosixPath(folder).parts if not split_named(part)))


def split_named(name: str) -> str:
    """The split that a folder's name stands for: `train2017`, `test_images`; "" for none."""
    found = _SPLIT.match(name.lower())
    return "" if found is None else "train" if found[1] else "test" if found[2] else "val"
