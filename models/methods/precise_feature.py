"""Learning the Precise Feature for Cluster Assignment (Gan, Dong, Zhou, Gao & Dong, IEEE Trans. Cybernetics 2021).

Symbols are the paper's: y one-hot clusters (B, K), z noise (B, n_noise), G generator of inputs from both, D critic that
tells real inputs from generated ones, C classifier of clusters, which learns from generated inputs alone. What G must
vary with y, for C to read y from it and D to believe it, is the feature that tells the data apart best. Ours, where the
text is silent:

* Leaky units of critic and classifier fall by .2, the last layer of G is a sigmoid, batches hold 50, and noise has ten
  variables (24 in `fast`; 2 for vectors: with more than the data have of their own, the paper reports failures).
* The weight eta is 10 * 1.2^(t / 30,000), whole powers, from the step t; the text's last line, read literally, would
  compound it at every step.
* Lambda is 100 as the paper has it for images, and .1 for vectors, of which the text says nothing: with 100 the critic
  never balances, and five of eight blobs are found; .1 is what WGAN-GP's authors take for such data.
* One input in fifty, at most 1,000, never meets the critic: D's estimate of the Earth Mover's distance on these, beside
  that on the others, shows a critic that has learned its inputs by heart.

`fast` receives a partition from the neighbour graph (`models.graph`): C learns it from the images, shifted and turned;
then G learns to draw each image from its cluster and its principal components, standardised, in place of noise, while C
goes on, from what G draws of random noise as well. The game then goes on as in the paper, with C's
generated images shifted and turned, the sizes of the graph's clusters as the prior, and fewer steps; where it takes
more than 2 % of the images out of the clusters that C had learned it is undone: G draws as before the game, and C
answers as before it saw what G draws.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits
from torch import Tensor

from models.adversarial import Discriminating, Generator, gradient_penalty
from models.augment import shift_and_rotate
from models.base import REPRODUCIBLE_THREADS, Clusterer, Network, Run
from models.configs import PreciseFeatureConfig
from models.encoders import Standard
from models.graph import graph_start
from models.known import match_prior
from models.stage import CODE_BLOCK, Held, ModelStage
from models.trainer import Schedule, epochs_of, train, train_unless_it_strays

N_NOISE_OF_VECTORS, N_NOISE_OF_IMAGES, N_NOISE_TO_IMITATE = 2, 10, 24
PENALTY_OF_VECTORS, PENALTY_OF_IMAGES = 0.1, 100.0
HELD_OUT_EVERY, MAX_HELD_OUT = 50, 1_000
PCA_ROWS, PCA_VALUES = 10_000, 2**26


def trade_off(step: int, config: PreciseFeatureConfig) -> float:
    """Eta of eqs. (7) and (8) at a generator step."""
    return config.eta * config.eta_growth ** (step // config.eta_steps)


def imitation_error(drawn: Tensor, clean: Tensor, *, is_image: bool) -> Tensor:
    """How far drawn inputs are from those they imitate: (B, ...), (B, ...) -> (), summed over values, mean over inputs.

    Cross-entropy for pixels in 0...1: a squared error has no gradient left where G's sigmoid has gone black too soon,
    and on MNIST G died of that. Squared error for vectors.
    """
    error = F.binary_cross_entropy(drawn, clean, reduction="none") if is_image else (drawn - clean).square()
    return error.flatten(1).sum(dim=1).mean()


class PreciseFeatureNetwork(Network):
    """Three networks; the classifier alone answers."""

    def __init__(self, shape: tuple[int, ...], n_clusters: int, n_noise: int) -> None:
        super().__init__()
        self.is_image, self.n_clusters, self.n_noise = len(shape) == 3, n_clusters, n_noise
        self.standard = Standard(None if self.is_image else shape[0])
        self.generator = Generator(n_clusters + n_noise, shape)
        self.critic = Discriminating(shape, 1)
        self.classifier = Discriminating(shape, n_clusters)

    def embed(self, x: Tensor) -> Tensor:
        """What the classifier sees: (B, ...) -> (B, D)."""
        found: Tensor = self.classifier.features(self.standard(x))
        return found

    def assign(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        found: Tensor = self.classifier.head(z).softmax(dim=1)
        return found

    def generate(self, y: Tensor, z: Tensor) -> Tensor:
        """Clusters (B,) and noise (B, n_noise) -> inputs (B, ...), as the networks see them."""
        codes = torch.cat([F.one_hot(y, self.n_clusters).to(z.dtype), z], dim=1)
        found: Tensor = self.generator(codes)
        return found


class PreciseFeature(Clusterer):
    """A game of three: what a generator must vary for a classifier to read the cluster from what a critic believes."""

    name = "precise-feature"
    config: PreciseFeatureConfig

    def build(self) -> Network:
        """See `PreciseFeatureNetwork`."""
        n_noise = self.config.n_noise
        if n_noise is None:
            of_images = N_NOISE_TO_IMITATE if self.config.start == "graph" else N_NOISE_OF_IMAGES
            n_noise = of_images if self.spec.kind == "images" else N_NOISE_OF_VECTORS
        return PreciseFeatureNetwork(self.spec.shape, self.config.n_clusters, n_noise)

    def _fit(self, x: NDArray[Any], run: Run) -> None:
        config, begin, held = self.config, 0.0, None
        self.network.standard.fit(x)
        prior = torch.tensor(config.cluster_prior or [1.0] * config.n_clusters)
        if config.start == "graph":
            labels = graph_start(x, self.spec, config, run, (0.0, 0.2)).labels
            if config.cluster_prior is None:
                prior = torch.from_numpy(np.bincount(labels, minlength=config.n_clusters)).float()
            else:
                labels = match_prior(labels, np.asarray(config.cluster_prior))
            size, begin = config.batch_size, 0.6
            n_epochs = epochs_of(config.n_hold_steps, len(x), size)
            hold = Schedule("hold", n_epochs, size, (0.2, 0.35), is_annealed=True)
            stage = Hold(self, x, run, prior, labels)
            train(stage, x, hold, run)
            if config.max_move > 0:
                held = Held(self.network.classifier, stage.labels_now(), config.max_move)
            n_epochs = epochs_of(config.n_imitation_steps, len(x), size)
            imitate = Schedule("imitate", n_epochs, size, (0.35, begin), is_annealed=True)
            train(Imitation(self, x, run, prior, labels), x, imitate, run)
        n_turns = config.n_critic + config.n_classifier + 1
        n_epochs = epochs_of(config.n_steps * n_turns, len(x), config.batch_size)
        game = Game(self, x, run, prior)
        if config.max_move > 0:
            held = held or Held(self.network.classifier, game.labels_now(), config.max_move)
            held.add(self.network.generator)
        schedule = Schedule("cluster", n_epochs, config.batch_size, (begin, 0.97))
        train_unless_it_strays(game, x, schedule, run, held)

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> NDArray[np.uint8] | None:
        """Images that the generator draws of each cluster: -> (K, n, C, S, S); None for vectors."""
        if not self.network.is_image:
            return None
        z = torch.randn(n, self.network.n_noise, generator=torch.Generator().manual_seed(seed))
        drawn = [self.network.generate(torch.full((n,), k), z) for k in range(self.config.n_clusters)]
        found: NDArray[np.uint8] = (torch.stack(drawn) * 255).round().byte().numpy()
        return found


class _Stage(ModelStage):
    """Draws of clusters and noise, and an optimizer over all three networks.

    A network whose turn it is not takes no gradient, and Adam passes over what has none: each keeps its own count.
    """

    def __init__(self, model: PreciseFeature, x: NDArray[Any], run: Run, prior: Tensor) -> None:
        super().__init__(model, x, run)
        self.config, self.prior = model.config, prior
        self.n_drawn = max(1, round(self.config.batch_size * run.batch_scale))
        rate = self.config.learning_rate
        self.optimizer = torch.optim.Adam(self.module.parameters(), rate, betas=(0.5, 0.9))

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Clusters by the prior (n,), noise (n, n_noise); from torch's own generator if none is given."""
        y = torch.multinomial(self.prior, n, replacement=True, generator=generator)
        z = torch.randn(n, self.module.n_noise, generator=generator)
        return y.to(self.run.device), z.to(self.run.device)

    def inputs(self, x: Tensor) -> Tensor:
        """Stored inputs as the networks see them; images moved if the paper's augmented variant is asked for."""
        x = self.module.standard(self.scale(x))
        return self.moved(x) if self.config.augment else x

    def moved(self, x: Tensor) -> Tensor:
        """Images shifted and turned a little, vectors as they are."""
        return shift_and_rotate(x, self.config.shift, self.config.rotation_degrees) if self.module.is_image else x

    def classifier_error(self, n: int) -> Tensor:
        """Cross-entropy of C on what G draws: the bound of eq. (5) on the entropy of the cluster given the input."""
        y, z = self.draw(n)
        with torch.no_grad():
            drawn = self.module.generate(y, z)
            if self.config.start == "graph":
                drawn = self.moved(drawn)
        return F.cross_entropy(self.module.classifier(drawn), y)

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        return self.labels_now().cpu().numpy()


class Hold(_Stage):
    """`fast`: C learns the partition from the images, moved."""

    def __init__(
        self, model: PreciseFeature, x: NDArray[Any], run: Run, prior: Tensor, labels: NDArray[np.int64]
    ) -> None:
        super().__init__(model, x, run, prior)
        self.optimizer = torch.optim.Adam(self.module.parameters(), self.config.imitation_rate)
        self.labels = torch.from_numpy(labels).to(run.device)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return {"partition": self.partition_error(self.module.standard(self.scale(x)), index)}

    def partition_error(self, clean: Tensor, index: Tensor) -> Tensor:
        """Cross-entropy of C on images as they are seen: (B, ...), (B,) -> ()."""
        return F.cross_entropy(self.module.classifier(self.moved(clean)), self.labels[index])


class Imitation(Hold):
    """`fast`: G draws each image from its cluster and its principal components; C also learns from what G draws."""

    def __init__(
        self, model: PreciseFeature, x: NDArray[Any], run: Run, prior: Tensor, labels: NDArray[np.int64]
    ) -> None:
        super().__init__(model, x, run, prior, labels)
        self.noise = components(self, labels).to(run.device)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        clean = self.module.standard(self.scale(x))
        drawn = self.module.generate(self.labels[index], self.noise[index])
        return {
            "reconstruction": imitation_error(drawn, clean, is_image=self.module.is_image),
            "cross_entropy": self.classifier_error(self.n_drawn),
            "partition": self.partition_error(clean, index),
        }


def components(stage: ModelStage, labels: NDArray[np.int64]) -> Tensor:
    """Principal components of what differs within clusters, each of unit variance: -> (N, n_noise).

    Found on at most 10,000 rows; as many noise variables as there are, zeros where the data have fewer.
    """
    n, n_noise = len(stage.x), stage.module.n_noise
    most = max(1, min(PCA_ROWS, PCA_VALUES // stage.x[0].size))
    means = np.zeros((stage.n_clusters, *_flat(stage, np.arange(1)).shape[1:]), np.float32)
    for k in np.unique(labels):
        means[k] = _flat(stage, np.flatnonzero(labels == k)[:most]).mean(axis=0)
    rows = np.sort(np.random.default_rng(stage.run.seed).permutation(n)[:most])
    residual = _flat(stage, rows) - means[labels[rows]]
    with threadpool_limits(REPRODUCIBLE_THREADS):
        pca = PCA(min(n_noise, *residual.shape), whiten=True, random_state=0).fit(residual)
        blocks = np.array_split(np.arange(n), -(-n // most))
        found = np.concatenate([pca.transform(_flat(stage, block) - means[labels[block]]) for block in blocks])
    return torch.from_numpy(np.pad(found, ((0, 0), (0, n_noise - found.shape[1]))).astype(np.float32))


def _flat(stage: ModelStage, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    x = torch.from_numpy(np.array(stage.x[rows]))
    found: NDArray[np.float32] = stage.module.standard(stage.scale(x).to(stage.run.device)).flatten(1).cpu().numpy()
    return found


class Game(_Stage):
    """Algorithm 1: five turns of the critic, four of the classifier, one of the generator, and again."""

    def __init__(self, model: PreciseFeature, x: NDArray[Any], run: Run, prior: Tensor) -> None:
        super().__init__(model, x, run, prior)
        config = self.config
        self.turns = ("critic",) * config.n_critic + ("classifier",) * config.n_classifier + ("generator",)
        self.n_turns = 0
        of_kind = PENALTY_OF_IMAGES if self.module.is_image else PENALTY_OF_VECTORS
        self.penalty = of_kind if config.penalty is None else config.penalty
        rows = torch.arange(len(x))
        self.is_held = (rows % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) & (rows < HELD_OUT_EVERY * MAX_HELD_OUT)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        turn = self.turns[self.n_turns % len(self.turns)]
        step = self.n_turns // len(self.turns)
        self.n_turns += 1
        for name in ("critic", "classifier", "generator"):
            self.module.get_submodule(name).requires_grad_(name == turn)
        if turn == "critic":
            return self.critic_error(x[~self.is_held[index.cpu()].to(x.device)])
        if turn == "classifier":
            return {"cross_entropy": self.classifier_error(self.n_drawn)}
        y, z = self.draw(self.n_drawn)
        drawn = self.module.generate(y, z)
        return {
            "generator": -self.module.critic(drawn).mean(),
            "weighted_cross_entropy": trade_off(step, self.config) * F.cross_entropy(self.module.classifier(drawn), y),
        }

    def critic_error(self, x: Tensor) -> dict[str, Tensor]:
        """Lines 3 to 10; without an input there is nothing to tell apart."""
        real = self.inputs(x)
        with torch.no_grad():
            fake = self.module.generate(*self.draw(len(x)))
        critic = self.module.critic
        if not len(x):
            return {"penalty": sum(p.sum() for p in critic.parameters()) * 0}
        return {
            "critic": critic(fake).mean() - critic(real).mean(),
            "penalty": self.penalty * gradient_penalty(critic, real, fake),
        }

    @torch.no_grad()
    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        held = torch.nonzero(self.is_held).flatten().numpy()
        others = np.arange(len(self.x))[~self.is_held.numpy()][: len(held)]
        if len(held):
            drawn = self.draw(len(held), self.run.generator("precise-feature", "held out", epoch))
            fake = self.believed(self.module.generate(*drawn))
            self.figures = {
                name: self.believed(self.stored(rows)) - fake
                for name, rows in (("earth_mover", others), ("earth_mover_held_out", held))
            }
        return super().end_epoch(epoch)

    def believed(self, x: Tensor) -> float:
        """The critic's mean answer, block by block."""
        answers = [self.module.critic(part) for part in torch.split(x, CODE_BLOCK)]
        return float(torch.cat(answers).mean())

    def stored(self, rows: NDArray[np.int64]) -> Tensor:
        """Inputs of some rows as the networks see them, not moved."""
        x = torch.from_numpy(np.array(self.x[rows])).to(self.run.device)
        found: Tensor = self.module.standard(self.scale(x))
        return found

    def extra_state(self) -> dict[str, Tensor]:
        return {"n_turns": torch.tensor(self.n_turns)}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        self.n_turns = int(state["n_turns"])
