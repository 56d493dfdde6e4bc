"""From an embedding to probabilities: the heads that more than one method serves with."""

import torch
from torch import Tensor, nn


class NearestCenter(nn.Module):
    """p = softmax(-d^2 / 2 sigma^2) over K centers, sigma^2 the mean within-cluster variance.

    In float64, so that far centers stay apart.
    """

    mu: Tensor  # (K, D)
    variance: Tensor

    def __init__(self, n_clusters: int, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mu", torch.zeros(n_clusters, n_features, dtype=torch.float64))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))

    def take(self, mu: Tensor, variance: float) -> None:
        """Centers (K, D) and the mean squared distance of an input to its own."""
        self.mu = mu.detach().double().cpu()
        self.variance = torch.tensor(max(variance, 1e-12), dtype=torch.float64)

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K). |z|^2 is the same for every center, so it is left out."""
        score = z.double() @ self.mu.T - self.mu.square().sum(dim=1) / 2
        return (score / self.variance).softmax(dim=1).float()
