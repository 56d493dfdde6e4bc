"""`depict` by the `fast` recipe (see `models.training.fast`).

The network first learns the start's partition from images shifted and turned, while its targets stay; only images that
the start is sure of teach. Then the paper's alternation goes on, still on augmented noisy images and clean targets.
Its prior, if none is given, is the sizes of the start's clusters. Where the network is sure at the end, its answers
correct the partition. The corrected partition is learned from every image as it is.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from models.base import Run
from models.methods.depict.method import DEPICT, Clustering, TargetsStage, target_distribution
from models.parts.encoders import xavier
from models.parts.memory import refuse_too_many
from models.start.graph import GraphStart
from models.start.sure import sure_rows
from models.training.corrections import CorrectionRule, corrected
from models.training.fast import FastRecipe, PartitionStage, state_to_restore
from models.training.held import HeldState
from models.training.stage import Stage
from models.training.trainer import train

KEEP_SPAN = (0.9, 0.97)


class FastDEPICT(FastRecipe):
    """See the module."""

    CLUSTER_SPAN = (0.75, KEEP_SPAN[0])

    def prepare(self) -> None:
        refuse_too_many(len(self.x), self.config.n_clusters, self.run.device)
        xavier(self.network, self.run.generator("depict", "weights"))

    def hold(self, start: GraphStart) -> "Hold":
        """Only rows that the start is sure of teach."""
        labels, self.known = self.model.match(start.labels)
        self.partition = torch.from_numpy(labels)
        q = self._softened(self.partition)
        q[~sure_rows(self.partition, torch.from_numpy(start.confidence), self.config.min_confidence)] = 0
        return Hold(self.model, self.x, self.run, q, self.known)

    def clustering(self, hold: PartitionStage) -> Clustering:
        """All rows have targets from here on."""
        assert isinstance(hold, Hold)
        u = self.model.prior(torch.bincount(self.partition, minlength=self.config.n_clusters).double().numpy())
        q = target_distribution(hold.probabilities(), u.to(self.run.device))
        return Clustering(self.model, self.x, self.run, q, known=self.known, u=u)

    def held(self, stage: Stage) -> HeldState | None:
        return state_to_restore(stage, self.model.max_move)

    def finish(self, stage: Clustering, is_undone: bool) -> None:
        """Correct the partition, and learn it from every row as it is."""
        confidence, answers = stage.probabilities().max(dim=1)
        rule = CorrectionRule(self.config.n_clusters, self.config.max_flow, self.known)
        partition = self.partition.to(self.run.device)
        labels = corrected(partition, answers, confidence >= self.config.min_confidence, rule)
        keep = Keep(self.model, self.x, self.run, self._softened(labels), self.known)
        train(keep, self.partition_schedule("keep", self.config.n_keep_steps, KEEP_SPAN))

    def _softened(self, labels: Tensor) -> Tensor:
        """One-hot targets of labels (N,) with `label_smoothing`: -> (N, K)."""
        config = self.config
        q = F.one_hot(labels, config.n_clusters).float()
        softened: Tensor = q * (1 - config.label_smoothing) + config.label_smoothing / config.n_clusters
        return softened


class Hold(TargetsStage, PartitionStage):
    """Targets stay as they are; rows without one neither teach nor count."""

    def __init__(self, model: DEPICT, x: NDArray[np.uint8], run: Run, q: Tensor, known: dict[int, int]) -> None:
        super().__init__(model, x, run, q, known)
        self.partition, self.is_taught = self.q.argmax(dim=1), self.q.sum(dim=1) > 0

    def predict_all(self) -> Tensor:
        return self.probabilities().argmax(dim=1)

    def rows_that_count(self) -> Tensor:
        return self.is_taught


class Keep(Hold):
    """Images are not moved: these are the ones to answer for."""

    def noisy(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Dropout alone."""
        path: tuple[list[Tensor], Tensor] = self.module.encode(self.scale(x), self.config.dropout)
        return path
