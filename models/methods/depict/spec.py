"""`depict`: its config and profiles."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le

from models.configs import (
    BatchSize,
    ClusterPrior,
    CorrectingConfig,
    Degrees,
    NEpochs,
    NSteps,
    PartialShare,
    Rate,
    Share,
    UndoableConfig,
    check_prior,
    described,
)
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class DEPICTConfig(UndoableConfig, CorrectingConfig):
    """The paper's recipe by default; `fast` starts at the neighbour graph and augments what the noisy path sees."""

    start: Literal["kmeans", "graph"] = described(
        "kmeans",
        "Where the first targets come from: k-means on the embedding (`kmeans`, as in the paper), or a partition of "
        "the neighbour graph (`graph`).",
    )
    learning: Literal["mda", "rda", "sda"] = described(
        "mda",
        "How the auto-encoder is trained: all levels jointly (`mda`), layer by layer and then the encoder alone "
        "(`sda`), or as `sda` with a clean retraining in between (`rda`).",
    )
    n_pretrain_epochs: NEpochs = described(
        1_000, "Epochs of reconstruction alone, 1 to 100,000; for each layer with `sda` and `rda`."
    )
    n_epochs: NEpochs = described(1_000, "Epochs of the clustering stage at most, 1 to 100,000.")
    batch_size: BatchSize = described(100, "Images in a batch, 1 to 65,536.")
    learning_rate: Rate = described(1e-4, "Size of Adam's steps, above 0, at most 10.")
    cluster_learning_rate: Rate | None = described(
        None, "Size of a step in the clustering stage, above 0, at most 10. null keeps `learning_rate`."
    )
    dropout: PartialShare = described(
        0.1, "Share of the units that the noisy path drops at every level, from 0, below 1."
    )
    n_kmeans_init: Annotated[int, Ge(1), Le(1_000)] = described(
        40, "Starts of k-means, of which the best counts, 1 to 1,000. Only used with `start: kmeans`."
    )
    tolerance: Share = described(
        1e-7, "Training ends when the mean squared change of the targets in an epoch falls below this, 0 to 1."
    )
    cluster_prior: ClusterPrior | None = described(
        None,
        "The clusters' relative sizes, one number above 0 for each. The largest is matched to the largest cluster of "
        "the start. null: all equal with `start: kmeans`, the start's own sizes with `start: graph`.",
    )
    stop_change: Share = described(
        0.0, "Share of the images, 0 to 1. Training ends when fewer change their cluster in an epoch. 0 never ends it."
    )
    n_hold_steps: NSteps = described(
        1_100, "Batches in which the start's partition is learned, at most. Only used with `start: graph`."
    )
    label_smoothing: PartialShare = described(
        0.1, "Share of a target that is spread over all clusters, from 0, below 1. Only used with `start: graph`."
    )
    n_keep_steps: NSteps = described(
        550,
        "Batches in which the corrected partition is learned from every image as it is, at most. Only used with "
        "`start: graph`.",
    )
    shift: Share = described(0.0, "Largest shift of a training image as a share of its side, 0 to 1.")
    rotation_degrees: Degrees = described(0.0, "Largest turn of a training image, 0 to 180 degrees.")
    use_bfloat16: bool = described(
        False, "Compute in bfloat16 where the device is fast in it (GPUs, CPUs with AMX): less exact."
    )

    def __post_init__(self) -> None:
        """Refuse a prior of another length than K."""
        super().__post_init__()
        check_prior(self.cluster_prior, self.n_clusters)


SPEC = MethodSpec(
    name="depict",
    title="Deep embedded regularised clustering",
    paper="Ghasedi Dizaji, Herandi, Deng, Cai & Huang, Deep clustering via joint convolutional autoencoder "
    "embedding and relative entropy minimization, ICCV 2017",
    config=DEPICTConfig,
    implementation="models.methods.depict.method:DEPICT",
    fast="models.methods.depict.fast:FastDEPICT",
    uses_gpu=True,
    profiles={
        "paper": {},
        "fast": {
            "start": "graph",
            "learning_rate": 2e-3,
            "batch_size": 256,
            "n_hold_steps": 1_900,
            "n_epochs": 1,
            "cluster_learning_rate": 1e-5,
            "stop_change": 0.001,
            "max_move": 0.02,
            "min_confidence": 0.8,
            "shift": 0.1,
            "rotation_degrees": 10.0,
            "use_bfloat16": True,
        },
    },
    data=("images",),
    takes_known=True,
)
