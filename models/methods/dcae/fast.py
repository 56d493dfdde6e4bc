"""`dcae` by the `fast` recipe (see `models.training.fast`).

Each cluster of the start gets a corner of the unit cube as its anchor. The network first learns to send augmented
images to the anchor of their cluster while it reconstructs the clean ones, until nearest anchors agree with the
partition. Then the paper's alternation goes on from the means of the clusters' codes.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from models.base import Run
from models.methods.dcae.method import DCAE, Alternation, ErrorStage
from models.parts.anchors import balanced_corners
from models.parts.encoders import sigmoid_as_tanh, xavier
from models.parts.losses import nearest
from models.start.graph import GraphStart
from models.training.fast import FastRecipe, PartitionStage, as_labels
from models.training.held import HeldState
from models.training.stage import Stage


class FastDCAE(FastRecipe):
    """See the module."""

    HOLD_SPAN, CLUSTER_SPAN = (0.35, 0.8), (0.8, 0.97)

    def prepare(self) -> None:
        xavier(self.network, self.run.generator("dcae", "weights"))
        sigmoid_as_tanh(self.network.encoder)
        sigmoid_as_tanh(self.network.decoder)

    def hold(self, start: GraphStart) -> "Hold":
        return Hold(self.model, self.x, self.run, as_labels(start.labels, self.run.device))

    def clustering(self, hold: PartitionStage) -> Alternation:
        return Alternation(self.model, self.x, self.run, hold.partition)

    def held(self, stage: Stage) -> HeldState | None:
        """`dcae` cannot be undone: what it ends with is kept."""
        return None

    def finish(self, stage: Alternation, is_undone: bool) -> None:
        self.model.serve_centers(stage)


class Hold(ErrorStage, PartitionStage):
    """Every image's code goes to the anchor of its cluster."""

    def __init__(self, model: DCAE, x: NDArray[np.uint8], run: Run, partition: Tensor) -> None:
        super().__init__(model, x, run)
        self.labels = self.partition = partition
        anchors = balanced_corners(self.n_clusters, self.module.n_units, run.generator("dcae", "anchors"))
        self.centers = anchors.to(run.device)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return self.error(x, index, self.config.anchor_weight)

    def predict_all(self) -> Tensor:
        return nearest(self.codes(), self.centers)
