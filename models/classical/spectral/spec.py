"""`spectral`: its config."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from models.configs import FeaturesConfig, described
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class SpectralConfig(FeaturesConfig):
    """Spectral clustering of scikit-learn."""

    n_neighbors: Annotated[int, Ge(2), Le(1_000)] = described(
        10, "Neighbours of each input in the neighbour graph, itself included, 2 to 1,000."
    )


SPEC = MethodSpec(
    name="spectral",
    title="Spectral clustering",
    paper="Ng, Jordan & Weiss, On spectral clustering: analysis and an algorithm, NIPS 2001; cluster_qr: Damle, "
    "Minden & Ying, Information and Inference 2019",
    config=SpectralConfig,
    implementation="models.classical.spectral.method:Spectral",
    max_images=100_000,
)
