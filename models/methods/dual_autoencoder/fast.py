"""`dual-autoencoder` by the `fast` recipe (see `models.training.fast`).

While the start's partition is learned, p(y|z) of eq. (19) is that partition, with far corners as mu_y. The spectral
network learns the partition's normalised indicators, which are the eigenvectors of a graph of separate clusters.
Images are shifted and turned, their reconstructions are not. Then the joint training of eq. (20) goes on.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from models.base import Run
from models.methods.dual_autoencoder.losses import divergence, squared
from models.methods.dual_autoencoder.method import DualAutoencoder, Joint, TermsStage
from models.methods.dual_autoencoder.network import N_LATENT
from models.parts.anchors import balanced_corners
from models.parts.losses import nearest
from models.parts.memory import refuse_too_many
from models.start.graph import GraphStart
from models.training.fast import FastRecipe, PartitionStage, as_labels
from models.training.held import HeldState
from models.training.stage import Stage


class FastDualAutoencoder(FastRecipe):
    """See the module."""

    def hold_batch_size(self) -> int:
        size: int = self.config.pretrain_batch_size
        return size

    def prepare(self) -> None:
        refuse_too_many(len(self.x), self.config.n_clusters, self.run.device)

    def hold(self, start: GraphStart) -> "Hold":
        return Hold(self.model, self.x, self.run, as_labels(start.labels, self.run.device))

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

    def finish(self, stage: Joint, is_undone: bool) -> None:
        if is_undone and self.before is not None:
            stage.labels = self.before.labels
        self.model.serve_clusters(stage)


class Hold(TermsStage, PartitionStage):
    """Eq. (13) with the last term of eq. (19), and the spectral network along with it."""

    def __init__(self, model: DualAutoencoder, x: NDArray[np.uint8], run: Run, partition: Tensor) -> None:
        super().__init__(model, x, run)
        self.partition = partition
        corners = balanced_corners(self.n_clusters, N_LATENT, run.generator("dual-autoencoder", "anchors"))
        self.mu = (2 * corners - 1).to(run.device)
        sizes = torch.bincount(partition, minlength=self.n_clusters).clamp(min=1)
        self.scale_of = (len(partition) / sizes).sqrt().to(run.device)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        terms, mean, log_variance = self.code_terms(self.scale(x))
        own = self.partition[index]
        terms["divergence"] = self.config.gamma * divergence(mean, log_variance, self.mu[own]).mean()
        if self.config.spectral:
            indicators = F.one_hot(own, self.n_clusters) * self.scale_of
            terms["indicators"] = squared(self.module.spectral(mean) - indicators)
        return terms

    def predict_all(self) -> Tensor:
        z = self.codes(self.module.latent)
        return (self.module.spectral(z) / self.scale_of).argmax(dim=1) if self.config.spectral else nearest(z, self.mu)


class FastJoint(Joint):
    """Targets from the clean image, codes from the augmented one."""

    @torch.no_grad()
    def target_memberships(self, raw: Tensor, clean: Tensor) -> Tensor:
        return self.memberships(self.module.spectral(self.module.latent(clean)))
