"""`adaptive-gmm`: its config and profiles."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

from models.configs import (
    BatchSize,
    Degrees,
    LayerSize,
    NSteps,
    PartialShare,
    Rate,
    Share,
    UndoableConfig,
    Weight,
    described,
)
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class AdaptiveGMMConfig(UndoableConfig):
    """The paper's recipe by default; `fast` starts at the neighbour graph and trains with Adam. Steps are batches."""

    start: Literal["autoencoder", "graph"] = described(
        "autoencoder",
        "Where the first mixture comes from: EM on the codes of an auto-encoder (`autoencoder`, as in the paper), or "
        "a partition of the neighbour graph (`graph`).",
    )
    hidden_units: tuple[LayerSize, LayerSize, LayerSize] = described(
        (500, 500, 2_000), "Units of the three hidden layers, 1 to 65,536 each."
    )
    n_features: Annotated[int, Ge(1), Le(4_096)] = described(10, "Size of a code, 1 to 4,096.")
    n_rbm_steps: NSteps = described(50_000, "Batches of each RBM. Only used with `start: autoencoder`.")
    n_finetune_steps: NSteps = described(
        40_000, "Batches in which the unrolled auto-encoder is fine-tuned. Only used with `start: autoencoder`."
    )
    n_steps: NSteps = described(50_000, "Batches of the joint stage, of encoder and mixture together.")
    pretrain_batch_size: BatchSize = described(
        256, "Inputs in a batch of the RBMs and the fine-tuning, 1 to 65,536. Only used with `start: autoencoder`."
    )
    batch_size: BatchSize = described(128, "Inputs in a batch of all other training, 1 to 65,536.")
    learning_rate: Rate = described(0.01, "Size of a step, above 0, at most 10.")
    decay_steps: Annotated[int, Ge(0), Le(100_000_000)] = described(
        10_000, "The rate is divided by ten after so many batches, and again. 0 keeps it."
    )
    dropout: PartialShare = described(
        0.2, "Share of the inputs that RBMs and fine-tuning drop, from 0, below 1. Only used with `start: autoencoder`."
    )
    n_mixture_init: Annotated[int, Ge(1), Le(1_000)] = described(
        10, "Starts of EM, of which the likeliest counts, 1 to 1,000. Only used with `start: autoencoder`."
    )
    eta: Weight | None = described(
        None,
        "Weight of the means' separation (eq. 5), 0 to a million. null: 0.01 up to 20 clusters, else 0.001; 0 is the "
        "paper's ablation.",
    )
    variance_floor: Annotated[float, Gt(0), Le(1e6)] = described(
        1e-4, "Smallest variance of a component, above 0, at most a million. The likelihood has no bound without it."
    )
    max_separation: Annotated[float, Gt(0), Le(1e12)] = described(
        1e4, "Largest squared distance of two means that still counts. The separation has no bound without it."
    )
    clip: Annotated[float, Ge(0), Le(1e12)] = described(
        0.0,
        "Largest norm of a gradient in the joint stage, for codes of small spread. 0, as in the paper: no limit.",
    )
    n_hold_steps: NSteps = described(
        8_000, "Batches in which the start's partition is learned, at most. Only used with `start: graph`."
    )
    hold_learning_rate: Rate = described(
        1e-3, "Size of a step while the start's partition is learned, above 0, at most 10."
    )
    hold_likelihood_weight: Weight = described(
        0.1, "Weight of the likelihood while the start's partition is learned, 0 to a million."
    )
    stop_change: Share = described(
        0.0, "Share of the inputs, 0 to 1. Training ends when fewer change their cluster in an epoch. 0 never ends it."
    )
    shift: Share = described(0.1, "Largest shift of a training image as a share of its side, 0 to 1.")
    rotation_degrees: Degrees = described(10.0, "Largest turn of a training image, 0 to 180 degrees.")
    use_bfloat16: bool = described(
        False, "Compute in bfloat16 where the device is fast in it (GPUs, CPUs with AMX): less exact."
    )


SPEC = MethodSpec(
    name="adaptive-gmm",
    title="Deep clustering by an adaptive Gaussian mixture",
    paper="Wang & Jiang, Unsupervised deep clustering via adaptive GMM modeling and optimization, "
    "Neurocomputing 433, 2021",
    config=AdaptiveGMMConfig,
    implementation="models.methods.adaptive_gmm.method:AdaptiveGMM",
    fast="models.methods.adaptive_gmm.fast:FastAdaptiveGMM",
    uses_gpu=True,
    profiles={
        "paper": {},
        "fast": {
            "start": "graph",
            "batch_size": 256,
            "learning_rate": 1e-5,
            "decay_steps": 0,
            "n_steps": 820,
            "n_hold_steps": 8_000,
            "hold_learning_rate": 2e-3,
            "hold_likelihood_weight": 1.0,
            "variance_floor": 1.0,
            "stop_change": 0.001,
            "max_move": 0.02,
            "shift": 0.05,
            "rotation_degrees": 5.0,
            "use_bfloat16": True,
        },
    },
)
