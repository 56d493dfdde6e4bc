"""`dual-autoencoder`: its config and profiles."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Le

from models.configs import (
    CorrectingConfig,
    Degrees,
    NEpochs,
    NSteps,
    Rate,
    Share,
    UndoableConfig,
    Weight,
    described,
    said,
)
from models.registry import MethodSpec


@dataclass(frozen=True, kw_only=True)
class DualAutoencoderConfig(UndoableConfig, CorrectingConfig):
    """The paper's recipe by default; `fast` starts at the neighbour graph and augments what the encoder sees."""

    n_clusters: Annotated[int, Ge(2), Le(512)] = field(
        metadata=said("How many clusters to form, 2 to 512, the width of the spectral network.")
    )
    start: Literal["autoencoder", "graph"] = described(
        "autoencoder",
        "Where the first clusters come from: the spectral network on codes of the auto-encoder (`autoencoder`, as in "
        "the paper), or a partition of the neighbour graph (`graph`).",
    )
    n_pretrain_epochs: NEpochs = described(
        100, "Epochs of the auto-encoder alone, 1 to 100,000. Only used with `start: autoencoder`."
    )
    n_spectral_epochs: NEpochs = described(
        50, "Epochs of the spectral network alone, 1 to 100,000. Only used with `start: autoencoder`."
    )
    n_epochs: NEpochs = described(50, "Epochs of both networks together, 1 to 100,000.")
    pretrain_batch_size: Annotated[int, Ge(2), Le(65_536)] = described(
        256, "Images in a batch while the auto-encoder trains or the start's partition is learned, 2 to 65,536."
    )
    batch_size: Annotated[int, Ge(4), Le(65_536)] = described(
        1_024,
        "Images in a batch of the spectral and the joint training, 4 to 65,536. Half are anchors, half a neighbour of "
        "each. At least 20 images for each cluster are taken.",
    )
    learning_rate: Rate = described(1e-3, "Size of Adam's steps, above 0, at most 10.")
    cluster_learning_rate: Rate = described(1e-3, "Size of a step in the joint training, above 0, at most 10.")
    beta: Weight = described(0.01, "Weight of the mutual information (eq. 10), 0 to a million.")
    gamma: Weight = described(1.0, "Weight of the divergence from the prior (eqs. 10 and 19), 0 to a million.")
    delta: Weight = described(0.5, "Weight of the plain reconstruction (eq. 12), 0 to a million.")
    noise: Annotated[float, Ge(0), Le(100)] = described(
        0.5, "Standard deviation of the noise that codes are multiplied with, 0 to 100."
    )
    mutual_information: bool = described(True, "Whether the mutual information is part of the loss.")
    relative_reconstruction: bool = described(
        True, "Whether the reconstruction of disturbed codes is part of the loss."
    )
    spectral: bool = described(True, "Whether the spectral network is used; otherwise k-means clusters the codes.")
    stop_change: Share = described(
        0.0, "Share of the images, 0 to 1. Training ends when fewer change their cluster in an epoch. 0 never ends it."
    )
    n_hold_steps: NSteps = described(
        2_200, "Batches in which the start's partition is learned, at most. Only used with `start: graph`."
    )
    n_keep_steps: NSteps = described(
        550,
        "Batches in which the corrected partition is learned from every image as it is, at most. Only used with "
        "`start: graph`.",
    )
    shift: Share = described(0.0, "Largest shift of a training image as a share of its side, 0 to 1.")
    rotation_degrees: Degrees = described(0.0, "Largest turn of a training image, 0 to 180 degrees.")


SPEC = MethodSpec(
    name="dual-autoencoder",
    title="Deep spectral clustering with a dual auto-encoder",
    paper="Yang, Deng, Zheng, Yan & Liu, Deep spectral clustering using dual autoencoder network, CVPR 2019",
    config=DualAutoencoderConfig,
    implementation="models.methods.dual_autoencoder.method:DualAutoencoder",
    fast="models.methods.dual_autoencoder.fast:FastDualAutoencoder",
    uses_gpu=True,
    profiles={
        "paper": {},
        "fast": {
            "start": "graph",
            "n_epochs": 2,
            "cluster_learning_rate": 1e-4,
            "stop_change": 0.001,
            "shift": 0.1,
            "rotation_degrees": 10.0,
        },
    },
    data=("images",),
)
