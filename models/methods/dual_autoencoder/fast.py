"""`dual-autoencoder` by the `fast` recipe (see `models.training.fast`).

While the start's partition is learned, p(y|z) of eq. (19) is that partition, with far corners as mu_y. The spectral
network learns the partition's normalised indicators, which are the eigenvectors of a graph of separate clusters.
Images are shifted and turned, their reconstructions are not. Only images that the start is sure of teach.

Then the joint training of eq. (20) goes on. Where it is sure at the end, its clusters correct the partition. Both
networks learn the corrected partition from every image as it is.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from models.base import Run
from models.methods.dual_autoencoder.losses import divergence
from models.methods.dual_autoencoder.method import DualAutoencoder, Joint, TermsStage
from models.methods.dual_autoencoder.network import N_LATENT
from models.parts.anchors import balanced_corners
from models.parts.losses import nearest, weighted_mean
from models.parts.memory import refuse_too_many
from models.start.graph import GraphStart
from models.start.sure import sure_rows
from models.training.corrections import CorrectionRule, corrected
from models.training.fast import FastRecipe, PartitionStage, as_labels
from models.training.held import HeldState
from models.training.stage import Stage
from models.training.trainer import train

KEEP_SPAN = (0.9, 0.97)


class FastDualAutoencoder(FastRecipe):
    """See the module."""

    CLUSTER_SPAN = (0.75, KEEP_SPAN[0])

    def hold_batch_size(self) -> int:
        size: int = self.config.pretrain_batch_size
        return size

    def prepare(self) -> None:
        refuse_too_many(len(self.x), self.config.n_clusters, self.run.device)

    def hold(self, start: GraphStart) -> "Hold":
        """Only rows that the start is sure of teach."""
        self.partition = as_labels(start.labels, self.run.device)
        confidence = torch.from_numpy(start.confidence).to(self.run.device)
        is_sure = sure_rows(self.partition, confidence, self.config.min_confidence)
        return Hold(self.model, self.x, self.run, self.partition, is_sure)

    def cluster(self, hold: PartitionStage) -> None:
        """Without the spectral network there is no joint training: k-means clusters the codes."""
        if self.config.spectral:
            super().cluster(hold)
        else:
            self.model.cluster_codes(self.x, self.run, hold.partition)

    def clustering(self, hold: PartitionStage) -> "FastJoint":
        pairs = self.model.pairs(self.x, self.run, self.CLUSTER_SPAN[0])
        return FastJoint(self.model, self.x, self.run, pairs, hold.partition)

    def held(self, stage: Stage) -> HeldState | None:
        self.before = super().held(stage)
        return self.before

    def finish(self, stage: "FastJoint", is_undone: bool) -> None:
        """Correct the partition, learn it from every row as it is, and serve it."""
        stage.refresh(self.before.labels if is_undone and self.before is not None else stage.labels)
        confidence, answers = stage.confidences()
        rule = CorrectionRule(self.config.n_clusters, self.config.max_flow)
        labels = corrected(self.partition, answers, confidence >= self.config.min_confidence, rule)
        keep = Keep(self.model, self.x, self.run, labels, torch.ones_like(labels, dtype=torch.bool))
        train(keep, self.partition_schedule("keep", self.config.n_keep_steps, KEEP_SPAN))
        stage.labels = labels
        self.model.serve_clusters(stage)


class Hold(TermsStage, PartitionStage):
    """Eq. (13) with the last term of eq. (19), and the spectral network along with it."""

    def __init__(
        self, model: DualAutoencoder, x: NDArray[np.uint8], run: Run, partition: Tensor, teaches: Tensor
    ) -> None:
        """`partition` (N,), and which rows of it teach (N,); of others the network learns what they look like."""
        super().__init__(model, x, run)
        self.partition, self.teaches = partition, teaches
        corners = balanced_corners(self.n_clusters, N_LATENT, run.generator("dual-autoencoder", "anchors"))
        self.mu = (2 * corners - 1).to(run.device)
        sizes = torch.bincount(partition, minlength=self.n_clusters).clamp(min=1)
        self.scale_of = (len(partition) / sizes).sqrt().to(run.device)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        terms, mean, log_variance = self.code_terms(self.scale(x))
        own, weight = self.partition[index], self.teaches[index].float()
        away = divergence(mean, log_variance, self.mu[own])
        terms["divergence"] = self.config.gamma * weighted_mean(away, weight)
        if self.config.spectral:
            indicators = F.one_hot(own, self.n_clusters) * self.scale_of
            errors = (self.module.spectral(mean) - indicators).square().sum(dim=1)
            terms["indicators"] = weighted_mean(errors, weight)
        return terms

    def rows_that_count(self) -> Tensor:
        return self.teaches

    def predict_all(self) -> Tensor:
        z = self.codes(self.module.latent)
        return (self.module.spectral(z) / self.scale_of).argmax(dim=1) if self.config.spectral else nearest(z, self.mu)


class Keep(Hold):
    """Images are not moved: these are the ones to answer for."""

    def augment(self, x: Tensor) -> Tensor:
        return x


class FastJoint(Joint):
    """Targets from the clean image, codes from the augmented one."""

    def confidences(self) -> tuple[Tensor, Tensor]:
        """p(y|z) of each image's likeliest cluster (N,), and that cluster (N,), as of the last `refresh`."""
        likeliest = (-torch.cdist(self.outputs, self.centers)).softmax(dim=1).max(dim=1)
        return likeliest.values, likeliest.indices

    @torch.no_grad()
    def target_memberships(self, raw: Tensor, clean: Tensor) -> Tensor:
        return self.memberships(self.module.spectral(self.module.latent(clean)))
