"""Learning the Precise Feature for Cluster Assignment (Gan, Dong, Zhou, Gao & Dong, IEEE Trans. Cybernetics 2021).

Symbols are the paper's: y one-hot clusters (B, K), z noise (B, n_noise), G generator of inputs from both, D critic that
tells real inputs from generated ones, C classifier of clusters, which learns from generated inputs alone. What G must
vary with y, for C to read y from it and D to believe it, is the feature that tells the data apart best. Ours, where the
text is silent:

* Leaky units of critic and classifier fall by .2, the last layer of G is a sigmoid, batches hold 50, and noise has ten
  variables (2 for vectors: with more than the data have of their own, the paper reports failures).
* The weight eta is 10 * 1.2^(t / 30,000), whole powers, from the step t; the text's last line, read literally, would
  compound it at every step.
* Lambda is 100 as the paper has it for images, and .1 for vectors, of which the text says nothing: with 100 the critic
  never balances, and five of eight blobs are found; .1 is what WGAN-GP's authors take for such data.
* One input in fifty, at most 1,000, never meets the critic: D's estimate of the Earth Mover's distance on these, beside
  that on the others, shows a critic that has learned its inputs by heart.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor

from models.base import Network, Run
from models.methods.precise_feature.spec import PreciseFeatureConfig
from models.parts.adversarial import Discriminating, Generator, gradient_penalty
from models.parts.encoders import Standard
from models.training.fast import DeepClusterer
from models.training.held import HeldState
from models.training.stage import CODE_BLOCK, ClusteringStage, ModelStage
from models.training.trainer import Schedule, epochs_of, train_or_undo

PENALTY_OF_VECTORS, PENALTY_OF_IMAGES = 0.1, 100.0
HELD_OUT_EVERY, MAX_HELD_OUT = 50, 1_000


def trade_off(step: int, config: PreciseFeatureConfig) -> float:
    """Eta of eqs. (7) and (8) at a generator step."""
    return config.eta * config.eta_growth ** (step // config.eta_steps)


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
        features: Tensor = self.classifier.features(self.standard(x))
        return features

    def assign(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K)."""
        p: Tensor = self.classifier.head(z).softmax(dim=1)
        return p

    def generate(self, y: Tensor, z: Tensor) -> Tensor:
        """Clusters (B,) and noise (B, n_noise) -> inputs (B, ...), as the networks see them."""
        codes = torch.cat([F.one_hot(y, self.n_clusters).to(z.dtype), z], dim=1)
        drawn: Tensor = self.generator(codes)
        return drawn


class PreciseFeature(DeepClusterer):
    """A game of three: what a generator must vary for a classifier to read the cluster from what a critic believes."""

    name = "precise-feature"
    config: PreciseFeatureConfig

    def build(self) -> Network:
        """See `PreciseFeatureNetwork`."""
        n_noise = self.config.count_noise(self.spec.kind == "images")
        return PreciseFeatureNetwork(self.spec.shape, self.config.n_clusters, n_noise)

    def fit_as_published(self, x: NDArray[Any], run: Run) -> None:
        """Algorithm 1 from random networks."""
        config = self.config
        self.network.standard.fit(x)
        prior = torch.tensor(config.cluster_prior or [1.0] * config.n_clusters)
        game = Game(self, x, run, prior)
        held = None
        if config.max_move > 0:
            held = HeldState(self.network.classifier, game.labels_now(), config.max_move)
            held.add(self.network.generator)
        train_or_undo(game, self.cluster_schedule(x, (0.0, 0.97)), held)

    def cluster_schedule(self, x: NDArray[Any], span: tuple[float, float]) -> Schedule:
        """How long the game goes on."""
        config = self.config
        n_turns = config.n_critic + config.n_classifier + 1
        n_epochs = epochs_of(config.n_steps * n_turns, len(x), config.batch_size)
        return Schedule("cluster", n_epochs, config.batch_size, span)

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> NDArray[np.uint8] | None:
        """Images that the generator draws of each cluster: -> (K, n, C, S, S); None for vectors."""
        if not self.network.is_image:
            return None
        z = torch.randn(n, self.network.n_noise, generator=torch.Generator().manual_seed(seed))
        drawn = [self.network.generate(torch.full((n,), k), z) for k in range(self.config.n_clusters)]
        images: NDArray[np.uint8] = (torch.stack(drawn) * 255).round().byte().numpy()
        return images


class DrawingStage(ModelStage):
    """Draws of clusters and noise, and an optimizer over all three networks.

    A network whose turn it is not takes no gradient, and Adam passes over what has none: each keeps its own count.
    """

    def __init__(self, model: PreciseFeature, x: NDArray[Any], run: Run, prior: Tensor) -> None:
        super().__init__(model, x, run)
        self.prior = prior.to(run.device)
        self.n_drawn = max(1, round(self.config.batch_size * run.batch_scale))
        rate = self.config.learning_rate
        self.optimizer = self.adam(self.module.parameters(), rate, betas=(0.5, 0.9))

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Clusters by the prior (n,), noise (n, n_noise); from torch's own generator if none is given."""
        y = torch.multinomial(self.prior, n, replacement=True, generator=generator)
        return y, torch.randn(n, self.module.n_noise, generator=generator, device=self.run.device)

    def seen(self, x: Tensor) -> Tensor:
        """Stored inputs as the networks see them; images moved if the paper's augmented variant is asked for."""
        x = self.module.standard(self.scale(x))
        return self.augment(x) if self.config.augment else x

    def classifier_error(self, n: int) -> Tensor:
        """Cross-entropy of C on what G draws: the bound of eq. (5) on the entropy of the cluster given the input."""
        y, z = self.draw(n)
        with torch.no_grad():
            drawn = self.shown_to_classifier(self.module.generate(y, z))
        return F.cross_entropy(self.module.classifier(drawn), y)

    def shown_to_classifier(self, drawn: Tensor) -> Tensor:
        """What C sees of inputs that G drew: (B, ...) -> (B, ...)."""
        return drawn


class Game(DrawingStage, ClusteringStage):
    """Algorithm 1: five turns of the critic, four of the classifier, one of the generator, and again."""

    can_collapse = False

    def __init__(self, model: PreciseFeature, x: NDArray[Any], run: Run, prior: Tensor) -> None:
        super().__init__(model, x, run, prior)
        config = self.config
        self.turns = ("critic",) * config.n_critic + ("classifier",) * config.n_classifier + ("generator",)
        self.n_turns = 0
        of_kind = PENALTY_OF_IMAGES if self.module.is_image else PENALTY_OF_VECTORS
        self.penalty = of_kind if config.penalty is None else config.penalty
        rows = torch.arange(len(x), device=run.device)
        self.is_held_out = (rows % HELD_OUT_EVERY == HELD_OUT_EVERY - 1) & (rows < HELD_OUT_EVERY * MAX_HELD_OUT)
        self.eta = torch.tensor(trade_off(0, config), device=run.device)

    def turn(self) -> str:
        """Whose turn it is."""
        turn: str = self.turns[self.n_turns % len(self.turns)]
        return turn

    def end_step(self) -> None:
        self.n_turns += 1
        if self.n_turns % (len(self.turns) * self.config.eta_steps) == 0:
            self._refresh_eta()

    def _refresh_eta(self) -> None:
        self.eta.fill_(trade_off(self.n_turns // len(self.turns), self.config))

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        turn = self.turn()
        for name in ("critic", "classifier", "generator"):
            self.module.get_submodule(name).requires_grad_(name == turn)
        if turn == "critic":
            return self.critic_error(x, (~self.is_held_out[index]).float())
        if turn == "classifier":
            return {"cross_entropy": self.classifier_error(self.n_drawn)}
        y, z = self.draw(self.n_drawn)
        drawn = self.module.generate(y, z)
        return {
            "generator": -self.module.critic(drawn).mean(),
            "weighted_cross_entropy": self.eta * F.cross_entropy(self.module.classifier(drawn), y),
        }

    def critic_error(self, x: Tensor, weight: Tensor) -> dict[str, Tensor]:
        """Lines 3 to 10, on inputs (B, ...) of which those of weight (B,) zero are held out."""
        real = self.seen(x)
        with torch.no_grad():
            fake = self.module.generate(*self.draw(len(x)))
        critic, share = self.module.critic, weight / weight.sum().clamp(min=1)
        return {
            "critic": share @ (critic(fake) - critic(real)).squeeze(1),
            "penalty": self.penalty * (share @ gradient_penalty(critic, real, fake)),
        }

    @torch.no_grad()
    def recluster(self, epoch: int) -> Tensor:
        """Ask C for all inputs; estimate the Earth Mover's distance."""
        held = torch.nonzero(self.is_held_out).flatten()
        others = torch.nonzero(~self.is_held_out).flatten()[: len(held)]
        if len(held):
            generator = self.run.generator("precise-feature", "held out", epoch, device=self.run.device)
            drawn = self.draw(len(held), generator)
            fake = self.believed(self.module.generate(*drawn))
            self.figures = {
                name: self.believed(self.stored(rows)) - fake
                for name, rows in (("earth_mover", others), ("earth_mover_held_out", held))
            }
        return self.labels_now()

    def believed(self, x: Tensor) -> float:
        """The critic's mean answer, block by block."""
        answers = [self.module.critic(part) for part in torch.split(x, CODE_BLOCK)]
        return float(torch.cat(answers).mean())

    def stored(self, rows: Tensor) -> Tensor:
        """Inputs of some rows (M,) as the networks see them, not moved."""
        seen: Tensor = self.module.standard(self.scale(self.inputs.rows(rows)))
        return seen

    def extra_state(self) -> dict[str, Tensor]:
        return {"n_turns": torch.tensor(self.n_turns)}

    def load_extra_state(self, state: Mapping[str, Tensor]) -> None:
        self.n_turns = int(state["n_turns"])
        self._refresh_eta()
