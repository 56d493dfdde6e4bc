"""Methods, models, clusters and assignments at the HTTP edge."""

from typing import Annotated, Any

from pydantic import Field

from app.schemas.common import NO_NUL, Failure, Name, Read, UtcTime, Write


class MethodRead(Read):
    """A clustering method: where it is from, what it takes, and the JSON Schema of its config."""

    name: str
    title: str
    paper: str
    profiles: list[str]
    data: list[str]
    max_images: int | None
    takes_known: bool
    default_of: list[str]
    config_schema: dict[str, Any]


class ModelRead(Read):
    """What a training job leaves; it assigns new images."""

    id: str
    name: str
    description: str
    method: str
    profile: str
    config: dict[str, Any]
    known: dict[str, int]
    seed: int
    n_clusters: int
    n_images: int
    input_spec: dict[str, Any]
    scores: dict[str, Any]
    artifacts: dict[str, Any]
    dataset_id: str
    job_id: str
    assignment_set_id: str
    created_at: UtcTime
    updated_at: UtcTime


class ModelPatch(Write):
    """Fields to change; the others stay."""

    name: Name | None = None
    description: Annotated[str, Field(max_length=10_000, pattern=NO_NUL)] | None = None


class ClusterRead(Read):
    """One cluster: `exemplars` are the indexes of its most certain images, surest first."""

    cluster: int
    size: int
    confidence: float | None
    n_outliers: int
    exemplars: list[int]
    least_certain: list[int]


class EpochRead(Read):
    """One epoch of a training. `scores` compare with the dataset's targets; `label_change` is a share of images."""

    phase: str
    epoch: int
    seconds: float
    losses: dict[str, float | None]
    scores: dict[str, float]
    label_change: float | None
    cluster_sizes: list[int] | None


class HistoryRead(Read):
    """A training's learning curves, in the order of its phases. Epoch 0 of `graph` is the start it went on from."""

    epochs: list[EpochRead]


class MapRead(Read):
    """A picture of the embedding as columns: image `index`, its point `x`, `y`, its `cluster`."""

    index: list[int]
    x: list[float]
    y: list[float]
    cluster: list[int]


class AssignmentSetRead(Read):
    """All assignments of one model over one dataset."""

    id: str
    model_id: str
    dataset_id: str
    job_id: str
    n_images: int
    n_outliers: int
    scores: dict[str, Any]
    created_at: UtcTime


class AssignmentRead(Read):
    """The cluster of one image of a dataset."""

    index: int
    cluster: int
    confidence: float
    is_outlier: bool


class AssignVectors(Write):
    """Ready-made vectors for a model trained on vectors of the same length."""

    vectors: Annotated[list[Annotated[list[float], Field(max_length=65_536)]], Field(min_length=1, max_length=1000)]


class NearImage(Read):
    """An image of the training's dataset and its distance in the embedding."""

    index: int
    distance: float


class ItemAssignment(Read):
    """One item's answer: a cluster, or `error`, why there is none; what was not asked for is left out.

    `confidence` is calibrated: the chance that the image would keep its cluster if it were seen a little differently.
    `outlier_score` is the share of the cluster's training images that lie nearer to its center.
    """

    name: str
    cluster: int | None = None
    confidence: float | None = None
    is_outlier: bool | None = None
    outlier_score: float | None = None
    embedding: list[float] | None = None
    nearest: list[NearImage] | None = None
    error: Failure | None = None


class AssignRead(Read):
    """Answers in the order of the request's items."""

    model_id: str
    items: list[ItemAssignment]
