"""`kmeans`: its config."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from models.configs import FeaturesConfig, described
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class KMeansConfig(FeaturesConfig):
    """k-means of scikit-learn."""

    n_init: Annotated[int, Ge(1), Le(1_000)] = described(
        1,
        "Starts of which the best counts, 1 to 1,000. 1 is scikit-learn's own default for k-means++; 10 is steadier "
        "and takes ten times as long.",
    )
    max_iter: Annotated[int, Ge(1), Le(100_000)] = described(300, "Iterations at most, 1 to 100,000.")
    tol: Annotated[float, Ge(0), Le(1)] = described(
        1e-4, "Iterations end when the centers move less than this, relative to the features' variance, 0 to 1."
    )


SPEC = MethodSpec(
    name="kmeans",
    title="k-means",
    paper="Lloyd, Least squares quantization in PCM, IEEE Trans. Inf. Theory 1982; k-means++ start",
    config=KMeansConfig,
    implementation="models.classical.kmeans.method:KMeans",
)
