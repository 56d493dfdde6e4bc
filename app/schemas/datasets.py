"""Datasets at the HTTP edge."""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.schemas.common import Failure, NoteRead, Read, UtcTime


class DatasetRead(Read):
    """A named set of images or vectors; nothing about it changes once it is `ready`."""

    id: str
    name: str
    state: Literal["ingesting", "ready", "failed"]
    kind: Literal["images", "vectors"] | None
    n_images: int
    n_rejects: int
    n_bytes: int
    width: int | None
    height: int | None
    channels: int | None
    n_features: int | None
    has_targets: bool
    target_names: list[str]
    notes: Annotated[list[NoteRead], Field(description="what became of the upload, each a sentence: docs/notes.md")]
    facts: Annotated[
        dict[str, Any],
        Field(
            description="what was taken and seen: columns or arrays, where targets came from and how many there are, "
            "the range of pixel values, distinct images, sizes, splits, the input side of a training"
        ),
    ]
    job_id: str
    error: Failure | None
    created_at: UtcTime
    updated_at: UtcTime


class ImageRead(Read):
    """One image of a dataset; `target` is null where none is known."""

    index: int
    name: str
    target: int | None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    split: str | None = None


class RejectRead(Read):
    """A file that was refused, and why."""

    name: str
    code: str
    reason: str
