"""`precise-feature`: its config and profiles."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from models.configs import (
    ClusterPrior,
    Degrees,
    NSteps,
    Rate,
    Share,
    UndoableConfig,
    Weight,
    check_prior,
    described,
)
from models.registry import MethodSpec

N_NOISE_OF_VECTORS, N_NOISE_OF_IMAGES, N_NOISE_TO_IMITATE = 2, 10, 24


@dataclass(frozen=True, kw_only=True)
class PreciseFeatureConfig(UndoableConfig):
    """The paper's recipe by default, which wants a GPU for a day; `fast` starts at the neighbour graph."""

    start: Literal["random", "graph"] = described(
        "random",
        "What the game begins with: random networks (`random`, as in the paper), or networks that have learned a "
        "partition of the neighbour graph (`graph`).",
    )
    n_steps: NSteps = described(
        900_000, "Turns of the generator. Critic and classifier have theirs between two of them."
    )
    n_critic: Annotated[int, Ge(1), Le(1_000)] = described(
        5, "Turns of the critic for each of the generator, 1 to 1,000."
    )
    n_classifier: Annotated[int, Ge(1), Le(1_000)] = described(
        4, "Turns of the classifier for each of the generator, 1 to 1,000."
    )
    batch_size: Annotated[int, Ge(2), Le(65_536)] = described(50, "Inputs in a batch, 2 to 65,536.")
    learning_rate: Rate = described(1e-4, "Size of Adam's steps in the game, above 0, at most 10.")
    penalty: Weight | None = described(
        None,
        "Weight of the critic's gradient penalty (lambda), 0 to a million. null: the paper's 100 for images, 0.1 for "
        "vectors.",
    )
    eta: Weight = described(
        10.0,
        "First weight of the classifier's error in the generator's loss (eqs. 7 and 8), 0 to a million.",
    )
    eta_growth: Annotated[float, Ge(1), Le(100)] = described(
        1.2, "What `eta` is multiplied with as it grows, 1 to 100."
    )
    eta_steps: NSteps = described(30_000, "Turns of the generator after which `eta` grows once more.")
    n_noise: Annotated[int, Ge(0), Le(4_096)] | None = described(
        None,
        "Noise variables besides the cluster, 0 to 4,096. null: 10 for images, 24 with `start: graph`; 2 for vectors.",
    )
    cluster_prior: ClusterPrior | None = described(
        None,
        "The clusters' relative sizes, one number above 0 for each. null: all equal with `start: random`, the start's "
        "own sizes with `start: graph`.",
    )
    augment: bool = described(False, 'Whether real images are shifted and turned in the game, the paper\'s "Ours*".')
    n_hold_steps: NSteps = described(
        4_200, "Batches in which the classifier learns the start's partition. Only used with `start: graph`."
    )
    n_imitation_steps: NSteps = described(
        3_000, "Batches in which the generator learns to draw images of each cluster. Only used with `start: graph`."
    )
    imitation_rate: Rate = described(
        1e-3, "Size of Adam's steps before the game, above 0, at most 10. Only used with `start: graph`."
    )
    shift: Share = described(0.1, "Largest shift of a training image as a share of its side, 0 to 1.")
    rotation_degrees: Degrees = described(10.0, "Largest turn of a training image, 0 to 180 degrees.")

    def __post_init__(self) -> None:
        """Refuse a prior of another length than K."""
        super().__post_init__()
        check_prior(self.cluster_prior, self.n_clusters)

    def count_noise(self, is_image: bool) -> int:
        """Noise variables of the generator, `n_noise` or what stands for null."""
        if self.n_noise is not None:
            return self.n_noise
        of_images = N_NOISE_TO_IMITATE if self.start == "graph" else N_NOISE_OF_IMAGES
        return of_images if is_image else N_NOISE_OF_VECTORS


SPEC = MethodSpec(
    name="precise-feature",
    title="Learning the precise feature for cluster assignment",
    paper="Gan, Dong, Zhou, Gao & Dong, Learning the precise feature for cluster assignment, "
    "IEEE Trans. Cybernetics 2021",
    config=PreciseFeatureConfig,
    implementation="models.methods.precise_feature.method:PreciseFeature",
    fast="models.methods.precise_feature.fast:FastPreciseFeature",
    uses_gpu=True,
    profiles={
        "paper": {},
        "fast": {"start": "graph", "n_steps": 150, "n_imitation_steps": 3_000, "max_move": 0.02},
    },
)
