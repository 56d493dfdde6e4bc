"""The network of the adaptive GMM (Wang & Jiang, Neurocomputing 2021): a fully connected auto-encoder and a mixture.

Symbols as in `method.py`.
"""

import itertools
import math

import torch
from torch import Tensor, nn

from models.base import Network
from models.methods.adaptive_gmm.spec import AdaptiveGMMConfig
from models.parts.encoders import Standard


def log_joint(y: Tensor, logits: Tensor, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Log of omega_k g(y | mu_k, sigma_k^2), eqs. (1) and (2): (B, D), (K,), (K, D), (K, D) -> (B, K)."""
    away = (y.unsqueeze(1) - mu) / log_sigma.exp()  # (B, K, D)
    log_norm = log_sigma.sum(dim=1) + mu.shape[1] * math.log(2 * math.pi) / 2
    return logits.log_softmax(dim=0) - log_norm - away.square().sum(dim=2) / 2


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
        flat: Tensor = self.standard(x).flatten(1)
        return flat

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
