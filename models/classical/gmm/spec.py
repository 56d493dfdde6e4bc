"""`gmm`: its config."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from models.configs import FeaturesConfig, described
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class GMMConfig(FeaturesConfig):
    """Gaussian mixture of scikit-learn."""

    covariance_type: Literal["full", "tied", "diag", "spherical"] = described(
        "diag",
        "Shape of the clusters: any ellipsoid (`full`), one ellipsoid for all (`tied`), axes along the features "
        "(`diag`), or spheres (`spherical`).",
    )
    n_init: Annotated[int, Ge(1), Le(1_000)] = described(1, "Starts of which the likeliest counts, 1 to 1,000.")
    max_iter: Annotated[int, Ge(1), Le(100_000)] = described(100, "Iterations of EM at most, 1 to 100,000.")
    tol: Annotated[float, Gt(0), Le(1)] = described(
        1e-3, "Iterations end when the mean log-likelihood rises by less than this, above 0, at most 1."
    )
    reg_covar: Annotated[float, Gt(0), Le(1e6)] = described(
        1e-3,
        "Added to every variance, above 0, at most a million. Larger than scikit-learn's 1e-6, since border pixels "
        "never vary and pixels run from 0 to 1.",
    )


SPEC = MethodSpec(
    name="gmm",
    title="Gaussian mixture",
    paper="Dempster, Laird & Rubin, Maximum likelihood from incomplete data via the EM algorithm, JRSS B 1977",
    config=GMMConfig,
    implementation="models.classical.gmm.method:GMM",
)
