"""`dcae`: its config and profiles."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from models.configs import BatchSize, Degrees, GraphStartConfig, NEpochs, NSteps, Rate, Share, Weight, described
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class DCAEConfig(GraphStartConfig):
    """The paper's recipe by default; `fast` starts at the neighbour graph and trains with Adam."""

    start: Literal["random", "graph"] = described(
        "random",
        "Where the first centers come from: the codes of K random images (`random`, as in the paper), or a partition "
        "of the neighbour graph (`graph`).",
    )
    n_epochs: NEpochs = described(500, "Epochs of the clustering stage, 1 to 100,000.")
    batch_size: BatchSize = described(100, "Images in a batch, 1 to 65,536.")
    optimizer: Literal["sgd", "adam"] = described("sgd", "How steps are made: `sgd` (with `momentum`) or `adam`.")
    learning_rate: Rate = described(0.006, "Size of a step, above 0, at most 10.")
    cluster_learning_rate: Rate | None = described(
        None, "Size of a step in the clustering stage, above 0, at most 10. null keeps `learning_rate`."
    )
    momentum: Annotated[float, Ge(0), Lt(1)] = described(0.9, "Momentum of `sgd`, from 0, below 1.")
    weight_decay: Share = described(5e-4, "Weight decay of `sgd`, 0 to 1.")
    cluster_weight: Weight = described(
        0.2, "Weight of the distance to the centers against reconstruction (lambda of eq. 4), 0 to a million."
    )
    pixel_reduction: Literal["mean", "sum"] = described(
        "mean", "How the reconstruction error of an image is formed from its pixels' errors."
    )
    stop_change: Share = described(
        0.0, "Share of the images, 0 to 1. Training ends when fewer change their cluster in an epoch. 0 never ends it."
    )
    anchor_weight: Weight = described(
        1.0, "Takes the place of `cluster_weight` while the start's partition is learned, 0 to a million."
    )
    n_hold_steps: NSteps = described(
        7_500, "Batches in which the start's partition is learned, at most. Only used with `start: graph`."
    )
    shift: Share = described(0.0, "Largest shift of a training image as a share of its side, 0 to 1.")
    rotation_degrees: Degrees = described(0.0, "Largest turn of a training image, 0 to 180 degrees.")


SPEC = MethodSpec(
    name="dcae",
    title="Deep convolutional auto-encoder with embedded clustering",
    paper="Alqahtani, Xie, Deng & Jones, A deep convolutional auto-encoder with embedded clustering, ICIP 2018",
    config=DCAEConfig,
    implementation="models.methods.dcae.method:DCAE",
    fast="models.methods.dcae.fast:FastDCAE",
    uses_gpu=True,
    profiles={
        "paper": {},
        "fast": {
            "start": "graph",
            "optimizer": "adam",
            "learning_rate": 2e-3,
            "cluster_learning_rate": 5e-5,
            "batch_size": 128,
            "cluster_weight": 5.0,
            "anchor_weight": 5.0,
            "hold_agreement": 0.99,
            "n_epochs": 3,
            "stop_change": 0.001,
            "shift": 0.05,
            "rotation_degrees": 5.0,
        },
    },
    data=("images",),
)
