"""`agglomerative`: its config."""

from dataclasses import dataclass
from typing import Literal

from models.configs import FeaturesConfig, described
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class AgglomerativeConfig(FeaturesConfig):
    """Agglomerative clustering of scikit-learn."""

    linkage: Literal["ward", "average"] = described(
        "ward",
        "What makes two groups near: the spread of both together (`ward`), or the mean distance of their members "
        "(`average`).",
    )


SPEC = MethodSpec(
    name="agglomerative",
    title="Agglomerative clustering",
    paper="Ward, Hierarchical grouping to optimize an objective function, JASA 58, 1963",
    config=AgglomerativeConfig,
    implementation="models.classical.agglomerative.method:Agglomerative",
    max_images=20_000,
)
