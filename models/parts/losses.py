"""Equations that two or more methods share, as pure functions of tensors."""

import torch
from torch import Tensor


def nearest(z: Tensor, mu: Tensor) -> Tensor:
    """Index of the nearest center of every row: (N, D), (K, D) -> (N,)."""
    return (z @ mu.T - mu.square().sum(dim=1) / 2).argmax(dim=1)


def cluster_centers(z: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    """Means of the members; an empty cluster takes the row farthest from its center: (N, D), (N,) -> (K, D)."""
    sizes = torch.bincount(labels, minlength=n_clusters)
    centers = cluster_means(z, labels, n_clusters)
    empty = torch.nonzero(sizes == 0).flatten()
    if len(empty):
        distance = (z - centers[labels]).square().sum(dim=1)
        centers[empty] = z[distance.topk(len(empty)).indices]
    return centers


def cluster_means(z: Tensor, labels: Tensor, n_clusters: int) -> Tensor:
    """Mean of each cluster's members, summed in float64: (N, D), (N,) -> (K, D). An empty cluster's row is NaN."""
    sums = torch.zeros(n_clusters, z.shape[1], dtype=torch.float64, device=z.device)
    sums.index_add_(0, labels, z.double())
    sizes = torch.bincount(labels, minlength=n_clusters).unsqueeze(1)
    return (sums / sizes).to(z.dtype)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Mean over images, 0 where no image has a weight: (B,), (B,) weights of 0 or 1 -> ()."""
    return (values * weights).sum() / weights.sum().clamp(min=1)
