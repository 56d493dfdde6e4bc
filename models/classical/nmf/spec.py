"""`nmf`: its config."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from models.configs import FeaturesConfig, described
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class NMFConfig(FeaturesConfig):
    """Non-negative matrix factorisation of scikit-learn, with its own defaults."""

    max_iter: Annotated[int, Ge(1), Le(100_000)] = described(200, "Iterations at most, 1 to 100,000.")
    tol: Annotated[float, Ge(0), Le(1)] = described(
        1e-4, "Iterations end when the error falls by less than this share of the first, 0 to 1."
    )


SPEC = MethodSpec(
    name="nmf",
    title="Non-negative matrix factorisation",
    paper="Lee & Seung, Learning the parts of objects by non-negative matrix factorization, Nature 401, 1999",
    config=NMFConfig,
    implementation="models.classical.nmf.method:NMF",
    profiles={"paper": {"standardize": "off"}},  # it takes no negative values
)
