"""`hdbscan`: its config."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from models.configs import FeaturesConfig, described
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class HDBSCANConfig(FeaturesConfig):
    """HDBSCAN of scikit-learn. `n_clusters` is how many of the densest regions are kept."""

    min_cluster_size: Annotated[int, Ge(2), Le(1_000_000)] = described(
        15, "Inputs that make a region, at least, 2 to a million."
    )


SPEC = MethodSpec(
    name="hdbscan",
    title="HDBSCAN",
    paper="Campello, Moulavi & Sander, Density-based clustering based on hierarchical density estimates, PAKDD 2013",
    config=HDBSCANConfig,
    implementation="models.classical.hdbscan.method:HDBSCAN",
    max_images=20_000,
)
