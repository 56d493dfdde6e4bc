"""From an embedding to probabilities: the heads that more than one method serves with."""

from typing import Any

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


class NeighbourVote(nn.Module):
    """p = share of each cluster among the 15 nearest stored embeddings, weighted by 1 / distance."""

    N_NEIGHBOURS, NEAREST = 15, 1e-6
    stored: Tensor  # (M, D)
    labels: Tensor  # (M,)

    def __init__(self, n_clusters: int, n_features: int) -> None:
        super().__init__()
        self.n_clusters = n_clusters
        self.register_buffer("stored", torch.zeros(1, n_features))
        self.register_buffer("labels", torch.zeros(1, dtype=torch.long))

    def take(self, stored: Tensor, labels: Tensor) -> None:
        """Embeddings (M, D) and their clusters (M,)."""
        self.stored, self.labels = stored.detach().float().cpu(), labels.long().cpu()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """How many embeddings are stored is the file's to say."""
        stored, labels = (state_dict.get(f"{prefix}{name}") for name in ("stored", "labels"))
        if stored is not None and labels is not None and stored.shape == (len(labels), self.stored.shape[1]):
            self.stored, self.labels = torch.empty_like(stored), torch.empty_like(labels)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, z: Tensor) -> Tensor:
        """(B, D) -> (B, K). In float64: squared distances of near embeddings are small differences of large numbers."""
        stored = self.stored.double()
        square = z.double().square().sum(dim=1, keepdim=True) - 2 * z.double() @ stored.T + stored.square().sum(dim=1)
        near = (-square).topk(min(self.N_NEIGHBOURS, len(stored)), dim=1)
        weight = 1 / ((-near.values).clamp(min=0).sqrt() + self.NEAREST)  # (B, 15)
        nothing = weight.new_zeros(z.shape[0], self.n_clusters)
        share = nothing.scatter_add(1, self.labels[near.indices], weight)
        return (share / share.sum(dim=1, keepdim=True)).float()
