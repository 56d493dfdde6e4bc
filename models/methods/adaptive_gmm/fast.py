"""`adaptive-gmm` by the `fast` recipe (see `models.training.fast`).

Each component gets a corner of a cube as its fixed mean. The network, started as the network of tanh units that its
sigmoids equal, first learns to give augmented inputs to their component. Then the mixture becomes that of the codes,
and the paper's joint stage goes on with Adam: inputs are augmented, their responsibilities come from the clean ones,
and EM refreshes the mixture after each epoch.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's name for it
from numpy.typing import NDArray
from torch import Tensor, nn

from models.base import Run
from models.methods.adaptive_gmm.method import AdaptiveGMM, InputsStage, Joint
from models.parts.anchors import balanced_corners
from models.parts.encoders import sigmoid_as_tanh, xavier
from models.parts.memory import refuse_too_many
from models.start.graph import GraphStart
from models.training.fast import FastRecipe, PartitionStage, as_labels

ANCHOR_SCALE = 2.0  # standard deviations from a coordinate's zero to a corner


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


class FastAdaptiveGMM(FastRecipe):
    """See the module."""

    def prepare(self) -> None:
        self.network.standard.fit(self.x)
        refuse_too_many(len(self.x), self.config.n_clusters, self.run.device)
        generator = self.run.generator("adaptive-gmm", "weights")
        for layers in (self.network.encoder, self.network.decoder):
            xavier(layers, generator)
            sigmoid_as_tanh(nn.Sequential(*(part for layer in layers for part in (layer, nn.Sigmoid()))))

    def hold(self, start: GraphStart) -> "Hold":
        config = self.config
        places = self.run.generator("adaptive-gmm", "anchors")
        corners = 2 * balanced_corners(config.n_clusters, config.n_features, places) - 1
        self.network.take(torch.zeros(config.n_clusters), ANCHOR_SCALE * corners, torch.zeros_like(corners))
        return Hold(self.model, self.x, self.run, as_labels(start.labels, self.run.device))

    def clustering(self, hold: PartitionStage) -> "FastJoint":
        assert isinstance(hold, Hold)
        y = hold.codes()
        members = F.one_hot(hold.log_joint(y).argmax(dim=1), self.config.n_clusters)
        self.network.take(*em_update(y, members, self.config.variance_floor))
        return FastJoint(self.model, self.x, self.run)


class Hold(InputsStage, PartitionStage):
    """Codes of augmented inputs go to the component of their cluster; a decoder learns along."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run, partition: Tensor) -> None:
        super().__init__(model, x, run)
        self.partition = partition
        own = [*self.module.encoder.parameters(), *self.module.decoder.parameters()]
        self.optimizer = self.adam(own, self.config.hold_learning_rate, fused=True)

    def loss(self, x: Tensor, index: Tensor) -> dict[str, Tensor]:
        y = self.module.encode(self.flat_augmented(x))
        again = self.module.decode(y)
        joint = self.module.log_joint(y)
        return {
            "assignment": F.cross_entropy(joint, self.partition[index]),
            "negative_log_likelihood": -self.config.hold_likelihood_weight * joint.logsumexp(dim=1).mean(),
            "reconstruction": (again - self.module.flat(self.scale(x))).square().mean(),
        }

    def predict_all(self) -> Tensor:
        return self.log_joint(self.codes()).argmax(dim=1)


class FastJoint(Joint):
    """Responsibilities from clean inputs, gradients from augmented ones, EM after each epoch."""

    def __init__(self, model: AdaptiveGMM, x: NDArray[Any], run: Run) -> None:
        super().__init__(model, x, run)
        self.optimizer = self.adam(self.trained(), self.config.learning_rate, fused=True)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """Its gradient is that of log p(y) with the responsibilities of the clean input."""
        with torch.no_grad():
            r = self.module.assign(self.module.embed(self.scale(x)))
        joint: Tensor = self.module.log_joint(self.module.encode(self.flat_augmented(x)))
        likelihood: Tensor = (r * joint).sum(dim=1)
        return likelihood

    def retarget(self) -> None:
        """EM on the codes of all inputs."""
        self.module.take(*em_update(self.y, self.joint.softmax(dim=1), self.config.variance_floor))
        super().retarget()
