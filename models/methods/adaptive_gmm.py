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

`fast` receives a partition from the neighbour graph (`models.graph`): each component gets a corner of a cube as its
fixed mean, and the network, started as the network of tanh units that its sigmoids equal, first learns to give images
that are shifted and turned to their component. Then the mixture becomes that of the codes, and the joint stage goes on
with augmented inputs whose responsibilities come from the clean ones, the mixture refreshed by EM after each epoch.
"""

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from models.anchors import balanced_corners
from models.augment import shift_and_rotate
from models.base import REPRODUCIBLE_THREADS, Clusterer, Network, Run, StepState, start_state
from models.configs import AdaptiveGMMConfig
from models.encoders import Standard, sigmoid_as_tanh, xavier
from models.errors import Collapsed
from models.graph import graph_start, refuse_too_many
from models.stage import Held, ModelStage
from models.trainer import Schedule, epochs_of, train, train_unless_it_strays

ANCHOR_SCALE = 2.0  # standard deviations from a coordinate's zero to a corner


def log_joint(y: Tensor, logits: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Log of omega_k g(y | mu_k, sigma_k^2), eqs. (1) and (2): (B, D), (K,), (K, D), (K, D) -> (B, K)."""
    away = (y.unsqueeze(1) - mu) / log_sigma.exp()  # (B, K, D)
    log_norm = log_sigma.sum(dim=1) + mu.shape[1] * math.log(2 * math.pi) / 2
    return logits.log_softmax(dim=0) - log_norm - away.square().sum(dim=2) / 2


def separation(mu: Tensor, limit: float = math.inf) -> Tensor:
    """The second sum of eq. (5): squared distances to the nearest half of the other means: (K, D) -> ().

    Neighbours are taken as fixed, as eq. (10) does; a distance counts up to `limit`.
    """
    fixed = mu.detach()
    away = mu.square().sum(dim=1, keepdim=True) - 2 * mu @ fixed.T + fixed.square().sum(dim=1)  # (K, K)
    others = away.detach().clone().fill_diagonal_(math.inf)
    near = others.topk(max(1, len(mu) // 2), largest=False).indices  # (K, K // 2)
    return away.gather(1, near).clamp(max=limit).sum()


def em_update(y: Tensor, r: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor]:
    """The M-step of EM: codes (N, D) and responsibilities (N, K) -> logits (K,), mu (K, D), log sigma (K, D)."""
    y, r = y.double(), r.double()
    sizes = r.sum(dim=0)
    empty = torch.nonzero(sizes < 1e-6).flatten()
    sizes = sizes.clamp(min=1e-6)
    mu = r.T @ y / sizes.unsqueeze(1)
    variance = r.T @ y.square() / sizes.unsqueeze(1) - mu.square()
    if len(empty):  # a component that died is born again where codes fit worst
        distance = (y - mu[r.argmax(dim=1)]).square().sum(dim=1)
        mu[empty] = y[distance.topk(len(empty)).indices]
        variance[empty] = y.var(dim=0, correction=0)
    variance = variance.clamp(min=floor)
    return (sizes / len(y)).log().float(), mu.float(), (variance.log() / 2).float()


class AdaptiveGMMNetwork(Network):
    """500, 500, 2000, D | 2000, 500, 500, inputs; sigmoids but for the code. Its head is the mixture."""

    def __init__(self, shape: tuple[int, ...], config: AdaptiveGMMConfig) -> None:
        super().__init__()
        self.shape, self.floor = shape, config.variance_floor
        self.is_image = len(shape) == 3
        sizes = [math.prod(shape), *config.hidden_units, config.n_features]
        self.standard = Standard(None if self.is_image else sizes[0])
        self.encoder = nn.ModuleList(nn.Linear(below, above) for below, above in itertools.pairwise(sizes))
        self.decoder = nn.ModuleList(nn.Linear(above, below) for above, below in itertools.pairwise(sizes[::-1]))
        self.logits = nn.Parameter(torch.zeros(config.n_clusters))
        self.mu = nn.Parameter(torch.zeros(config.n_clusters, config.n_features))
        self.log_sigma = nn.Parameter(torch.zeros(config.n_clusters, config.n_features))

    def flat(self, x: Tensor) -> Tensor:
        """Pixels 0...1 or standardised vectors: (B, ...) -> (B, D_in)."""
        found: Tensor = self.standard(x).flatten(1)
        return found

    def encode(self, v: Tensor, n_layers: int = 4) -> Tensor:
        """Mean-field pass up through so many layers: (B, D_in) -> (B, units)."""
        for number, layer in enumerate(self.encoder[:n_layers]):
            v = layer(v)
            v = v if number == len(self.encoder) - 1 else v.sigmoid()
        return v

    def decode(self, y: Tensor) -> Tensor:
        """(B, D) -> (B, D_in); pixels are bounded, vectors are not."""
        for number, layer in enumerate(self.decoder):
            y = layer(y)
            y = y.sigmoid() if self.is_image or number < len(self.decoder) - 1 else y
        return y

    def embed(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, D)."""
        return self.encode(self.flat(x))

    def log_joint(self, y: Tensor) -> Tensor:
        """(B, D) -> (B, K), with the variances' floor, through which their gradient passes."""
        below = (math.log(self.floor) / 2 - self.log_sigma.detach()).clamp(min=0)
        return log_joint(y.float(), self.logits, self.mu, self.log_sigma + below)

    def assign(self, z: Tensor) -> Tensor:
        """Responsibilities, eq. (9): (B, D) -> (B, K)."""
        return self.log_joint(z).softmax(dim=1)

    @torch.no_grad()
    def take(self, logits: Tensor, mu: Tensor, log_sigma: Tensor) -> None:
        """Parameters of a mixture found elsewhere."""
        self.logits.copy_(logits)
        self.mu.copy_(mu)
        self.log_sigma.copy_(log_sigma)


class AdaptiveGMM(Clusterer):
    """A mixture of Gaussians over codes, and codes that fit it ever better: good where clusters differ in size."""

    name = "adaptive-gmm"
    config: AdaptiveGMMConfig

    def build(self) -> Network:
        """See `AdaptiveGMMNetwork`."""
        return AdaptiveGMMNetwork(self.spec.shape, self.config)

    def _fit(self, x: NDArray[Any], run: Run) -> None:
        self.network.standard.fit(x)
        config, begin = self.config, 0.75
        refuse_too_many(len(x), config.n_clusters)
        if config.start == "graph":
            self._hold(x, run)
        else:
            self._stack(x, run)
            self._fine_tune(x, run)
            self._mix(x, run)
        n_epochs = epochs_of(config.n_steps, len(x), config.batch_size)
        schedule = Schedule("cluster", n_epochs, config.batch_size, (begin, 0.97), stop_change=config.stop_change)
        schedule = replace(schedule, decay_steps=config.decay_steps, clip=config.clip)
        stage = Joint(self, x, run)
        held = Held(self.network, stage.labels_now(), config.max_move) if config.max_move > 0 else None
        train_unless_it_strays(stage, x, schedule, run, held)

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
            train(RBM(self, x, run, number), x, schedule, run)
            with torch.no_grad():
                self.network.decoder[3 - number].weight.copy_(self.network.encoder[number].weight.T)

    def _fine_tune(self, x: NDArray[Any], run: Run) -> None:
        """Stage 1, step three."""
        config, size = self.config, self.config.pretrain_batch_size
        n_epochs = epochs_of(config.n_finetune_steps, len(x), size)
        schedule = Schedule("fine-tune", n_epochs, size, (0.4, 0.7), decay_steps=config.decay_steps)
        train(FineTune(self, x, run), x, schedule, run)

    def _mix(self, x: NDArray[Any], run: Run) -> None:
        """Stage 2: the mixture of the codes, by EM."""
        run.on_step(StepState("mixture", 0.71))
        config = self.config
        y = ModelStage(self, x, run).codes().double().cpu().numpy()
        seed = int(run.generator("adaptive-gmm", "mixture").initial_seed() % 2**32)
        with threadpool_limits(REPRODUCIBLE_THREADS):
            found = GaussianMixture(
                config.n_clusters,
                covariance_type="diag",
                n_init=config.n_mixture_init,
                reg_covar=config.variance_floor,
                random_state=seed,
            ).fit(y)
            labels = found.predict(y)
        run.on_step(start_state("mixture", 0.74, labels, config.n_clusters))
        parts = (np.log(found.weights_), found.means_, np.log(found.covariances_) / 2)
        self.network.take(*(torch.from_numpy(part).float().to(run.device) for part in parts))

    def _hold(self, x: NDArray[Any], run: Run) -> None:
        """`fast` in place of stages 1 and 2: learn the graph's partition, then take the mixture of its codes."""
        config, network = self.config, self.network
        generator = run.generator("adaptive-gmm", "weights")
        for layers in (network.encoder, network.decoder):
            xavier(layers, generator)
            sigmoid_as_tanh(nn.Sequential(*(part for layer in layers for part in (layer, nn.Sigmoid()))))
        labels = torch.from_numpy(graph_start(x, self.spec, config, run, (0.0, 0.35)).labels)
        places = run.generator("adaptive-gmm", "anchors")
        corners = 2 * balanced_corners(config.n_clusters, config.n_features, places) - 1
        network.take(torch.zeros(config.n_clusters), ANCHOR_SCALE * corners, torch.zeros_like(corners))
        n_epochs = epochs_of(config.n_hold_steps, len(x), config.batch_size)
        schedule = Schedule(
            "hold", n_epochs, config.batch_size, (0.35, 0.75), is_annealed=True, use_bfloat16=config.use_bfloat16
        )
        stage = Hold(self, x, run, labels)
        train(stage, x, schedule, run)
        y = stage.codes()
        found = F.one_hot(stage.log_joint(y).argmax(dim=1), config.n_clusters)
        network.take(*em_update(y, found, config.variance_floor))

    @torch.no_grad()
    def generate(self, n: int, seed: int = 0) -> NDArray[np.uint8] | None:
        """What the decoder makes of each component's mean: -> (K, 1, C, S, S); None for vectors."""
        if not self.network.is_image:
            return None
        again = self.network.decode(self.network.mu).reshape(-1, 1, *self.spec.shape)
        found: NDArray[np.uint8] = (again * 255).round().byte().numpy()
        return found


class _Stage(ModelStage):
    """Inputs as the network takes them, corrupted or moved."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run) -> None:
        super().__init__(model, x, run)
        self.config = model.config
        self.optimizer = self.sgd(self.module.parameters())

    def sgd(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, self.config.learning_rate)

    def moved(self, x: Tensor) -> Tensor:
        """Shifted and turned, where the inputs are images: (B, ...) -> (B, D_in)."""
        x = self.scale(x)
        if self.module.is_image:
            x = shift_and_rotate(x, self.config.shift, self.config.rotation_degrees)
        found: Tensor = self.module.flat(x)
        return found

    def log_joint(self, y: Tensor) -> Tensor:
        """Of all codes, without gradient: (N, D) -> (N, K)."""
        with torch.no_grad():
            return torch.cat(
                [self.module.log_joint(part) for part in torch.split(y, max(1, 2**24 // self.module.mu.numel()))]
            )


class RBM(_Stage):
    """One machine of the stack: F(data) - F(one Gibbs step away), whose gradient is contrastive divergence's."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run, number: int) -> None:
        super().__init__(model, x, run)
        self.number = number
        self.layer = self.module.encoder[number]
        self.visible: Tensor = self.module.decoder[3 - number].bias
        self.is_visible_gaussian = number == 0 and not self.module.is_image
        self.is_hidden_gaussian = number == 3
        self.optimizer = self.sgd([self.layer.weight, self.layer.bias, self.visible])

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
        h = hidden + torch.randn(hidden.shape).to(v.device) if self.is_hidden_gaussian else _draw(hidden.sigmoid())
        again: Tensor = h @ self.layer.weight + self.visible
        return again if self.is_visible_gaussian else again.sigmoid()


class FineTune(_Stage):
    """The unrolled auto-encoder: clean inputs from moved and corrupted ones, squared error summed over inputs."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run) -> None:
        super().__init__(model, x, run)
        self.optimizer = self.sgd([*self.module.encoder.parameters(), *self.module.decoder.parameters()])

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        v = F.dropout(self.moved(x), self.config.dropout)
        again = self.module.decode(self.module.encode(v))
        return {"reconstruction": (again - self.module.flat(self.scale(x))).square().sum(dim=1).mean()}


class Hold(_Stage):
    """`fast`: codes of moved inputs go to the component of their cluster; a decoder learns along."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run, labels: Tensor) -> None:
        super().__init__(model, x, run)
        self.labels, self.agreement = labels.to(run.device), 0.0
        own = [*self.module.encoder.parameters(), *self.module.decoder.parameters()]
        self.optimizer = torch.optim.Adam(own, self.config.hold_learning_rate, fused=True)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        y = self.module.encode(self.moved(x))
        again = self.module.decode(y)
        joint = self.module.log_joint(y)
        return {
            "assignment": F.cross_entropy(joint, self.labels[index]),
            "negative_log_likelihood": -self.config.hold_likelihood_weight * joint.logsumexp(dim=1).mean(),
            "reconstruction": (again - self.module.flat(self.scale(x))).square().mean(),
        }

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        found = self.log_joint(self.codes()).argmax(dim=1)
        self.agreement = float((found == self.labels).float().mean())
        return found.cpu().numpy()

    def is_over(self) -> bool:
        return self.agreement >= self.config.hold_agreement


class Joint(_Stage):
    """Stage 3: encoder and mixture climb eq. (5) together."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run) -> None:
        super().__init__(model, x, run)
        config, k = self.config, self.n_clusters
        self.is_fast = config.start == "graph"
        self.eta = config.eta if config.eta is not None else 0.01 if k <= 20 else 0.001
        own = [*self.module.encoder.parameters(), self.module.logits, self.module.mu, self.module.log_sigma]
        self.optimizer = torch.optim.Adam(own, config.learning_rate, fused=True) if self.is_fast else self.sgd(own)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        if self.is_fast:  # the gradient of log p(y) with responsibilities that the clean input gives
            with torch.no_grad():
                r = self.module.assign(self.module.embed(self.scale(x)))
            likelihood = (r * self.module.log_joint(self.module.encode(self.moved(x)))).sum(dim=1)
        else:
            likelihood = self.module.log_joint(self.module.embed(self.scale(x))).logsumexp(dim=1)
        return {
            "negative_log_likelihood": -likelihood.mean(),
            "separation": -self.eta * separation(self.module.mu, self.config.max_separation),
        }

    def end_epoch(self, epoch: int) -> NDArray[np.int64]:
        y = self.codes()
        joint = self.log_joint(y)
        labels = joint.argmax(dim=1)
        sizes = torch.bincount(labels, minlength=self.n_clusters)
        if int((sizes > 0).sum()) == 1:
            raise Collapsed(f"all images fell into one cluster; cluster sizes {sizes.tolist()[:100]}")
        if self.is_fast:
            self.module.take(*em_update(y, joint.softmax(dim=1), self.config.variance_floor))
        return labels.cpu().numpy()


def _draw(p: Tensor) -> Tensor:
    """Bernoulli, from the CPU's generator on every device."""
    return (torch.rand(p.shape) < p.cpu()).to(p)
