"""What a dataset says about how it was read: a note is a sentence for people, with a stable code."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

MAX_EXAMPLES = 5

MEANINGS = {
    "arrays_left_out": "The file holds arrays that were not used.",
    "channels_first": "The array has its channels before height and width.",
    "classes_from_folders": "The names of folders became targets.",
    "columns_left_out": "Columns of the table were not used, and why.",
    "columns_unlike": "One column of the vectors spreads much wider than the others.",
    "depth_reduced": "Color images of 16 bits a channel were read with eight.",
    "depths_differ": "Some images have more bits to a pixel than others.",
    "convergence": "A training: the method stopped before it had converged, as its library says.",
    "duplicates": "Images or vectors are exact copies of others.",
    "folders_are_no_classes": "Folders lie in the archive, and their names did not become targets.",
    "empty_clusters": "A training: some clusters hold no image.",
    "hidden_left_out": "Hidden files and files of other programs were left out.",
    "names_repaired": "Names of files were read as UTF-8 although the archive does not say that they are.",
    "names_taken": "The names of the images or vectors came from this column.",
    "one_colour": "Images show one colour and nothing else.",
    "parts_joined": "Several arrays or files became one dataset.",
    "pictures_found": "This column has another name than usual, and it holds pictures.",
    "pixel_range": "Pixel values that are not 0 to 255 were brought to that range.",
    "refused": "Files in the upload were refused. `/rejects` lists them.",
    "splits_found": "Folders or arrays named `train`, `test` or `val` are splits and not classes.",
    "standardized": "A training: the columns of the vectors were brought to mean 0 and deviation 1.",
    "targets_left_out": "A column looks like a target, and it did not become one.",
    "targets_named": "Text, truth values or numbers with a fraction became numbered targets with names.",
    "targets_taken": "Targets came from this column or array.",
    "unknown_targets": "-1 or an empty value was taken for an unknown target.",
}


FACTS = {
    "arrays": "The arrays that became images or vectors.",
    "arrays_left_out": "The arrays that were not used.",
    "columns_left_out": "The columns that were not used, at most 100.",
    "features_from": "The columns that became features, at most 100.",
    "highest": "The largest value of a pixel or of a vector.",
    "images_from": "The column of pictures.",
    "input_side": "The side, in pixels, that a training gives images unless told otherwise.",
    "lowest": "The smallest value of a pixel or of a vector.",
    "n_distinct": "Images or vectors that differ from each other.",
    "n_levels": "Different values of pixels, of images with 8 or 16 bits.",
    "n_one_colour": "Images that show one colour.",
    "n_targets": "Images or vectors with a target.",
    "names_from": "The column of names.",
    "range": "The values that become 0 and 255, of images of so many bits to a pixel (`depth`, 0: floating point).",
    "sizes": "Width and height of the smallest, the median and the largest image.",
    "splits": "How many are of `train`, `test` and `val`.",
    "spread": "Standard deviation of the median and of the widest column.",
    "target_from": "Where targets came from: a column, an array, files of labels or folders.",
    "widest_column": "The number of the column with the largest deviation.",
}


@dataclass(frozen=True, kw_only=True)
class Note:
    """One sentence; `count` says how many it is about, `examples` names a few of them."""

    code: str
    message: str
    count: int | None = None
    examples: list[str] = field(default_factory=list)


def note(code: str, message: str, count: int | None = None, examples: Iterable[str] = ()) -> Note:
    """A note with a code that `MEANINGS` explains, and a few of the examples."""
    if code not in MEANINGS:
        raise KeyError(code)
    return Note(
        code=code, message=message, count=count, examples=[text[:200] for text in list(examples)[:MAX_EXAMPLES]]
    )


def listed(names: Sequence[str], most: int = MAX_EXAMPLES) -> str:
    """Names as text: "`a`, `b` and 3 more"."""
    shown = [f"`{name[:100]}`" for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return " and ".join(([", ".join(shown[:-1])] if shown[1:] else []) + shown[-1:])


def counted(n: int, what: str) -> str:
    """A number with its noun: "1 image", "2 images"."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def were(names: Sequence[str]) -> str:
    """Names as the subject of a sentence: "`a` was", "`a` and `b` were"."""
    return f"{listed(names)} {'was' if len(names) == 1 else 'were'}"
