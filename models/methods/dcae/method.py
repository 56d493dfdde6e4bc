"""DCAE: A Deep Convolutional Auto-Encoder with Embedded Clustering (Alqahtani, Xie, Deng & Jones, ICIP 2018).

Symbols are the paper's: x images (B, C, S, S) in 0...1, h codes (B, D) in 0...1, c cluster centers (K, D),
E1 reconstruction error (eq. 3), E2 distance to the assigned center (eq. 4). Ours, where the text is silent:

* The code has 10 units as in the paper up to K = 10, and K of them beyond, at most 128.
* Random centers are the codes of K distinct images: codes start so close together that centers drawn anywhere
  else would all lose their images to one.
* E1 is averaged over pixels (`pixel_reduction`); summed, the network dies within an epoch at the paper's rate.
* Images under 28 pixels are enlarged to 28: two 9 x 9 valid convolutions leave nothing of them.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor, nn

from models.base import Network, Run
from models.methods.dcae.spec import DCAEConfig
from models.parts.encoders import at_least, xavier
from models.parts.heads import NearestCenter
from models.parts.losses import cluster_centers, nearest
from models.training.fast import DeepClusterer
from models.training.stage import ClusteringStage, ModelStage
from models.training.state import EpochState
from models.training.trainer import Schedule, train

MIN_SIDE = 28
PAPER_UNITS, MAX_UNITS = 10, 128


def reconstruction_error(logits: Tensor, x: Tensor, reduction: str) -> Tensor:
    """E1, eq. (3): cross-entropy of the reconstruction, over pixels as `reduction` says, mean over images."""
    error = F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1)
    return (error.sum(dim=1) if reduction == "sum" else error.mean(dim=1)).mean()


def clustering_error(h: Tensor, c: Tensor, weight: float) -> Tensor:
    """E2, eq. (4): weight / 2N * sum of squared distances to the assigned centers: (B, D), (B, D) -> ()."""
    return weight / 2 * (h - c).square().sum(dim=1).mean()


class DCAENetwork(Network):
    """conv 9x9x8, conv 9x9x4, 250, D | 250, transposed conv to 4 maps of S - 16, transposed conv 17x17; sigmoids."""

    def __init__(self, channels: int, side: int, n_clusters: int) -> None:
        super().__init__()
        self.side = max(MIN_SIDE, side)
        inner = self.side - 16
        self.n_units = max(PAPER_UNITS, min(n_clusters, MAX_UNITS))
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, 8, 9), nn.Sigmoid(),
            nn.Conv2d(8, 4, 9), nn.Sigmoid(), nn.Flatten(),
            nn.Linear(4 * inner * inner, 250), nn.Sigmoid(),
            nn.Linear(250, self.n_units), nn.Sigmoid(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(self.n_units, 250), nn.Sigmoid(), nn.Unflatten(1, (250, 1, 1)),
            nn.ConvTranspose2d(250, 4, inner), nn.Sigmoid(),
            nn.ConvTranspose2d(4, channels, 17),  # logits: the last sigmoid is part of E1
        )  # fmt: skip
        self.head = NearestCenter(n_clusters, self.n_units)

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, S, S) -> (B, D)."""
        h: Tensor = self.encoder(at_least(x, self.side))
        return h

    def assign(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        p: Tensor = self.head(z)
        return p


class DCAE(DeepClusterer):
    """Auto-encoder and k-means in turns: each epoch pulls codes to their centers, then moves the centers."""

    name = "dcae"
    config: DCAEConfig

    def build(self) -> Network:
        """See `DCAENetwork`."""
        return DCAENetwork(self.spec.channels, self.spec.side, self.config.n_clusters)

    def fit_as_published(self, x: NDArray[np.uint8], run: Run) -> None:
        """Section 2.3, from random weights and centers."""
        xavier(self.network, run.generator("dcae", "weights"))
        stage = Alternation(self, x, run, None)
        train(stage, self.cluster_schedule(x, (0.0, 0.97)))
        self.serve_centers(stage)

    def cluster_schedule(self, x: NDArray[np.uint8], span: tuple[float, float]) -> Schedule:
        """How long the alternation goes on."""
        config = self.config
        return Schedule("cluster", config.n_epochs, config.batch_size, span, stop_change=config.stop_change)

    @torch.no_grad()
    def reconstruct(self, x: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The decoder's images, at the input's size: (N, C, S, S) -> (N, C, S, S)."""
        h = self.network.embed(self.serving_graph.scale(torch.from_numpy(np.array(x))))
        again = self.network.decoder(h).sigmoid()
        if again.shape[-1] != x.shape[-1]:
            again = F.interpolate(again, size=x.shape[-2:], mode="area")
        images: NDArray[np.uint8] = (again * 255).round().byte().numpy()
        return images

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> NDArray[np.uint8] | None:
        """What the decoder makes of each center: -> (K, 1, C, S, S)."""
        again = self.network.decoder(self.network.head.mu.float()).sigmoid()
        if again.shape[-1] != self.spec.side:
            again = F.interpolate(again, size=(self.spec.side, self.spec.side), mode="area")
        images: NDArray[np.uint8] = (again * 255).round().byte().unsqueeze(1).numpy()
        return images

    def serve_centers(self, stage: "Alternation") -> None:
        """Answer with the nearest center of a stage."""
        h = stage.codes()
        distance = (h - stage.centers[nearest(h, stage.centers)]).square().sum(dim=1).mean()
        self.network.head.take(stage.centers, float(distance))


class ErrorStage(ModelStage):
    """Network, optimizer, and E1 + E2 against fixed centers."""

    centers = EpochState()  # (K, D)
    labels = EpochState()  # (N,)

    def __init__(self, model: DCAE, x: NDArray[np.uint8], run: Run) -> None:
        super().__init__(model, x, run)
        self.optimizer = self.optimizer_of(self.config.learning_rate)

    def error(self, x: Tensor, index: Tensor, weight: float) -> dict[str, Tensor]:
        """E1 of images and E2 of their codes, weighted: stored images (B, ...), indexes (B,)."""
        clean = at_least(self.scale(x), self.module.side)
        h = self.module.embed(self.augment(clean))
        return {
            "reconstruction": reconstruction_error(self.module.decoder(h), clean, self.config.pixel_reduction),
            "clustering": clustering_error(h, self.centers[self.labels[index]], weight),
        }

    def optimizer_of(self, rate: float) -> torch.optim.Optimizer:
        """Steps of this size on the auto-encoder."""
        config, parameters = self.config, [*self.module.encoder.parameters(), *self.module.decoder.parameters()]
        if config.optimizer == "adam":
            return self.adam(parameters, rate)
        return self.sgd(parameters, rate, momentum=config.momentum, weight_decay=config.weight_decay)


class Alternation(ErrorStage, ClusteringStage):
    """The paper's alternation, section 2.3: an epoch on E1 + E2 with fixed centers, then eq. (6), then eq. (7)."""

    def __init__(self, model: DCAE, x: NDArray[np.uint8], run: Run, labels: Tensor | None) -> None:
        """`labels` (N,): the partition to go on from; None starts at the codes of K random images."""
        super().__init__(model, x, run)
        self.optimizer = self.optimizer_of(self.config.cluster_learning_rate or self.config.learning_rate)
        self.h = self.codes()
        if labels is None:
            chosen = torch.randperm(len(x), generator=run.generator("dcae", "centers"))[: self.config.n_clusters]
            self.centers = self.h[chosen.to(self.h.device)]
        else:
            self.centers = cluster_centers(self.h, labels.to(self.h.device), self.config.n_clusters)
        self.labels = nearest(self.h, self.centers)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return self.error(x, index, self.config.cluster_weight)

    def recluster(self, epoch: int) -> Tensor:
        """Eq. (6)."""
        self.h = self.codes()
        self.labels = nearest(self.h, self.centers)
        return self.labels

    def retarget(self) -> None:
        """Eq. (7)."""
        self.centers = cluster_centers(self.h, self.labels, self.config.n_clusters)
