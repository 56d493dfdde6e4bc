"""What an attempt that succeeded hands over: the values of the rows that `publish` writes, by kind of job.

The field names are those of the rows' columns. Workers build these; they carry no ids and no prefixes.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Scores = dict[str, float | None]  # None: the score is not a number


@dataclass(frozen=True, kw_only=True)
class IngestResult:
    """What a dataset holds. `width` and `height` are None where the images differ."""

    kind: Literal["images", "vectors"]
    n_images: int
    n_rejects: int = 0
    n_bytes: int
    shards: list[int]  # rows of each file
    width: int | None = None
    height: int | None = None
    channels: int | None = None
    n_features: int | None = None
    has_targets: bool
    target_names: list[str] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file under the model's prefix."""

    bytes: int
    sha256: str
    media_type: str


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a training says of its model; `known` maps the index of an image, as text, to its target."""

    config: dict[str, Any]
    known: dict[str, int]
    n_clusters: int
    n_images: int
    input_spec: dict[str, Any]
    scores: Scores
    artifacts: dict[str, Artifact]  # by name


@dataclass(frozen=True, kw_only=True)
class AssignmentSetFacts:
    """What is said of an assignment set as a whole."""

    n_images: int
    n_outliers: int
    scores: Scores


@dataclass(frozen=True, kw_only=True)
class ClusterSummary:
    """One cluster of an assignment set; an empty one has no mean confidence."""

    cluster: int
    size: int
    first_row: int  # of the cluster in by-cluster.parquet
    confidence: float | None
    n_outliers: int
    exemplars: list[int]  # indexes of the most certain images, surest first
    least_certain: list[int]  # indexes, least certain first


@dataclass(frozen=True, kw_only=True)
class AssignResult:
    """An assignment set and its K clusters."""

    assignment_set: AssignmentSetFacts
    clusters: list[ClusterSummary]


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A model, and the assignment set of the images it was trained on."""

    model: ModelFacts
    assignment_set: AssignmentSetFacts
    clusters: list[ClusterSummary]
    warnings: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What a part of an assignment leaves: a file that its parent reads, and no rows."""


Result = IngestResult | TrainResult | AssignResult | PartResult
