"""Datasets at the HTTP edge."""

from typing import Literal

from app.schemas.common import Failure, Read, UtcTime


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


class RejectRead(Read):
    """A file that was refused, and why."""

    name: str
    code: str
    reason: str
