"""`precise-feature` by the `fast` recipe (see `models.training.fast`).

C first learns the start's partition from the images, shifted and turned. Then G learns to draw each image from its
cluster and its principal components, standardised, in place of noise, while C goes on, from what G draws of random
noise as well. The game then goes on as in the paper, with C's generated images shifted and turned, the sizes of the
start's clusters as the prior, and fewer steps. If it is undone, G draws as before the game, and C answers as before it
saw what G draws.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from models.base import Run
from models.methods.precise_feature.method import DrawingStage, Game, PreciseFeature
from models.parts.known import match_prior
from models.parts.threads import reproducible_threads
from models.start.graph import GraphStart
from models.training.fast import FastRecipe, PartitionStage, as_labels
from models.training.held import HeldState
from models.training.stage import ModelStage, Stage
from models.training.trainer import train

IMITATE_SPAN = (0.35, 0.6)
PCA_ROWS, PCA_VALUES = 10_000, 2**26


def imitation_error(drawn: Tensor, clean: Tensor, *, is_image: bool) -> Tensor:
    """How far drawn inputs are from those they imitate: (B, ...), (B, ...) -> (), summed over values, mean over inputs.

    Cross-entropy for pixels in 0...1: a squared error has no gradient left where G's sigmoid has gone black too soon,
    and on MNIST G died of that. Squared error for vectors.
    """
    if is_image:  # torch's cross-entropy aborts on NaN, which the trainer looks for: it goes on beside it
        error = F.binary_cross_entropy(drawn.nan_to_num(0.5), clean, reduction="none") + 0 * drawn.detach()
    else:
        error = (drawn - clean).square()
    return error.flatten(1).sum(dim=1).mean()


class FastPreciseFeature(FastRecipe):
    """See the module."""

    START_SPAN, HOLD_SPAN, CLUSTER_SPAN = (0.0, 0.2), (0.2, 0.35), (0.6, 0.97)

    def prepare(self) -> None:
        self.network.standard.fit(self.x)

    def hold(self, start: GraphStart) -> "Hold":
        config, labels = self.config, start.labels
        if config.cluster_prior is None:
            self.prior = torch.from_numpy(np.bincount(labels, minlength=config.n_clusters)).float()
        else:
            self.prior = torch.tensor(config.cluster_prior)
            labels = match_prior(labels, np.asarray(config.cluster_prior))
        return Hold(self.model, self.x, self.run, self.prior, as_labels(labels, self.run.device))

    def clustering(self, hold: PartitionStage) -> "FastGame":
        """Imitation, then the game."""
        self.before: HeldState | None = None
        if self.config.max_move > 0:
            self.before = HeldState(self.network.classifier, hold.labels_now(), self.config.max_move)
        imitation = Imitation(self.model, self.x, self.run, self.prior, hold.partition)
        train(imitation, self.partition_schedule("imitate", self.config.n_imitation_steps, IMITATE_SPAN))
        return FastGame(self.model, self.x, self.run, self.prior)

    def held(self, stage: Stage) -> HeldState | None:
        """The classifier as it was before the imitation, the generator as it is now."""
        if self.before is not None:
            self.before.add(self.network.generator)
        return self.before


class FastDrawingStage(DrawingStage):
    """C sees what G draws shifted and turned."""

    def shown_to_classifier(self, drawn: Tensor) -> Tensor:
        return self.augment(drawn)


class FastGame(FastDrawingStage, Game):
    """The paper's game, with C's inputs augmented."""


class Hold(FastDrawingStage, PartitionStage):
    """C learns the partition from the images, augmented."""

    ends_early = False

    def __init__(self, model: PreciseFeature, x: NDArray[Any], run: Run, prior: Tensor, partition: Tensor) -> None:
        super().__init__(model, x, run, prior)
        self.optimizer = self.adam(self.module.parameters(), self.config.imitation_rate)
        self.partition = partition

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return {"partition": self.partition_error(self.module.standard(self.scale(x)), index)}

    def partition_error(self, clean: Tensor, index: Tensor) -> Tensor:
        """Cross-entropy of C on images as they are seen: (B, ...), (B,) -> ()."""
        return F.cross_entropy(self.module.classifier(self.augment(clean)), self.partition[index])

    def predict_all(self) -> Tensor:
        return self.labels_now()


class Imitation(Hold):
    """G draws each image from its cluster and its principal components; C also learns from what G draws."""

    def __init__(self, model: PreciseFeature, x: NDArray[Any], run: Run, prior: Tensor, partition: Tensor) -> None:
        super().__init__(model, x, run, prior, partition)
        self.noise = components(self, partition.cpu().numpy()).to(run.device)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        clean = self.module.standard(self.scale(x))
        drawn = self.module.generate(self.partition[index], self.noise[index])
        return {
            "reconstruction": imitation_error(drawn, clean, is_image=self.module.is_image),
            "cross_entropy": self.classifier_error(self.n_drawn),
            "partition": self.partition_error(clean, index),
        }


def components(stage: ModelStage, labels: NDArray[np.int64]) -> Tensor:
    """Principal components of what differs within clusters, each of unit variance: -> (N, n_noise).

    Found on at most 10,000 rows; as many noise variables as there are, zeros where the data have fewer.
    """
    from sklearn.decomposition import PCA  # slow to import; many fits do without it

    x, n_noise = stage.inputs.array, stage.module.n_noise
    n, most = len(x), max(1, min(PCA_ROWS, PCA_VALUES // x[0].size))
    means = np.zeros((stage.n_clusters, *_flat(stage, np.arange(1)).shape[1:]), np.float32)
    for k in np.unique(labels):
        means[k] = _flat(stage, np.flatnonzero(labels == k)[:most]).mean(axis=0)
    rows = np.sort(np.random.default_rng(stage.run.seed).permutation(n)[:most])
    residual = _flat(stage, rows) - means[labels[rows]]
    with reproducible_threads():
        pca = PCA(min(n_noise, *residual.shape), whiten=True, random_state=0).fit(residual)
        blocks = np.array_split(np.arange(n), -(-n // most))
        whitened = np.concatenate([pca.transform(_flat(stage, block) - means[labels[block]]) for block in blocks])
    return torch.from_numpy(np.pad(whitened, ((0, 0), (0, n_noise - whitened.shape[1]))).astype(np.float32))


def _flat(stage: ModelStage, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    x = stage.inputs.rows(torch.from_numpy(rows))
    flat: NDArray[np.float32] = stage.module.standard(stage.scale(x)).flatten(1).cpu().numpy()
    return flat
