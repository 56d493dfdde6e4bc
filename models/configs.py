"""Every method's hyperparameters: frozen dataclasses with bounds, readable without torch.

The same classes are JSON at the API: unknown keys are refused and bounds become JSON Schema.
Fields keep the name the method's paper or scikit-learn gives them.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt

FORBID_UNKNOWN_KEYS: dict[str, Any] = {"extra": "forbid"}

NClusters = Annotated[int, Ge(2), Le(65_536)]
ImageSide = Annotated[int, Ge(8), Le(512)]


@dataclass(frozen=True, kw_only=True)
class ClusteringConfig:
    """What every method has.

    `n_clusters`: how many groups to form.
    `image_side`: pixels per side the images are brought to. None keeps images that all share one square
    size of 8 to 128 as they are, and brings any others to 32 (see `models.pixels`).
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = FORBID_UNKNOWN_KEYS

    n_clusters: NClusters
    image_side: ImageSide | None = None


@dataclass(frozen=True, kw_only=True)
class KMeansConfig(ClusteringConfig):
    """`n_init` 1 is scikit-learn's own default for k-means++; 10 is steadier and ten times slower."""

    n_init: Annotated[int, Ge(1), Le(1_000)] = 1
    max_iter: Annotated[int, Ge(1), Le(100_000)] = 300
    tol: Annotated[float, Ge(0), Le(1)] = 1e-4


@dataclass(frozen=True, kw_only=True)
class GMMConfig(ClusteringConfig):
    """`reg_covar` is larger than scikit-learn's 1e-6: border pixels never vary, and pixels run 0...1."""

    covariance_type: Literal["full", "tied", "diag", "spherical"] = "diag"
    n_init: Annotated[int, Ge(1), Le(1_000)] = 1
    max_iter: Annotated[int, Ge(1), Le(100_000)] = 100
    tol: Annotated[float, Gt(0), Le(1)] = 1e-3
    reg_covar: Annotated[float, Gt(0), Le(1e6)] = 1e-3


@dataclass(frozen=True, kw_only=True)
class GraphStartConfig(ClusteringConfig):
    """What the neighbour-graph start takes (see `models.graph`).

    `view`: how images are looked at; `auto` judges all three. `n_neighbors`: None is about the square root of
    a mean cluster's size, 5 to 20. `n_starts`: layouts, of which all must agree; `n_init`: mixtures tried on each.
    """

    view: Literal["auto", "raw", "contrast", "hog"] = "auto"
    n_neighbors: Annotated[int, Ge(2), Le(1_000)] | None = None
    n_starts: Annotated[int, Ge(1), Le(64)] = 2
    n_init: Annotated[int, Ge(1), Le(1_000)] = 10


@dataclass(frozen=True, kw_only=True)
class DCAEConfig(GraphStartConfig):
    """The paper's recipe by default; `fast` starts at the neighbour graph and trains with Adam.

    `cluster_weight` is lambda of eq. 4, `anchor_weight` its place while the graph's partition is held: for
    `n_hold_steps` batches, or until nearest centers agree with it on `hold_agreement` of the images. Then
    `cluster_learning_rate` takes over from `learning_rate` (None: it stays). `stop_change`: stop once fewer images
    change their cluster in an epoch (0: never).
    """

    start: Literal["random", "graph"] = "random"
    n_epochs: Annotated[int, Ge(1), Le(100_000)] = 500
    batch_size: Annotated[int, Ge(1), Le(65_536)] = 100
    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Annotated[float, Gt(0), Le(10)] = 0.006
    cluster_learning_rate: Annotated[float, Gt(0), Le(10)] | None = None
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    weight_decay: Annotated[float, Ge(0), Le(1)] = 5e-4
    cluster_weight: Annotated[float, Ge(0), Le(1e6)] = 0.2
    pixel_reduction: Literal["mean", "sum"] = "mean"
    stop_change: Annotated[float, Ge(0), Le(1)] = 0.0
    anchor_weight: Annotated[float, Ge(0), Le(1e6)] = 1.0
    n_hold_steps: Annotated[int, Ge(1), Le(100_000_000)] = 7_500
    hold_agreement: Annotated[float, Gt(0), Le(1)] = 0.99
    shift: Annotated[float, Ge(0), Le(1)] = 0.0
    rotation_degrees: Annotated[float, Ge(0), Le(180)] = 0.0
