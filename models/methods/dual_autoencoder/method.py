"""Deep Spectral Clustering using Dual Autoencoder Network (Yang, Deng, Zheng, Yan & Liu, CVPR 2019).

Symbols are the paper's: x images (B, C, S, S) in 0...1, z latent codes (B, D) drawn from N(mean, variance), z_hat codes
disturbed by noise, C the last feature map, y spectral outputs (B, K), W affinities of images. Ours, where the text is
silent:

* Adam at .001; `network.py` has the networks' sizes.
* Every reconstruction term is a sum over pixels and every KL term a sum over latents, both a mean over images.
* p(y|z) of eq. (19) is the softmax of -distance to the k-means centers of y over the whole set; mu_y are the means of z
  in those clusters, and q(y) = 1/K. All three are held for an epoch.
* W joins each image to its 3 nearest neighbours by the pre-trained z, at the scale of the median distance. A random
  batch of such a graph is nearly empty, so a batch is anchors and one neighbour of each.
* The network answers with the orthonormalising matrix of one pass over a fixed large batch: an image's answer must not
  depend on those beside it.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.base import Network, Run, StepState, start_state
from models.methods.dual_autoencoder.losses import (
    divergence,
    mutual_information,
    orthonormaliser,
    spectral_error,
    squared,
)
from models.methods.dual_autoencoder.network import DualAutoencoderNetwork
from models.methods.dual_autoencoder.spec import DualAutoencoderConfig
from models.parts.k_means import k_means
from models.parts.losses import cluster_centers
from models.parts.memory import refuse_too_many
from models.start.affinity import Pairs
from models.training.fast import DeepClusterer, state_to_restore
from models.training.stage import ClusteringStage, ModelStage
from models.training.state import EpochState
from models.training.trainer import Schedule, train, train_or_undo

N_NEIGHBOURS = 3
FIXED_ROWS = 20_000  # of the pass that finds the orthonormalising matrix
ROWS_A_CLUSTER = 20  # a batch must hold every cluster


class DualAutoencoder(DeepClusterer):
    """Codes that survive noise and tell of their image, laid out by a network that finds the graph's eigenvectors."""

    name = "dual-autoencoder"
    config: DualAutoencoderConfig

    def build(self) -> Network:
        """See `DualAutoencoderNetwork`."""
        config = self.config
        return DualAutoencoderNetwork(
            self.spec.channels, self.spec.side, config.n_clusters, is_spectral=config.spectral
        )

    def fit_as_published(self, x: NDArray[np.uint8], run: Run) -> None:
        """Sections 3.1 and 3.2: the auto-encoder, then the spectral network on its codes, then both together."""
        config = self.config
        refuse_too_many(len(x), config.n_clusters, run.device)
        train(
            Pretrain(self, x, run),
            Schedule("pretrain", config.n_pretrain_epochs, config.pretrain_batch_size, (0, 0.45)),
        )
        if not config.spectral:
            self.cluster_codes(x, run, None)
            return
        pairs = self.pairs(x, run, 0.45)
        n_anchors = anchors_of(config, len(x))
        train(Spectral(self, x, run, pairs), Schedule("spectral", config.n_spectral_epochs, n_anchors, (0.5, 0.6)))
        stage = Joint(self, x, run, pairs, None)
        run.on_step(start_state("initialise", 0.6, stage.labels.cpu().numpy().copy(), config.n_clusters))
        held = state_to_restore(stage, config.max_move)
        if train_or_undo(stage, self.cluster_schedule(x, (0.6, 0.97)), held) and held is not None:
            stage.labels = held.labels
        self.serve_clusters(stage)

    def cluster_schedule(self, x: NDArray[np.uint8], span: tuple[float, float]) -> Schedule:
        """How long both networks train together."""
        config = self.config
        return Schedule("cluster", config.n_epochs, anchors_of(config, len(x)), span, stop_change=config.stop_change)

    def pairs(self, x: NDArray[np.uint8], run: Run, progress: float) -> Pairs:
        """Eq. (14): W of all images, from the codes as they are now."""
        z = ModelStage(self, x, run).codes(self.network.latent)
        return Pairs.of(z, N_NEIGHBOURS, run.seed, lambda: run.on_step(StepState("neighbours", progress)))

    def cluster_codes(self, x: NDArray[np.uint8], run: Run, labels: Tensor | None) -> None:
        """The ablation without spectral network: k-means on the codes, from a partition (N,) if there is one."""
        z = ModelStage(self, x, run).codes()
        clusters = clusters_of(z, labels, self.config.n_clusters, run)
        run.on_step(StepState("cluster", 0.97, step=1, assignments=clusters.cpu().numpy(), is_epoch=True))
        self._serve(z, clusters)

    def serve_clusters(self, stage: "Joint") -> None:
        """Answer with the clusters of a stage, by the network as it is now."""
        stage.refresh(stage.labels)
        self._serve(stage.outputs, stage.labels)

    def _serve(self, z: Tensor, labels: Tensor) -> None:
        centers = cluster_centers(z, labels, self.config.n_clusters)
        variance = (z - centers[labels]).square().sum(dim=1).mean()
        self.network.head.take(centers, float(variance))

    @torch.no_grad()
    def reconstruct(self, x: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The decoder's images of the mean codes: (N, C, S, S) -> (N, C, S, S)."""
        again = self.network.decoder(self.network.latent(self.serving_graph.scale(torch.from_numpy(np.array(x)))))
        images: NDArray[np.uint8] = (again * 255).round().byte().numpy()
        return images


def anchors_of(config: DualAutoencoderConfig, n: int) -> int:
    """Half of a batch's rows, of which there are enough for every cluster; not more than there are inputs."""
    return min(n, max(config.batch_size, ROWS_A_CLUSTER * config.n_clusters) // 2)


def clusters_of(z: Tensor, labels: Tensor | None, n_clusters: int, run: Run) -> Tensor:
    """k-means on codes (N, D), numbered like the labels it goes on from, if there are any: -> (N,)."""
    if labels is None:
        return k_means(z, n_clusters, run.generator("dual-autoencoder", "k-means"))
    return k_means(z, n_clusters, cluster_centers(z, labels.to(z.device), n_clusters))


class TermsStage(ModelStage):
    """Adam over everything that learns, and the terms of eqs. (10) and (12)."""

    def __init__(self, model: DualAutoencoder, x: NDArray[np.uint8], run: Run) -> None:
        super().__init__(model, x, run)
        self.n_anchors = max(1, round(anchors_of(self.config, len(x)) * run.batch_scale))
        self.optimizer = self.adam(self.module.parameters(), self.config.learning_rate)

    def code_terms(self, clean: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """L_r and the mutual information of L_e; with them the codes' means and log variances, (B, 120) each."""
        config, network = self.config, self.module
        seen = self.augment(clean)
        features, mean, log_variance = network.encode(seen)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        again = network.decoder(z)
        terms = {"reconstruction": config.delta * squared(clean - again)}
        if config.relative_reconstruction:
            z_hat = z * (1 + config.noise * torch.randn_like(z))
            terms["relative_reconstruction"] = squared(network.decoder(z_hat) - again)
        if config.mutual_information:
            whole = mutual_information(*network.whole(seen.flatten(1), z))
            local = mutual_information(*network.local(features, z))
            terms["mutual_information"] = -config.beta * (whole + local)
        return terms, mean, log_variance


class Pretrain(TermsStage):
    """Eq. (13)."""

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        terms, mean, log_variance = self.code_terms(self.scale(x))
        prior = divergence(mean, log_variance, torch.zeros_like(mean))
        return {**terms, "divergence": self.config.gamma * prior.mean()}


class Spectral(TermsStage):
    """Eq. (16) alone: codes are fixed, the spectral network finds the graph's eigenvectors."""

    def __init__(self, model: DualAutoencoder, x: NDArray[np.uint8], run: Run, pairs: Pairs) -> None:
        super().__init__(model, x, run)
        self.pairs = pairs
        self.z = self.codes(self.module.latent)
        self.optimizer = self.adam(self.module.spectral.parameters(), self.config.learning_rate)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        rows = self.pairs.with_neighbours(index, self.n_anchors)
        y = self.module.spectral(self.z[rows])
        y = (y.double() @ orthonormaliser(y)).float()
        return {"spectral": spectral_error(self.pairs.among(rows), y)}


class Joint(TermsStage, ClusteringStage):
    """Eq. (20): L_r + L_e with eq. (19) + L_c, clusters fixed for the epoch and then found anew by k-means on y."""

    can_collapse = False
    reads_rows = True
    labels = EpochState()  # (N,)
    centers = EpochState()  # (K, K), of y
    mu = EpochState()  # (K, D), of z

    def __init__(
        self, model: DualAutoencoder, x: NDArray[np.uint8], run: Run, pairs: Pairs, labels: Tensor | None
    ) -> None:
        super().__init__(model, x, run)
        self.pairs = pairs
        self.optimizer = self.adam(self.module.parameters(), self.config.cluster_learning_rate)
        self.refresh(labels)

    @torch.no_grad()
    def refresh(self, labels: Tensor | None) -> None:
        """The matrix of one pass over fixed rows, y of all images, their clusters, and what these make of z."""
        z = self.codes(self.module.latent)
        raw = torch.cat([self.module.spectral(part) for part in torch.split(z, 4096)])
        step = -(-len(raw) // FIXED_ROWS)
        self.module.mixing.copy_(orthonormaliser(raw[::step]))
        self.outputs = torch.cat([(part.double() @ self.module.mixing).float() for part in torch.split(raw, 4096)])
        self.labels = clusters_of(self.outputs, labels, self.n_clusters, self.run)
        self.centers = cluster_centers(self.outputs, self.labels, self.n_clusters)
        self.mu = cluster_centers(z, self.labels, self.n_clusters)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        rows = self.pairs.with_neighbours(index, self.n_anchors)
        clean = self.scale(self.inputs.rows(rows))
        terms, mean, log_variance = self.code_terms(clean)
        raw = self.module.spectral(mean)
        p = self.target_memberships(raw, clean)
        terms["divergence"] = self.config.gamma * self.joint_divergence(p, mean, log_variance)
        y = (raw.double() @ orthonormaliser(raw)).float()
        terms["spectral"] = spectral_error(self.pairs.among(rows), y)
        return terms

    def target_memberships(self, raw: Tensor, clean: Tensor) -> Tensor:
        """p(y|z) of the images in the batch, from spectral outputs (B, K): -> (B, K)."""
        return self.memberships(raw)

    def memberships(self, raw: Tensor) -> Tensor:
        """p(y|z): softmax of -distance to the epoch's centers, by the epoch's matrix: (B, K) -> (B, K)."""
        y = (raw.double() @ self.module.mixing).float()
        return (-torch.cdist(y, self.centers)).softmax(dim=1)

    def joint_divergence(self, p: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """Eq. (19): KL(p(y|z) p(z|x) | N(mu_y, I) / K), mean over images: (B, K), (B, D), (B, D) -> ()."""
        of_labels = (p * (p.clamp(min=1e-12).log() + math.log(self.n_clusters))).sum(dim=1)
        spread = (log_variance.exp() - 1 - log_variance).sum(dim=1) / 2
        away = (p * torch.cdist(mean, self.mu).square()).sum(dim=1) / 2
        return (of_labels + spread + away).mean()

    def labels_now(self) -> Tensor:
        return self.labels

    def recluster(self, epoch: int) -> Tensor:
        self.refresh(self.labels)
        return self.labels
