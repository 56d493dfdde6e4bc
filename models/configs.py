"""Every method's hyperparameters: frozen dataclasses with bounds, readable without torch.

The same classes are JSON at the API: unknown keys are refused and bounds become JSON Schema.
Fields keep the name the method's paper or scikit-learn gives them.
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le

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
