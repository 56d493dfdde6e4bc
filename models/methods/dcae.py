"""DCAE: A Deep Convolutional Auto-Encoder with Embedded Clustering (Alqahtani, Xie, Deng & Jones, ICIP 2018).

Symbols are the paper's: x images (B, C, S, S) in 0...1, h codes (B, D) in 0...1, c cluster centers (K, D),
E1 reconstruction error (eq. 3), E2 distance to the assigned center (eq. 4). Ours, where the text is silent:

* The code has 10 units as in the paper up to K = 10, and K of them beyond, at most 128.
* Random centers are the codes of K distinct images: codes start so close together that centers drawn anywhere
  else would all lose their images to one.
* E1 is averaged over pixels (`pixel_reduction`); summed, the network dies within an epoch at the paper's rate.
* Images under 28 pixels are enlarged to 28: two 9 x 9 valid convolutions leave nothing of them.

`fast` receives a partition from the neighbour graph (`models.graph`): each cluster gets a corner of the unit cube as
its anchor, and the network first learns to send augmented images to their cluster's anchor while it reconstructs the
clean ones. Once nearest centers agree with the partition, the paper's alternation takes over.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor, nn

from models.anchors import balanced_corners
from models.augment import shift_and_rotate
from models.base import Clusterer, Network, Run
from models.configs import DCAEConfig
from models.encoders import at_least, sigmoid_as_tanh, xavier
from models.errors import Collapsed
from models.graph import graph_start
from models.heads import NearestCenter
from models.losses import cluster_centers, nearest
from models.stage import ModelStage
from models.trainer import Schedule, epochs_of, train

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
        found: Tensor = self.encoder(at_least(x, self.side))
        return found

    def assign(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        found: Tensor = self.head(z)
        return found


class DCAE(Clusterer):
    """Auto-encoder and k-means in turns: each epoch pulls codes to their centers, then moves the centers."""

    name = "dcae"
    config: DCAEConfig

    def build(self) -> Network:
        """See `DCAENetwork`."""
        return DCAENetwork(self.spec.channels, self.spec.side, self.config.n_clusters)

    def _fit(self, x: NDArray[np.uint8], run: Run) -> None:
        xavier(self.network, run.generator("dcae", "weights"))
        if self.config.start == "graph":
            sigmoid_as_tanh(self.network.encoder)
            sigmoid_as_tanh(self.network.decoder)
        config, labels = self.config, None
        begin = 0.0
        if config.start == "graph":
            labels = torch.from_numpy(graph_start(x, self.spec, config, run, (0.0, 0.35)).labels)
            n_epochs = epochs_of(config.n_hold_steps, len(x), config.batch_size)
            hold = Schedule("hold", n_epochs, config.batch_size, (0.35, 0.8), is_annealed=True)
            train(Hold(self, x, labels, run), x, hold, run)
            begin = 0.8
        schedule = Schedule(
            "cluster", config.n_epochs, config.batch_size, (begin, 0.97), stop_change=config.stop_change
        )
        stage = Alternation(self, x, run, labels)
        train(stage, x, schedule, run)
        self._take(stage)

    @torch.no_grad()
    def reconstruct(self, x: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
        """The decoder's images, at the input's size: (N, C, S, S) -> (N, C, S, S)."""
        h = self.network.embed(self.graph.scale(torch.from_numpy(np.array(x))))
        again = self.network.decoder(h).sigmoid()
        if again.shape[-1] != x.shape[-1]:
            again = F.interpolate(again, size=x.shape[-2:], mode="area")
        found: NDArray[np.uint8] = (again * 255).round().byte().numpy()
        return found

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> NDArray[np.uint8] | None:
        """What the decoder makes of each center: -> (K, 1, C, S, S)."""
        again = self.network.decoder(self.network.head.mu.float()).sigmoid()
        if again.shape[-1] != self.spec.side:
            again = F.interpolate(again, size=(self.spec.side, self.spec.side), mode="area")
        found: NDArray[np.uint8] = (again * 255).round().byte().unsqueeze(1).numpy()
        return found

    def _take(self, stage: "Alternation") -> None:
        h = stage.codes()
        distance = (h - stage.centers[nearest(h, stage.centers)]).square().sum(dim=1).mean()
        self.network.head.take(stage.centers, float(distance))


class _Stage(ModelStage):
    """What both phases share: the network, its optimizer, and E1 + E2 against given centers."""

    def __init__(self, model: DCAE, x: NDArray[np.uint8], run: Run) -> None:
        super().__init__(model, x, run)
        self.config = model.config
        self.optimizer = self._optimizer(self.config.learning_rate)
        self.labels = torch.zeros(0, dtype=torch.long, device=run.device)
        self.centers = torch.zeros(0, device=run.device)

    def error(self, x: Tensor, index: Tensor, weight: float) -> dict[str, Tensor]:
        clean = at_least(self.scale(x), self.module.side)
        h = self.module.embed(shift_and_rotate(clean, self.config.shift, self.config.rotation_degrees))
        return {
            "reconstruction": reconstruction_error(self.module.decoder(h), clean, self.config.pixel_reduction),
            "clustering": clustering_error(h, self.centers[self.labels[index]], weight),
        }

    def extra_state(self) -> dict[str, Tensor]:
        return {"centers": self.centers, "labels": self.labels}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        self.centers = state["centers"].to(self.run.device)
        self.labels = state["labels"].to(self.run.device)

    def _optimizer(self, rate: float) -> torch.optim.Optimizer:
        config, parameters = self.config, [*self.module.encoder.parameters(), *self.module.decoder.parameters()]
        if config.optimizer == "adam":
            return torch.optim.Adam(parameters, rate)
        return torch.optim.SGD(parameters, rate, config.momentum, weight_decay=config.weight_decay)


class Hold(_Stage):
    """Learns the partition of the neighbour graph: every cluster's images go to its anchor."""

    def __init__(self, model: DCAE, x: NDArray[np.uint8], labels: Tensor, run: Run) -> None:
        super().__init__(model, x, run)
        self.labels = labels.to(run.device)
        self.centers = balanced_corners(self.n_clusters, self.module.n_units, run.generator("dcae", "anchors"))
        self.centers = self.centers.to(run.device)
        self.agreement = 0.0

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return self.error(x, index, self.config.anchor_weight)

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        found = nearest(self.codes(), self.centers)
        self.agreement = float((found == self.labels).float().mean())
        return found.cpu().numpy()

    def is_over(self) -> bool:
        return self.agreement >= self.config.hold_agreement


class Alternation(_Stage):
    """The paper's alternation, section 2.3: an epoch on E1 + E2 with fixed centers, then eq. (6), then eq. (7)."""

    def __init__(self, model: DCAE, x: NDArray[np.uint8], run: Run, labels: Tensor | None) -> None:
        """`labels` (N,): the partition to go on from; None starts at the codes of K random images."""
        super().__init__(model, x, run)
        self.optimizer = self._optimizer(self.config.cluster_learning_rate or self.config.learning_rate)
        h = self.codes()
        if labels is None:
            chosen = torch.randperm(len(x), generator=run.generator("dcae", "centers"))[: self.config.n_clusters]
            self.centers = h[chosen.to(h.device)]
        else:
            self.centers = cluster_centers(h, labels.to(h.device), self.config.n_clusters)
        self.labels = nearest(h, self.centers)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return self.error(x, index, self.config.cluster_weight)

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        h = self.codes()
        self.labels = nearest(h, self.centers)
        sizes = torch.bincount(self.labels, minlength=self.config.n_clusters)
        if int((sizes > 0).sum()) == 1:
            raise Collapsed(f"all images fell into one cluster; cluster sizes {sizes.tolist()[:100]}")
        self.centers = cluster_centers(h, self.labels, self.config.n_clusters)
        return self.labels.cpu().numpy()
