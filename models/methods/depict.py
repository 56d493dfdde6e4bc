"""DEPICT: Deep Clustering via Joint Convolutional Autoencoder Embedding and Relative Entropy Minimization
(Ghasedi Dizaji, Herandi, Deng, Cai & Huang, ICCV 2017).

Symbols are the paper's: x images (B, C, S, S) in -1...1, z embedding (B, K) in -1...1, theta softmax weights (K, K),
p cluster probabilities and q their targets, both (N, K) with rows summing to 1, u the prior sizes (K,). The noisy
path has dropout, the clean path has none; they share weights. Ours, where the text is silent:

* The embedding has no dropout of its own, though eq. 9 read literally drops it too.
* Leaky units fall by .01. Sides other than the paper's take the strides that leave about 10 x 10 (`shape_of`).
* The first targets: k-means with 40 starts on the embedding; its centers, scaled to unit norm, are the first theta.
* Training ends when the mean squared change of q falls under 1e-7.
* A prior that is given is matched to the starting clusters by size.

`fast` receives a partition from the neighbour graph (`models.graph`) as q: the network first learns it from images
shifted and turned, while its targets stay; then the paper's alternation goes on, still on augmented noisy images
and clean targets, until labels settle. Its prior, where none is given, is the sizes of the graph's clusters. An
alternation that takes more than 2 % of the images out of their clusters is undone, and the partition learned whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor, nn

from models.augment import shift_and_rotate
from models.base import Clusterer, Network, Run, start_state
from models.configs import DEPICTConfig
from models.encoders import xavier
from models.errors import Collapsed
from models.graph import GraphStart, graph_start, refuse_too_many
from models.known import match_known, match_prior
from models.losses import cluster_centers
from models.partition import k_means
from models.stage import Held, ModelStage
from models.trainer import Schedule, epochs_of, train, train_unless_it_strays

N_MAPS = 50
LEAK = 0.01


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


@dataclass(frozen=True)
class Shape:
    """Kernel, stride and padding of each convolution, and the side (S, S1, S2) at every level."""

    kernels: tuple[int, int]
    strides: tuple[int, int]
    paddings: tuple[int, int]
    sides: tuple[int, int, int]


def shape_of(side: int) -> Shape:
    """The paper's table 5 at 16, 28, 32 and 55 pixels; between and beyond, what leaves about 10 x 10 in the end."""
    kernels, strides, paddings = (4, 5), (2, 2), (0, 2)
    if side >= 64:
        first = -(-side // 24)
        kernels, strides, paddings = (max(5, first), 5), (first, 2), (2, 2)
    elif side >= 48:
        kernels, paddings = (5, 4), (2, 0)
    elif side >= 29:
        paddings = (2, 2)
    sides = [side]
    for kernel, stride, padding in zip(kernels, strides, paddings, strict=True):
        sides.append((sides[-1] + 2 * padding - kernel) // stride + 1)
    return Shape(kernels, strides, paddings, (sides[0], sides[1], sides[2]))


class DEPICTNetwork(Network):
    """conv 50, conv 50, K with tanh | 50 maps, transposed conv 50, transposed conv with tanh; softmax over theta z."""

    def __init__(self, channels: int, side: int, n_clusters: int) -> None:
        super().__init__()
        shape = shape_of(side)
        features = (channels, N_MAPS, N_MAPS)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for at in (0, 1):
            sizes = (shape.kernels[at], shape.strides[at], shape.paddings[at])
            grown = (shape.sides[at + 1] - 1) * sizes[1] - 2 * sizes[2] + sizes[0]
            self.encoder.append(nn.Conv2d(features[at], features[at + 1], *sizes))
            self.decoder.append(
                nn.ConvTranspose2d(features[at + 1], features[at], *sizes, output_padding=shape.sides[at] - grown)
            )
        self.inner = (N_MAPS, shape.sides[2], shape.sides[2])
        n_inner = N_MAPS * shape.sides[2] ** 2
        self.encoder.append(nn.Linear(n_inner, n_clusters))
        self.decoder.append(nn.Linear(n_clusters, n_inner))
        self.theta = nn.Linear(n_clusters, n_clusters, bias=False)

    def encode(self, x: Tensor, dropout: float = 0.0) -> tuple[list[Tensor], Tensor]:
        """Eqs. (9) and (11): images (B, C, S, S) in 0...1 -> features of levels 0, 1, 2, and z (B, K)."""
        levels = [F.dropout(2 * x - 1, dropout)]
        for layer in self.encoder[:2]:
            levels.append(F.dropout(F.leaky_relu(layer(levels[-1]), LEAK), dropout))
        return levels, self.encoder[2](levels[-1].flatten(1)).tanh()

    def decode(self, z: Tensor) -> list[Tensor]:
        """Eq. (10): z (B, K) -> reconstructed levels 0, 1, 2."""
        second = F.leaky_relu(self.decoder[2](z), LEAK).reshape(-1, *self.inner)
        first = F.leaky_relu(self.decoder[1](second), LEAK)
        return [self.decoder[0](first).tanh(), first, second]

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, K), the clean path."""
        return self.encode(x)[1]

    def assign(self, z: Tensor) -> Tensor:
        """Eq. (1): (B, K) -> (B, K)."""
        found: Tensor = self.theta(z).softmax(dim=1)
        return found


def sure_rows(confidence: NDArray[np.float32], labels: NDArray[np.int64], least: float) -> NDArray[np.bool_]:
    """Rows of at least that confidence, and of every cluster its surer half: (N,), (N,) -> (N,)."""
    is_sure = confidence >= least
    for k in np.unique(labels):
        own = labels == k
        is_sure |= own & (confidence >= np.median(confidence[own]))
    return is_sure


class DEPICT(Clusterer):
    """Predictions through noise meet balanced targets made without it, while an auto-encoder keeps the features."""

    name = "depict"
    takes_known = True
    config: DEPICTConfig

    def build(self) -> Network:
        """See `DEPICTNetwork`."""
        return DEPICTNetwork(self.spec.channels, self.spec.side, self.config.n_clusters)

    def _fit(self, x: NDArray[np.uint8], run: Run) -> None:
        refuse_too_many(len(x), self.config.n_clusters)
        xavier(self.network, run.generator("depict", "weights"))
        config, labels = self.config, None
        if config.start == "graph":
            start = graph_start(x, self.spec, config, run, (0.0, 0.35))
            labels, known = self._match(start.labels)
            stage = self._from_graph(x, run, replace(start, labels=labels), known)
            span = (0.75, 0.9)
        else:
            self._pretrain(x, run)
            stage = self._from_k_means(x, run)
            span = (0.5, 0.97)
        may_stray = config.max_move > 0 and not self.known  # what is told is meant to move others
        held = Held(self.network, stage.labels_now(), config.max_move) if may_stray else None
        schedule = self._schedule("cluster", config.n_epochs, span, config.stop_change)
        is_undone = train_unless_it_strays(stage, x, schedule, run, held)
        if is_undone and labels is not None:
            self._keep(x, run, labels)

    def _schedule(self, phase: str, n_epochs: int, span: tuple[float, float], stop_change: float = 0.0) -> Schedule:
        config = self.config
        return Schedule(
            phase, n_epochs, config.batch_size, span, stop_change=stop_change, use_bfloat16=config.use_bfloat16
        )

    def _pretrain(self, x: NDArray[np.uint8], run: Run) -> None:
        """Reconstruction alone, section 4.3: all levels at once (MdA), or layer by layer (SdA), then whole (RdA)."""
        n_epochs = self.config.n_pretrain_epochs
        if self.config.learning == "mda":
            train(Reconstruction(self, x, run), x, self._schedule("pretrain", n_epochs, (0.0, 0.45)), run)
            return
        for layer in range(3):
            span = (0.1 * layer, 0.1 * (layer + 1))
            train(Layer(self, x, run, layer), x, self._schedule(f"layer {layer + 1}", n_epochs, span), run)
        if self.config.learning == "rda":
            train(Reconstruction(self, x, run), x, self._schedule("retrain", n_epochs, (0.3, 0.45)), run)

    def _from_graph(self, x: NDArray[np.uint8], run: Run, start: GraphStart, known: Mapping[int, int]) -> "Clustering":
        """Learn the graph's partition; only rows it is sure of teach, all are then asked."""
        config, labels = self.config, start.labels
        q = self._softened(labels)
        q[~torch.from_numpy(sure_rows(start.confidence, labels, config.min_confidence))] = 0
        stage = Clustering(self, x, run, q, known=known, u=None)
        n_epochs = epochs_of(config.n_hold_steps, len(x), config.batch_size)
        train(stage, x, replace(self._schedule("hold", n_epochs, (0.35, 0.75)), is_annealed=True), run)
        u = self._prior(np.bincount(labels, minlength=config.n_clusters).astype(np.float64))
        return Clustering(self, x, run, target_distribution(stage.probabilities(), u.to(run.device)), known=known, u=u)

    def _keep(self, x: NDArray[np.uint8], run: Run, labels: NDArray[np.int64]) -> None:
        """Learn the graph's partition whole: every row teaches, as it is."""
        config = self.config
        stage = Keep(self, x, run, self._softened(labels), known={}, u=None)
        n_epochs = epochs_of(config.n_keep_steps, len(x), config.batch_size)
        train(stage, x, replace(self._schedule("keep", n_epochs, (0.9, 0.97)), is_annealed=True), run)

    def _softened(self, labels: NDArray[np.int64]) -> Tensor:
        """One-hot targets with `label_smoothing`: (N,) -> (N, K)."""
        config = self.config
        q = F.one_hot(torch.from_numpy(labels), config.n_clusters).float()
        return q * (1 - config.label_smoothing) + config.label_smoothing / config.n_clusters

    def _from_k_means(self, x: NDArray[np.uint8], run: Run) -> "Clustering":
        """The first targets from k-means on the embedding."""
        config, stage = self.config, ModelStage(self, x, run)
        z = stage.codes()
        found = k_means(z, config.n_clusters, run.generator("depict", "k-means"), config.n_kmeans_init)
        labels, known = self._match(found.cpu().numpy())
        run.on_step(start_state("initialise", 0.46, labels, config.n_clusters))
        with torch.no_grad():
            centers = cluster_centers(z, torch.from_numpy(labels).to(z.device), config.n_clusters)
            self.network.theta.weight.copy_(F.normalize(centers, dim=1))
        q = F.one_hot(torch.from_numpy(labels), config.n_clusters).float()
        return Clustering(self, x, run, q, known=known, u=self._prior(np.ones(config.n_clusters)))

    def _prior(self, otherwise: NDArray[np.float64]) -> Tensor:
        prior = otherwise if self.config.cluster_prior is None else np.asarray(self.config.cluster_prior)
        return torch.from_numpy(prior / prior.sum()).float()

    def _match(self, labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], dict[int, int]]:
        """Clusters numbered as the prior lists their sizes, and the cluster of each image with a known target."""
        if self.config.cluster_prior is not None:
            labels = match_prior(labels, np.asarray(self.config.cluster_prior))
        return labels, match_known(labels, self.known, self.config.n_clusters)

    @torch.no_grad()
    def reconstruct(self, x: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The decoder's images: (N, C, S, S) -> (N, C, S, S)."""
        again = self.network.decode(self.network.embed(self.graph.scale(torch.from_numpy(np.array(x)))))[0]
        found: NDArray[np.uint8] = ((again + 1) * 127.5).round().byte().numpy()
        return found


class _Stage(ModelStage):
    """Adam over the whole network, and the two paths through it."""

    def __init__(self, model: DEPICT, x: NDArray[np.uint8], run: Run) -> None:
        super().__init__(model, x, run)
        self.config = model.config
        self.optimizer = torch.optim.Adam(self.module.parameters(), self.config.learning_rate, fused=True)

    def noisy(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Augmentation (`fast` only), then dropout at every level."""
        moved = shift_and_rotate(self.scale(x), self.config.shift, self.config.rotation_degrees)
        found: tuple[list[Tensor], Tensor] = self.module.encode(moved, self.config.dropout)
        return found

    def joint_error(self, x: Tensor, z: Tensor) -> Tensor:
        """Clean levels against those decoded from the noisy z; the gradient flows into both."""
        clean, _ = self.module.encode(self.scale(x))
        return reconstruction_error(clean, self.module.decode(z))


class Reconstruction(_Stage):
    """Without clusters: all levels through noise (MdA), or the clean input alone (RdA's retraining)."""

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        if self.config.learning == "mda":
            return {"reconstruction": self.joint_error(x, self.noisy(x)[1])}
        levels, z = self.module.encode(self.scale(x))
        return {"reconstruction": reconstruction_error(levels[:1], self.module.decode(z)[:1])}


class Layer(_Stage):
    """One layer of the stack (SdA): reconstructs its own clean input from a corrupted one; others keep still."""

    def __init__(self, model: DEPICT, x: NDArray[np.uint8], run: Run, layer: int) -> None:
        super().__init__(model, x, run)
        self.layer = layer
        own = [*self.module.encoder[layer].parameters(), *self.module.decoder[layer].parameters()]
        self.optimizer = torch.optim.Adam(own, self.config.learning_rate)

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


class Clustering(_Stage):
    """Algorithm 1: an epoch on eq. (12) with fixed q, then p over all clean images, then q by eq. (7)."""

    def __init__(
        self, model: DEPICT, x: NDArray[np.uint8], run: Run, q: Tensor, *, known: Mapping[int, int], u: Tensor | None
    ) -> None:
        """`q` (N, K): the first targets; `known`: the clusters of some rows, whose targets never change.

        `u` (K,): the clusters' relative sizes; None keeps all targets as they are.
        """
        super().__init__(model, x, run)
        self.rows = torch.tensor(list(known), dtype=torch.long)
        self.fixed = F.one_hot(torch.tensor(list(known.values()), dtype=torch.long), self.n_clusters).float()
        self.u = None if u is None else (u / u.sum()).to(run.device)
        if u is not None and self.config.cluster_learning_rate is not None:
            self.optimizer.param_groups[0]["lr"] = self.config.cluster_learning_rate
        self.q = self._fix(q.clone()).to(run.device)
        self.labels, self.is_taught = self.q.argmax(dim=1), self.q.sum(dim=1) > 0
        self.agreement, self.change = 0.0, 1.0

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        _, z = self.noisy(x)
        terms = {"clustering": clustering_error(self.q[index], self.module.theta(z))}
        if self.config.learning == "mda":
            terms["reconstruction"] = self.joint_error(x, z)
        return terms

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        p = self.probabilities()
        labels = p.argmax(dim=1)
        if self.u is None:  # targets that stay bring back even a network that begins with one answer for all
            self.agreement = float((labels == self.labels)[self.is_taught].float().mean())
            return labels.cpu().numpy()
        sizes = torch.bincount(labels, minlength=self.n_clusters)
        if int((sizes > 0).sum()) == 1:
            raise Collapsed(f"all images fell into one cluster; cluster sizes {sizes.tolist()[:100]}")
        before, self.q = self.q, self._fix(target_distribution(p, self.u))
        self.change = float((before - self.q).square().mean())
        return labels.cpu().numpy()

    def is_over(self) -> bool:
        return self.change < self.config.tolerance or self.agreement >= self.config.hold_agreement

    def extra_state(self) -> dict[str, Tensor]:
        return {"q": self.q}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        self.q = state["q"].to(self.run.device)

    def probabilities(self) -> Tensor:
        """Of every clean image: -> (N, K)."""
        with torch.no_grad():
            found: Tensor = self.module.assign(self.codes())
        return found

    def _fix(self, q: Tensor) -> Tensor:
        q[self.rows.to(q.device)] = self.fixed.to(q.device)
        return q


class Keep(Clustering):
    """Targets that stay, for images that are not moved: what the graph says of the images at hand, and no more."""

    def noisy(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Dropout alone."""
        found: tuple[list[Tensor], Tensor] = self.module.encode(self.scale(x), self.config.dropout)
        return found
