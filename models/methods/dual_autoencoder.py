"""Deep Spectral Clustering using Dual Autoencoder Network (Yang, Deng, Zheng, Yan & Liu, CVPR 2019).

Symbols are the paper's: x images (B, C, S, S) in 0...1, z latent codes (B, D) drawn from N(mean, variance), z_hat codes
disturbed by noise, C the last feature map, y spectral outputs (B, K), W affinities of images. Ours, where the text is
silent:

* ReLU, strides 2, 1, 2, 1 (small images 2, 2; large ones 2, 2, 2, 1), Adam at .001, and the widths of the
  discriminators and of the spectral network, 512.
* Every reconstruction term is a sum over pixels and every KL term a sum over latents, both a mean over images.
* p(y|z) of eq. (19) is the softmax of -distance to the k-means centers of y over the whole set; mu_y are the means of z
  in those clusters, and q(y) = 1/K. All three are held for an epoch.
* W joins each image to its 3 nearest neighbours by the pre-trained z, at the scale of the median distance. A random
  batch of such a graph is nearly empty, so a batch is anchors and one neighbour of each.
* The network answers with the orthonormalising matrix of one pass over a fixed large batch: an image's answer must not
  depend on those beside it.

`fast` receives a partition from the neighbour graph (`models.graph`): while it is held, p(y|z) of eq. (19) is that
partition with far corners as mu_y, and the spectral network learns the partition's normalised indicators, which are
the eigenvectors of a graph of separate clusters. Images are shifted and turned, their reconstructions are not. Then the
joint training of eq. (20) goes on.
"""

import itertools
import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor, nn

from models.affinity import Edges, Pairs
from models.anchors import balanced_corners
from models.augment import shift_and_rotate
from models.base import Clusterer, Network, Run, StepState, start_state
from models.configs import DualAutoencoderConfig
from models.graph import graph_start
from models.heads import NearestCenter
from models.losses import cluster_centers, nearest
from models.partition import k_means
from models.stage import Held, ModelStage
from models.trainer import Schedule, epochs_of, train, train_unless_it_strays

N_LATENT, N_HIDDEN = 120, 512
N_NEIGHBOURS = 3
FIXED_ROWS = 20_000  # of the pass that settles the orthonormalising matrix
ROWS_A_CLUSTER = 20  # a batch must hold every cluster
JITTER = 1e-10


def orthonormaliser(y: Tensor) -> Tensor:
    """The matrix that makes outputs orthonormal, eqs. (17) and (18): (m, K) -> (K, K), in float64.

    y @ it has y^T y / m = I. A trace of ridge keeps columns that coincide from stopping the Cholesky factor.
    """
    y = y.double()
    gram = y.T @ y
    eye = torch.eye(gram.shape[0], dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + JITTER * (gram.diagonal().mean() + 1e-30) * eye)
    inverse: Tensor = torch.linalg.solve_triangular(factor, eye, upper=False)
    return math.sqrt(len(y)) * inverse.T


def spectral_error(edges: Edges, y: Tensor) -> Tensor:
    """Eq. (16): 1/m^2 sum_ij W_ij |y_i - y_j|^2 over the edges of W: (m, K) -> ()."""
    ends = (y[edges.i] - y[edges.j]).square().sum(dim=1)
    return (edges.w * ends).sum() / len(y) ** 2


def mutual_information(scores: Tensor, shuffled: Tensor) -> Tensor:
    """JS estimate of eq. (9) from a discriminator's scores of true and shuffled pairs, mean over all: -> ()."""
    return F.logsigmoid(scores).mean() + F.logsigmoid(-shuffled).mean()


def divergence(mean: Tensor, log_variance: Tensor, mu: Tensor) -> Tensor:
    """KL(N(mean, variance) | N(mu, I)), a sum over latents: (B, D), (B, D), (B, D) -> (B,)."""
    return ((mean - mu).square() + log_variance.exp() - 1 - log_variance).sum(dim=1) / 2


class DualAutoencoderNetwork(Network):
    """3x3 convolutions of 16, 16, 32, 32 and 120 latents, mirrored; two discriminators; a spectral network of four."""

    mixing: Tensor

    def __init__(self, channels: int, side: int, n_clusters: int, *, is_spectral: bool) -> None:
        super().__init__()
        self.is_spectral = is_spectral
        kernel = 5 if 48 <= side < 80 else 3
        maps = (16, 32) if side <= 20 else (16, 16, 32, 32)
        strides = (2, 2) if side <= 20 else (2, 1, 2, 1) if side < 80 else (2, 2, 2, 1)
        sides, self.encoder, backwards = [side], nn.Sequential(), []
        for before, after, stride in zip((channels, *maps[:-1]), maps, strides, strict=True):
            self.encoder += nn.Sequential(nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.ReLU())
            sides.append((sides[-1] - 1) // stride + 1)
            grown = sides[-2] - ((sides[-1] - 1) * stride - 2 * (kernel // 2) + kernel)
            backwards.append(nn.ConvTranspose2d(after, before, kernel, stride, kernel // 2, output_padding=grown))
        n_inner = maps[-1] * sides[-1] ** 2
        self.to_mean, self.to_log_variance = nn.Linear(n_inner, N_LATENT), nn.Linear(n_inner, N_LATENT)
        self.decoder = nn.Sequential(
            nn.Linear(N_LATENT, n_inner), nn.ReLU(), nn.Unflatten(1, (maps[-1], sides[-1], sides[-1]))
        )
        for number, layer in enumerate(reversed(backwards), start=1):
            self.decoder += nn.Sequential(layer, nn.Sigmoid() if number == len(backwards) else nn.ReLU())
        self.whole = PairScore(nn.Linear(channels * side * side, N_HIDDEN), N_HIDDEN)
        self.local = PairScore(nn.Conv2d(maps[-1], N_HIDDEN // 8, 1), N_HIDDEN // 8)
        widths = (N_LATENT, N_HIDDEN, N_HIDDEN, N_HIDDEN)
        layers = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
        self.spectral = nn.Sequential(*layers, nn.Linear(N_HIDDEN, n_clusters))
        self.register_buffer("mixing", torch.eye(n_clusters, dtype=torch.float64))
        self.head = NearestCenter(n_clusters, n_clusters if is_spectral else N_LATENT)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, S, S) -> C (B, 32, h, w), mean (B, 120), log variance (B, 120)."""
        features = self.encoder(x)
        flat = features.flatten(1)
        return features, self.to_mean(flat), self.to_log_variance(flat).clamp(-10, 10)

    def latent(self, x: Tensor) -> Tensor:
        """The mean code: (B, C, S, S) -> (B, 120)."""
        return self.encode(x)[1]

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> y (B, K), or the mean code where the spectral network is left out."""
        z = self.latent(x)
        return (self.spectral(z).double() @ self.mixing).float() if self.is_spectral else z

    def assign(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        found: Tensor = self.head(z)
        return found


class PairScore(nn.Module):
    """A discriminator of pairs: does this code belong to this image, or to this place of its feature map?"""

    def __init__(self, of_image: nn.Module, width: int) -> None:
        super().__init__()
        self.of_image, self.of_code = of_image, nn.Linear(N_LATENT, width)
        self.score = nn.Linear(width, 1)

    def forward(self, image: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of (x_i, z_i) and of (x_i, z_i-1): (B, ...), (B, 120) -> (B, ...), (B, ...)."""
        seen = self.of_image(image)
        codes = self.of_code(z)
        if seen.ndim == 4:  # a feature map: the same code at every place
            seen = seen.flatten(2).transpose(1, 2)  # (B, h w, width)
            codes = codes.unsqueeze(1)
        return self.score(F.relu(seen + codes)), self.score(F.relu(seen + codes.roll(1, dims=0)))


class DualAutoencoder(Clusterer):
    """Codes that survive noise and tell of their image, laid out by a network that finds the graph's eigenvectors."""

    name = "dual-autoencoder"
    config: DualAutoencoderConfig

    def build(self) -> Network:
        """See `DualAutoencoderNetwork`."""
        config = self.config
        return DualAutoencoderNetwork(
            self.spec.channels, self.spec.side, config.n_clusters, is_spectral=config.spectral
        )

    def _fit(self, x: NDArray[np.uint8], run: Run) -> None:
        config, labels, begin = self.config, None, 0.45
        if config.start == "graph":
            labels = torch.from_numpy(graph_start(x, self.spec, config, run, (0.0, 0.35)).labels)
            n_epochs, begin = epochs_of(config.n_hold_steps, len(x), config.pretrain_batch_size), 0.75
            schedule = Schedule("hold", n_epochs, config.pretrain_batch_size, (0.35, begin), is_annealed=True)
            train(Pretrain(self, x, run, labels), x, schedule, run)
        else:
            schedule = Schedule("pretrain", config.n_pretrain_epochs, config.pretrain_batch_size, (0.0, begin))
            train(Pretrain(self, x, run, None), x, schedule, run)
        if config.spectral:
            self._spectral(x, run, labels, begin)
        else:
            self._without_spectral(x, run, labels)

    def _spectral(self, x: NDArray[np.uint8], run: Run, labels: Tensor | None, begin: float) -> None:
        """Section 3.2: the spectral network on fixed codes, then both networks together."""
        config = self.config
        z = ModelStage(self, x, run).codes(self.network.latent)
        pairs = Pairs.of(z, N_NEIGHBOURS, run.seed, lambda: run.on_step(StepState("neighbours", begin)))
        n_anchors = anchors_of(config, len(x))
        if labels is None:
            schedule = Schedule("spectral", config.n_spectral_epochs, n_anchors, (begin + 0.05, begin + 0.15))
            train(Spectral(self, x, run, pairs), x, schedule, run)
            begin += 0.15
        schedule = Schedule("cluster", config.n_epochs, n_anchors, (begin, 0.97), stop_change=config.stop_change)
        stage = Joint(self, x, run, pairs, labels)
        if labels is None:
            run.on_step(start_state("initialise", begin, stage.labels.cpu().numpy(), config.n_clusters))
        held = Held(self.network, stage.labels, config.max_move) if config.max_move > 0 else None
        if train_unless_it_strays(stage, x, schedule, run, held) and held is not None:
            stage.labels = held.labels
        stage.settle(stage.labels)
        self._answer_with(stage.outputs, stage.labels)

    def _without_spectral(self, x: NDArray[np.uint8], run: Run, labels: Tensor | None) -> None:
        """The ablation: k-means on the codes, from the graph's partition if there is one."""
        z = ModelStage(self, x, run).codes()
        found = clusters_of(z, labels, self.config.n_clusters, run)
        run.on_step(StepState("cluster", 0.97, step=1, assignments=found.cpu().numpy(), is_epoch=True))
        self._answer_with(z, found)

    def _answer_with(self, z: Tensor, labels: Tensor) -> None:
        centers = cluster_centers(z, labels, self.config.n_clusters)
        variance = (z - centers[labels]).square().sum(dim=1).mean()
        self.network.head.take(centers, float(variance))

    @torch.no_grad()
    def reconstruct(self, x: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The decoder's images of the mean codes: (N, C, S, S) -> (N, C, S, S)."""
        again = self.network.decoder(self.network.latent(self.graph.scale(torch.from_numpy(np.array(x)))))
        found: NDArray[np.uint8] = (again * 255).round().byte().numpy()
        return found


def anchors_of(config: DualAutoencoderConfig, n: int) -> int:
    """Half of a batch's rows, of which there are enough for every cluster; not more than there are inputs."""
    return min(n, max(config.batch_size, ROWS_A_CLUSTER * config.n_clusters) // 2)


def clusters_of(z: Tensor, labels: Tensor | None, n_clusters: int, run: Run) -> Tensor:
    """k-means on codes (N, D), numbered like the labels it goes on from, if there are any: -> (N,)."""
    if labels is None:
        return k_means(z, n_clusters, run.generator("dual-autoencoder", "k-means"))
    return k_means(z, n_clusters, cluster_centers(z, labels.to(z.device), n_clusters))


class _Stage(ModelStage):
    """Adam over everything that learns, and the terms of eqs. (10) and (12)."""

    def __init__(self, model: DualAutoencoder, x: NDArray[np.uint8], run: Run) -> None:
        super().__init__(model, x, run)
        self.config = model.config
        self.n_anchors = max(1, round(anchors_of(self.config, len(x)) * run.batch_scale))
        self.optimizer = torch.optim.Adam(self.module.parameters(), self.config.learning_rate)

    def moved(self, clean: Tensor) -> Tensor:
        """Shifted and turned in `fast`, as it is in `paper`."""
        return shift_and_rotate(clean, self.config.shift, self.config.rotation_degrees)

    def code_terms(self, clean: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """L_r and the mutual information of L_e; with them the codes' means and log variances, (B, 120) each."""
        config, network = self.config, self.module
        seen = self.moved(clean)
        features, mean, log_variance = network.encode(seen)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        again = network.decoder(z)
        terms = {"reconstruction": config.delta * _squared(clean - again)}
        if config.relative_reconstruction:
            z_hat = z * (1 + config.noise * torch.randn_like(z))
            terms["relative_reconstruction"] = _squared(network.decoder(z_hat) - again)
        if config.mutual_information:
            whole = mutual_information(*network.whole(seen.flatten(1), z))
            local = mutual_information(*network.local(features, z))
            terms["mutual_information"] = -config.beta * (whole + local)
        return terms, mean, log_variance


def _squared(difference: Tensor) -> Tensor:
    return difference.flatten(1).square().sum(dim=1).mean()


class Pretrain(_Stage):
    """Eq. (13); while a partition is held, its last term is that of eq. (19), and the spectral network learns along."""

    def __init__(self, model: DualAutoencoder, x: NDArray[np.uint8], run: Run, labels: Tensor | None) -> None:
        super().__init__(model, x, run)
        self.labels, self.agreement = None if labels is None else labels.to(run.device), 0.0
        if labels is not None:
            corners = balanced_corners(self.n_clusters, N_LATENT, run.generator("dual-autoencoder", "anchors"))
            self.mu = (2 * corners - 1).to(run.device)
            sizes = torch.bincount(labels, minlength=self.n_clusters).clamp(min=1)
            self.scale_of = (len(labels) / sizes).sqrt().to(run.device)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        terms, mean, log_variance = self.code_terms(self.scale(x))
        if self.labels is None:
            return {
                **terms,
                "divergence": self.config.gamma * divergence(mean, log_variance, torch.zeros_like(mean)).mean(),
            }
        own = self.labels[index]
        terms["divergence"] = self.config.gamma * divergence(mean, log_variance, self.mu[own]).mean()
        if self.config.spectral:
            indicators = F.one_hot(own, self.n_clusters) * self.scale_of
            terms["indicators"] = _squared(self.module.spectral(mean) - indicators)
        return terms

    def end_epoch(self, epoch: int) -> NDArray[np.int64] | None:
        if self.labels is None:
            return None
        z = self.codes(self.module.latent)
        found = (self.module.spectral(z) / self.scale_of).argmax(dim=1) if self.config.spectral else nearest(z, self.mu)
        self.agreement = float((found == self.labels).float().mean())
        return found.cpu().numpy()

    def is_over(self) -> bool:
        return self.agreement >= self.config.hold_agreement


class Spectral(_Stage):
    """Eq. (16) alone: codes are fixed, the spectral network finds the graph's eigenvectors."""

    def __init__(self, model: DualAutoencoder, x: NDArray[np.uint8], run: Run, pairs: Pairs) -> None:
        super().__init__(model, x, run)
        self.pairs = pairs
        self.z = self.codes(self.module.latent)
        self.optimizer = torch.optim.Adam(self.module.spectral.parameters(), self.config.learning_rate)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        rows = self.pairs.with_neighbours(index, self.n_anchors)
        y = self.module.spectral(self.z[rows.to(self.z.device)])
        y = (y.double() @ orthonormaliser(y)).float()
        return {"spectral": spectral_error(self.pairs.among(rows, self.run.device), y)}


class Joint(_Stage):
    """Eq. (20): L_r + L_e with eq. (19) + L_c, clusters held for the epoch and then found anew by k-means on y."""

    def __init__(
        self, model: DualAutoencoder, x: NDArray[np.uint8], run: Run, pairs: Pairs, labels: Tensor | None
    ) -> None:
        super().__init__(model, x, run)
        self.pairs = pairs
        self.optimizer = torch.optim.Adam(self.module.parameters(), self.config.cluster_learning_rate)
        self.settle(labels)

    @torch.no_grad()
    def settle(self, labels: Tensor | None) -> None:
        """The matrix of one pass over fixed rows, y of all images, their clusters, and what these make of z."""
        z = self.codes(self.module.latent)
        raw = torch.cat([self.module.spectral(part) for part in torch.split(z, 4096)])
        step = -(-len(raw) // FIXED_ROWS)
        self.module.mixing = orthonormaliser(raw[::step])
        self.outputs = (raw.double() @ self.module.mixing).float()
        self.labels = clusters_of(self.outputs, labels, self.n_clusters, self.run)
        self.centers = cluster_centers(self.outputs, self.labels, self.n_clusters)
        self.mu = cluster_centers(z, self.labels, self.n_clusters)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        rows = self.pairs.with_neighbours(index, self.n_anchors)
        clean = self.scale(torch.from_numpy(np.array(self.x[rows.numpy()])).to(self.run.device))
        terms, mean, log_variance = self.code_terms(clean)
        raw = self.module.spectral(mean)
        if self.config.start == "graph":  # the target comes from the clean image
            with torch.no_grad():
                p = self.memberships(self.module.spectral(self.module.latent(clean)))
        else:
            p = self.memberships(raw)
        terms["divergence"] = self.config.gamma * self.joint_divergence(p, mean, log_variance)
        y = (raw.double() @ orthonormaliser(raw)).float()
        terms["spectral"] = spectral_error(self.pairs.among(rows, self.run.device), y)
        return terms

    def memberships(self, raw: Tensor) -> Tensor:
        """p(y|z): softmax of -distance to the held centers, by the held matrix: (B, K) -> (B, K)."""
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

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        self.settle(self.labels)
        return self.labels.cpu().numpy()

    def extra_state(self) -> dict[str, Tensor]:
        return {"labels": self.labels, "centers": self.centers, "mu": self.mu}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        self.labels, self.centers, self.mu = (state[name].to(self.run.device) for name in ("labels", "centers", "mu"))
