"""Jobs at the HTTP edge."""

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from app.schemas.common import WHOLE, Failure, Id, Name, NoteRead, Read, UtcTime, Write
from models.registry import DEFAULT_OF

JobKind = Literal["ingest", "train", "assign"]
JobState = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]


class TrainCreate(Write):
    """Cluster a dataset: name a method and, in `config`, at least `n_clusters`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"kind": "train", "dataset_id": "ds_…", "method": "kmeans", "config": {"n_clusters": 10}}]
        }
    )

    kind: Literal["train"]
    dataset_id: Id
    method: Annotated[
        str | None, Field(description=f"by default {' and '.join(f'{v} for {k}' for k, v in DEFAULT_OF.items())}")
    ] = None
    profile: Annotated[str | None, Field(description="`paper` or `fast`; by default the method's own choice")] = None
    config: dict[str, Any] = Field(default_factory=dict)
    known: Annotated[
        dict[Annotated[int, Field(ge=0, strict=False)], Annotated[int, Field(ge=0, lt=2**31), WHOLE]],
        Field(
            default_factory=dict,
            description="targets of some images, by index, for a method that takes them",
            max_length=100_000,
            json_schema_extra={"propertyNames": {"pattern": "^(0|[1-9][0-9]{0,14})$"}},
        ),
    ]
    seed: Annotated[int, Field(ge=0, lt=2**32), WHOLE] = 0
    device: Annotated[
        Literal["auto", "cpu", "gpu"],
        Field(description="`auto`: a GPU where the service has them and the method gains"),
    ] = "auto"
    name: Name = ""
    priority: Annotated[int, Field(ge=-100, le=100), WHOLE] = 0


class AssignCreate(Write):
    """Assign every image of another dataset with a model, or of a complete upload, which becomes a dataset first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"kind": "assign", "model_id": "mdl_…", "dataset_id": "ds_…"}],
            "oneOf": [
                {"required": [one], "properties": {one: {"type": "string"}, other: {"type": "null"}}}
                for one, other in itertools.permutations(("dataset_id", "upload_id"))
            ],
        }
    )

    kind: Literal["assign"]
    model_id: Id
    dataset_id: Id | None = None
    upload_id: Id | None = None
    name: Name = ""
    priority: Annotated[int, Field(ge=-100, le=100), WHOLE] = 0

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.dataset_id is None) == (self.upload_id is None):
            raise ValueError("name either `dataset_id` or `upload_id`")
        return self


JobCreate = Annotated[TrainCreate | AssignCreate, Field(discriminator="kind")]


class JobEstimate(BaseModel):
    """What a job would be, and take: from low to high, null where nothing like it was ever measured.

    `n_own` trainings of yours that the estimate rests on; without any, measurements on two cores. A GPU is faster.
    """

    method: str | None
    profile: str | None
    config: dict[str, Any]
    n_images: int
    n_parts: int
    seconds_low: float | None = None
    seconds_high: float | None = None
    memory_bytes: int | None = None
    n_own: int = 0


class JobRead(Read):
    """One unit of background work. `phase` and `progress` (0…1) say how far a running job is.

    A large assignment runs as `n_parts` parts, each with its own attempts; 0: in one piece.
    """

    id: str
    kind: JobKind
    state: JobState
    name: str
    dataset_id: str
    model_id: str | None
    assignment_set_id: str | None
    method: str | None
    profile: str | None
    config: dict[str, Any]
    seed: int
    priority: int
    n_parts: int
    phase: str
    progress: float
    attempt: int
    max_attempts: int
    error: Failure | None
    warnings: Annotated[list[NoteRead], Field(description="what to know of a training that succeeded: docs/notes.md")]
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None
    updated_at: UtcTime


class JobEventRead(Read):
    """Something that happened to a job: a `state`, a `phase`, a `step` with its losses, a `checkpoint`."""

    id: int
    type: Literal["state", "phase", "step", "checkpoint"]
    data: dict[str, Any]
    at: UtcTime
