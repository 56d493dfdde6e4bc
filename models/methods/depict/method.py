"""DEPICT: Deep Clustering via Joint Convolutional Autoencoder Embedding and Relative Entropy Minimization
(Ghasedi Dizaji, Herandi, Deng, Cai & Huang, ICCV 2017).

Symbols are the paper's: x images (B, C, S, S) in -1...1, z embedding (B, K) in -1...1, theta softmax weights (K, K),
p cluster probabilities and q their targets, both (N, K) with rows summing to 1, u the prior sizes (K,). The noisy
path has dropout, the clean path has none; they share weights. Ours, where the text is silent:

* The embedding has no dropout of its own, though eq. 9 read literally drops it too.
* The first targets: k-means with 40 starts on the embedding; its centers, scaled to unit norm, are the first theta.
* Training ends when the mean squared change of q falls under 1e-7.
* A prior that is given is matched to the starting clusters by size.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from models.base import Network, Run, start_state
from models.methods.depict.network import LEAK, DEPICTNetwork
from models.methods.depict.spec import DEPICTConfig
from models.parts.encoders import xavier
from models.parts.k_means import k_means
from models.parts.known import match_known, match_prior
from models.parts.losses import cluster_centers
from models.parts.memory import refuse_too_many
from models.training.fast import DeepClusterer, state_to_restore
from models.training.stage import ClusteringStage, ModelStage
from models.training.state import EpochState
from models.training.trainer import Schedule, train, train_or_undo


def target_distribution(p: Tensor, u: Tensor) -> Tensor:
    """Targets in closed form, eq. (7): (N, K), (K,) -> (N, K). Dividing by sizes keeps clusters from taking all.

    Over u: q_ik ~ p_ik * sqrt(u_k / sum_i p_ik), which is eq. (7) where u is uniform.
    """
    weight = p * (u / p.sum(dim=0).clamp(min=1e-12)).sqrt()
    return weight / weight.sum(dim=1, keepdim=True)


def clustering_error(q: Tensor, logits: Tensor) -> Tensor:
    """Eq. (8), the first term of eq. (12): cross-entropy of noisy predictions with q, mean over rows.

    (B, K), (B, K) -> (). A row of zeros in q has no target.
    """
    return -(q * logits.float().log_softmax(dim=1)).sum() / len(q)


def reconstruction_error(clean: list[Tensor], again: list[Tensor]) -> Tensor:
    """The second term of eq. (12): sum over levels of the mean squared difference, mean over images."""
    return torch.stack([(z - z_hat).square().mean() for z, z_hat in zip(clean, again, strict=True)]).sum()


class DEPICT(DeepClusterer):
    """Predictions through noise meet balanced targets made without it, while an auto-encoder keeps the features."""

    name = "depict"
    config: DEPICTConfig

    def build(self) -> Network:
        """See `DEPICTNetwork`."""
        return DEPICTNetwork(self.spec.channels, self.spec.side, self.config.n_clusters)

    def fit_as_published(self, x: NDArray[np.uint8], run: Run) -> None:
        """Section 4.3: reconstruction, first targets from k-means, then algorithm 1."""
        refuse_too_many(len(x), self.config.n_clusters, run.device)
        xavier(self.network, run.generator("depict", "weights"))
        self._pretrain(x, run)
        stage = self._from_k_means(x, run)
        train_or_undo(stage, self.cluster_schedule(x, (0.5, 0.97)), state_to_restore(stage, self.max_move))

    @property
    def max_move(self) -> float:
        """Of the config; 0 where targets are known, which are meant to move other images."""
        return 0.0 if self.known else self.config.max_move

    def cluster_schedule(self, _x: NDArray[np.uint8], span: tuple[float, float]) -> Schedule:
        """How long algorithm 1 goes on."""
        return self._schedule("cluster", self.config.n_epochs, span, self.config.stop_change)

    def _schedule(self, phase: str, n_epochs: int, span: tuple[float, float], stop_change: float = 0.0) -> Schedule:
        config = self.config
        return Schedule(
            phase, n_epochs, config.batch_size, span, stop_change=stop_change, use_bfloat16=config.use_bfloat16
        )

    def _pretrain(self, x: NDArray[np.uint8], run: Run) -> None:
        """Reconstruction alone: all levels at once (MdA), or layer by layer (SdA), then whole (RdA)."""
        n_epochs = self.config.n_pretrain_epochs
        if self.config.learning == "mda":
            train(Reconstruction(self, x, run), self._schedule("pretrain", n_epochs, (0.0, 0.45)))
            return
        for layer in range(3):
            span = (0.1 * layer, 0.1 * (layer + 1))
            train(Layer(self, x, run, layer), self._schedule(f"layer {layer + 1}", n_epochs, span))
        if self.config.learning == "rda":
            train(Reconstruction(self, x, run), self._schedule("retrain", n_epochs, (0.3, 0.45)))

    def _from_k_means(self, x: NDArray[np.uint8], run: Run) -> "Clustering":
        """The first targets from k-means on the embedding."""
        config, stage = self.config, ModelStage(self, x, run)
        z = stage.codes()
        clusters = k_means(z, config.n_clusters, run.generator("depict", "k-means"), config.n_kmeans_init)
        labels, known = self.match(clusters.cpu().numpy())
        run.on_step(start_state("initialise", 0.46, labels, config.n_clusters))
        with torch.no_grad():
            centers = cluster_centers(z, torch.from_numpy(labels).to(z.device), config.n_clusters)
            self.network.theta.weight.copy_(F.normalize(centers, dim=1))
        q = F.one_hot(torch.from_numpy(labels), config.n_clusters).float()
        return Clustering(self, x, run, q, known=known, u=self.prior(np.ones(config.n_clusters)))

    def prior(self, otherwise: NDArray[np.float64]) -> Tensor:
        """U (K,), summing to 1: the config's sizes, or others where it has none."""
        sizes = otherwise if self.config.cluster_prior is None else np.asarray(self.config.cluster_prior)
        return torch.from_numpy(sizes / sizes.sum()).float()

    def match(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[int, int]]:
        """Clusters numbered as the prior lists their sizes, and the cluster of each image with a known target."""
        if self.config.cluster_prior is not None:
            labels = match_prior(labels, np.asarray(self.config.cluster_prior))
        return labels, match_known(labels, self.known, self.config.n_clusters)

    @torch.no_grad()
    def reconstruct(self, x: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The decoder's images: (N, C, S, S) -> (N, C, S, S)."""
        again = self.network.decode(self.network.embed(self.serving_graph.scale(torch.from_numpy(np.array(x)))))[0]
        images: NDArray[np.uint8] = ((again + 1) * 127.5).round().byte().numpy()
        return images


class PathsStage(ModelStage):
    """Adam over the whole network, and the two paths through it."""

    def __init__(self, model: DEPICT, x: NDArray[np.uint8], run: Run) -> None:
        super().__init__(model, x, run)
        self.optimizer = self.adam(self.module.parameters(), self.config.learning_rate, fused=True)

    def noisy(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """The noisy path, with dropout at every level, of images augmented as far as the config says."""
        path: tuple[list[Tensor], Tensor] = self.module.encode(self.augment(self.scale(x)), self.config.dropout)
        return path

    def joint_error(self, x: Tensor, z: Tensor) -> Tensor:
        """Clean levels against those decoded from the noisy z; the gradient flows into both."""
        clean, _ = self.module.encode(self.scale(x))
        return reconstruction_error(clean, self.module.decode(z))


class Reconstruction(PathsStage):
    """Without clusters: all levels through noise (MdA), or the clean input alone (RdA's retraining)."""

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        if self.config.learning == "mda":
            return {"reconstruction": self.joint_error(x, self.noisy(x)[1])}
        levels, z = self.module.encode(self.scale(x))
        return {"reconstruction": reconstruction_error(levels[:1], self.module.decode(z)[:1])}


class Layer(PathsStage):
    """One layer of the stack (SdA): reconstructs its own clean input from a corrupted one; others keep still."""

    def __init__(self, model: DEPICT, x: NDArray[np.uint8], run: Run, layer: int) -> None:
        super().__init__(model, x, run)
        self.layer = layer
        own = [*self.module.encoder[layer].parameters(), *self.module.decoder[layer].parameters()]
        self.optimizer = self.adam(own, self.config.learning_rate)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            clean = self.module.encode(self.scale(x))[0][self.layer]
        corrupted = F.dropout(clean, self.config.dropout)
        forth, back = self.module.encoder[self.layer], self.module.decoder[self.layer]
        if self.layer == 2:
            again = F.leaky_relu(back(forth(corrupted.flatten(1)).tanh()), LEAK).reshape(clean.shape)
        else:
            again = back(F.leaky_relu(forth(corrupted), LEAK))
            again = again.tanh() if self.layer == 0 else F.leaky_relu(again, LEAK)
        return {"reconstruction": reconstruction_error([clean], [again])}


class TargetsStage(PathsStage):
    """Eq. (12) with targets q that are fixed for the epoch."""

    q = EpochState()  # (N, K)

    def __init__(self, model: DEPICT, x: NDArray[np.uint8], run: Run, q: Tensor, known: Mapping[int, int]) -> None:
        """`q` (N, K): the first targets; `known`: the clusters of some rows, whose targets never change."""
        super().__init__(model, x, run)
        self.rows = torch.tensor(list(known), dtype=torch.long)
        self.fixed = F.one_hot(torch.tensor(list(known.values()), dtype=torch.long), self.n_clusters).float()
        self.q = self.keep_known(q.clone())

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        _, z = self.noisy(x)
        terms = {"clustering": clustering_error(self.q[index], self.module.theta(z))}
        if self.config.learning == "mda":
            terms["reconstruction"] = self.joint_error(x, z)
        return terms

    @torch.no_grad()
    def probabilities(self) -> Tensor:
        """Of every clean image: -> (N, K)."""
        p: Tensor = self.module.assign(self.codes())
        return p

    def keep_known(self, q: Tensor) -> Tensor:
        """Targets (N, K) with those of known images as they were."""
        q[self.rows.to(q.device)] = self.fixed.to(q.device)
        return q


class Clustering(TargetsStage, ClusteringStage):
    """Algorithm 1: an epoch on eq. (12) with fixed q, then p over all clean images, then q by eq. (7)."""

    p: Tensor  # (N, K)

    def __init__(
        self, model: DEPICT, x: NDArray[np.uint8], run: Run, q: Tensor, *, known: Mapping[int, int], u: Tensor
    ) -> None:
        """See `TargetsStage`; `u` (K,) are the clusters' relative sizes."""
        super().__init__(model, x, run, q, known)
        self.u = (u / u.sum()).to(run.device)
        if self.config.cluster_learning_rate is not None:
            self.optimizer = self.adam(self.module.parameters(), self.config.cluster_learning_rate, fused=True)
        self.change = 1.0

    def recluster(self, epoch: int) -> Tensor:
        self.p = self.probabilities()
        return self.p.argmax(dim=1)

    def retarget(self) -> None:
        """Eq. (7)."""
        q = self.keep_known(target_distribution(self.p, self.u))
        self.change = float((self.q - q).square().mean())
        self.q = q
        del self.p  # (N, K) is large

    def is_over(self) -> bool:
        return bool(self.change < self.config.tolerance)
