"""Fixed places in an embedding, far apart, that a partition is learned towards."""

import torch
from torch import Generator, Tensor

SEARCHED_UNTIL = 128  # clusters; beyond, all pairs of corners would be too many to compare
N_DRAWS = 200
MANY_UNITS = 64


def balanced_corners(n_clusters: int, n_units: int, generator: Generator) -> Tensor:
    """A corner of the unit cube for each cluster: -> (K, D) of zeros and ones.

    Of 200 random draws, the one whose two closest corners differ in most units. Each unit is one for half of the
    clusters, as nearly as K allows: an output that starts at a half then has nothing to unlearn first. For more than
    128 clusters any draw is far apart if there are many units; if there are few, places inside the cube serve.
    """
    if n_clusters > SEARCHED_UNTIL:
        places = torch.rand(n_clusters, n_units, generator=generator)
        return _corners(places) if n_units >= MANY_UNITS else places
    best, best_gap = torch.zeros(n_clusters, n_units), -1.0
    for _ in range(N_DRAWS):
        corners = _corners(torch.rand(n_clusters, n_units, generator=generator))
        gap = float((torch.cdist(corners, corners, p=1) + torch.eye(n_clusters) * n_units).min())
        if gap > best_gap:
            best, best_gap = corners, gap
    return best


def _corners(places: Tensor) -> Tensor:
    """Each unit one for the lower half of its column."""
    return (places.argsort(dim=0) < len(places) / 2).float()
