"""Unsupervised deep clustering via adaptive GMM modeling and optimization (Wang & Jiang, Neurocomputing 2021).

Symbols are the paper's: x inputs, y codes (B, D), and of the mixture's K components mu means, sigma^2 diagonal
variances, both (K, D), and omega weights (K,), held as softmax logits; eta weighs the separation of the means.
Three stages: an auto-encoder from a stack of RBMs, a mixture of its codes by EM, then encoder and mixture together,
without reconstruction. Ours, where the text is silent:

* The parametrisation follows from the printed gradients: eq. (11) is that of log sigma, eq. (12) that of the logits,
  and eq. (10) takes a component's neighbours as fixed.
* RBMs learn by one step of contrastive divergence; the last has linear units, so that codes are not bounded.
  "Dropout" falls on what an RBM, and later the auto-encoder, sees. Vectors are standardised and visible as Gaussians.
* The likelihood rises without end as codes shrink, the separation as means part: `variance_floor` and
  `max_separation` bound both, far from where training goes.
* eta was chosen for each data set with its classes; here K alone decides: .01 up to K = 20, else .001.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor, nn

from models.base import Network, Run, StepState, start_state
from models.methods.adaptive_gmm.network import AdaptiveGMMNetwork
from models.methods.adaptive_gmm.spec import AdaptiveGMMConfig
from models.parts.memory import refuse_too_many
from models.parts.threads import reproducible_threads
from models.training.fast import DeepClusterer, state_to_restore
from models.training.stage import ClusteringStage, ModelStage
from models.training.trainer import Schedule, epochs_of, train, train_or_undo


def separation(mu: Tensor, limit: float = math.inf) -> Tensor:
    """The second sum of eq. (5): squared distances to the nearest half of the other means: (K, D) -> ().

    Neighbours are taken as fixed, as eq. (10) does; a distance counts up to `limit`.
    """
    fixed = mu.detach()
    away = mu.square().sum(dim=1, keepdim=True) - 2 * mu @ fixed.T + fixed.square().sum(dim=1)  # (K, K)
    others = away.detach().clone().fill_diagonal_(math.inf)
    near = others.topk(max(1, len(mu) // 2), largest=False).indices  # (K, K // 2)
    return away.gather(1, near).clamp(max=limit).sum()


class AdaptiveGMM(DeepClusterer):
    """A mixture of Gaussians over codes, and codes that fit it ever better: good where clusters differ in size."""

    name = "adaptive-gmm"
    config: AdaptiveGMMConfig

    def build(self) -> Network:
        """See `AdaptiveGMMNetwork`."""
        return AdaptiveGMMNetwork(self.spec.shape, self.config)

    def fit_as_published(self, x: NDArray[Any], run: Run) -> None:
        """The paper's three stages."""
        self.network.standard.fit(x)
        for device in (run.device, "cpu"):  # scikit-learn's mixture is fitted in the machine's memory
            refuse_too_many(len(x), self.config.n_clusters, device)
        self._stack(x, run)
        self._fine_tune(x, run)
        self._mix(x, run)
        stage = Joint(self, x, run)
        schedule = self.cluster_schedule(x, (0.75, 0.97))
        train_or_undo(stage, schedule, state_to_restore(stage, self.config.max_move))

    def cluster_schedule(self, x: NDArray[Any], span: tuple[float, float]) -> Schedule:
        """How long stage 3 goes on."""
        config = self.config
        n_epochs = epochs_of(config.n_steps, len(x), config.batch_size)
        schedule = Schedule("cluster", n_epochs, config.batch_size, span, stop_change=config.stop_change)
        return replace(schedule, decay_steps=config.decay_steps, clip=config.clip)

    def _stack(self, x: NDArray[Any], run: Run) -> None:
        """Stage 1, steps one and two: RBMs, each on what the one below makes of the inputs, then unrolled."""
        generator = run.generator("adaptive-gmm", "weights")
        for layer in (*self.network.encoder, *self.network.decoder):
            nn.init.normal_(layer.weight, std=0.01, generator=generator)
            nn.init.zeros_(layer.bias)
        config, size = self.config, self.config.pretrain_batch_size
        for number in range(4):
            schedule = Schedule(
                f"rbm {number + 1}", epochs_of(config.n_rbm_steps, len(x), size), size,
                (0.1 * number, 0.1 * (number + 1)), decay_steps=config.decay_steps,
            )  # fmt: skip
            train(RBM(self, x, run, number), schedule)
            with torch.no_grad():
                self.network.decoder[3 - number].weight.copy_(self.network.encoder[number].weight.T)

    def _fine_tune(self, x: NDArray[Any], run: Run) -> None:
        """Stage 1, step three."""
        config, size = self.config, self.config.pretrain_batch_size
        n_epochs = epochs_of(config.n_finetune_steps, len(x), size)
        schedule = Schedule("fine-tune", n_epochs, size, (0.4, 0.7), decay_steps=config.decay_steps)
        train(FineTune(self, x, run), schedule)

    def _mix(self, x: NDArray[Any], run: Run) -> None:
        """Stage 2: the mixture of the codes, by EM."""
        from sklearn.mixture import GaussianMixture  # slow to import; many fits do without it

        run.on_step(StepState("mixture", 0.71))
        config = self.config
        y = ModelStage(self, x, run).codes().double().cpu().numpy()
        seed = int(run.generator("adaptive-gmm", "mixture").initial_seed() % 2**32)
        with reproducible_threads():
            mixture = GaussianMixture(
                config.n_clusters,
                covariance_type="diag",
                n_init=config.n_mixture_init,
                reg_covar=config.variance_floor,
                random_state=seed,
            ).fit(y)
            labels = mixture.predict(y)
        run.on_step(start_state("mixture", 0.74, labels, config.n_clusters))
        parameters = (np.log(mixture.weights_), mixture.means_, np.log(mixture.covariances_) / 2)
        self.network.take(*(torch.from_numpy(each).float().to(run.device) for each in parameters))

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> NDArray[np.uint8] | None:
        """What the decoder makes of each component's mean: -> (K, 1, C, S, S); None for vectors."""
        if not self.network.is_image:
            return None
        again = self.network.decode(self.network.mu).reshape(-1, 1, *self.spec.shape)
        images: NDArray[np.uint8] = (again * 255).round().byte().numpy()
        return images


class InputsStage(ModelStage):
    """Inputs as the network takes them, and plain SGD."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run) -> None:
        super().__init__(model, x, run)
        self.optimizer = self.sgd(self.module.parameters(), self.config.learning_rate)

    def flat_augmented(self, x: Tensor) -> Tensor:
        """Stored inputs (B, ...), images augmented as far as the config says: -> (B, D_in)."""
        flat: Tensor = self.module.flat(self.augment(self.scale(x)))
        return flat

    def log_joint(self, y: Tensor) -> Tensor:
        """Of all codes, without gradient: (N, D) -> (N, K)."""
        with torch.no_grad():
            return torch.cat(
                [self.module.log_joint(part) for part in torch.split(y, max(1, 2**24 // self.module.mu.numel()))]
            )


class RBM(InputsStage):
    """One machine of the stack: F(data) - F(one Gibbs step away), whose gradient is contrastive divergence's."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run, number: int) -> None:
        super().__init__(model, x, run)
        self.number = number
        self.layer = self.module.encoder[number]
        self.visible: Tensor = self.module.decoder[3 - number].bias
        self.is_visible_gaussian = number == 0 and not self.module.is_image
        self.is_hidden_gaussian = number == 3
        self.optimizer = self.sgd([self.layer.weight, self.layer.bias, self.visible], self.config.learning_rate)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        with torch.no_grad():
            v = self.module.encode(self.module.flat(self.scale(x)), self.number)
            v = F.dropout(v, self.config.dropout)
            away = self.gibbs_step(v)
        return {"free_energy": (self.free_energy(v) - self.free_energy(away)).mean()}

    def free_energy(self, v: Tensor) -> Tensor:
        """-log of the unnormalised p(v): (B, V) -> (B,)."""
        hidden: Tensor = self.layer(v)
        from_hidden = hidden.square().sum(dim=1) / 2 if self.is_hidden_gaussian else F.softplus(hidden).sum(dim=1)
        if self.is_visible_gaussian:
            return (v - self.visible).square().sum(dim=1) / 2 - from_hidden
        return -v @ self.visible - from_hidden

    def gibbs_step(self, v: Tensor) -> Tensor:
        """Hidden units drawn from v, and the mean of the visible ones given them: (B, V) -> (B, V)."""
        hidden: Tensor = self.layer(v)
        h = hidden + torch.randn_like(hidden) if self.is_hidden_gaussian else _draw(hidden.sigmoid())
        again: Tensor = h @ self.layer.weight + self.visible
        return again if self.is_visible_gaussian else again.sigmoid()


class FineTune(InputsStage):
    """The unrolled auto-encoder: clean inputs from moved and corrupted ones, squared error summed over inputs."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run) -> None:
        super().__init__(model, x, run)
        own = [*self.module.encoder.parameters(), *self.module.decoder.parameters()]
        self.optimizer = self.sgd(own, self.config.learning_rate)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        v = F.dropout(self.flat_augmented(x), self.config.dropout)
        again = self.module.decode(self.module.encode(v))
        return {"reconstruction": (again - self.module.flat(self.scale(x))).square().sum(dim=1).mean()}


class Joint(InputsStage, ClusteringStage):
    """Stage 3: encoder and mixture climb eq. (5) together."""

    y: Tensor  # (N, D) and (N, K), as `recluster` found them
    joint: Tensor

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run) -> None:
        super().__init__(model, x, run)
        config, k = self.config, self.n_clusters
        self.eta = config.eta if config.eta is not None else 0.01 if k <= 20 else 0.001
        self.optimizer = self.sgd(self.trained(), self.config.learning_rate)

    def trained(self) -> list[Any]:
        """Parameters of encoder and mixture."""
        return [*self.module.encoder.parameters(), self.module.logits, self.module.mu, self.module.log_sigma]

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        return {
            "negative_log_likelihood": -self.log_likelihood(x).mean(),
            "separation": -self.eta * separation(self.module.mu, self.config.max_separation),
        }

    def log_likelihood(self, x: Tensor) -> Tensor:
        """The first sum of eq. (5): stored inputs (B, ...) -> (B,)."""
        joint: Tensor = self.module.log_joint(self.module.embed(self.scale(x)))
        return joint.logsumexp(dim=1)

    def recluster(self, epoch: int) -> Tensor:
        self.y = self.codes()
        self.joint = self.log_joint(self.y)
        return self.joint.argmax(dim=1)

    def retarget(self) -> None:
        """Nothing: the next epoch follows the likelihood alone."""
        del self.y, self.joint


def _draw(p: Tensor) -> Tensor:
    """Bernoulli."""
    return (torch.rand_like(p) < p).to(p)
