"""What a network may change of the partition that it has learned.

It corrects single images and small groups where it is sure. Where many images would go from one cluster to another
together, it moves a border between two clusters. The start drew that border, and it stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class CorrectionRule:
    """What may change.

    `max_flow`: see `redrawn`. `known`: the clusters of images with a known target. Those images get them, and other
    images may cross the borders that they cross.
    """

    n_clusters: int
    max_flow: float
    known: Mapping[int, int] = field(default_factory=dict)

    def known_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images with a known target and their clusters, (n,) each."""
        rows = torch.tensor(list(self.known), dtype=torch.long, device=device)
        return rows, torch.tensor(list(self.known.values()), dtype=torch.long, device=device)


def corrected(partition: Tensor, answers: Tensor, is_sure: Tensor, rule: CorrectionRule) -> Tensor:
    """A partition with the answers that may replace its labels: -> (N,).

    Args:
        partition: (N,) the start's clusters.
        answers: (N,) a network's clusters.
        is_sure: (N,) bool, where the network is sure; elsewhere the partition stays.
        rule: which of them may.
    """
    rows, clusters = rule.known_on(partition.device)
    labels = torch.where(is_sure, answers, partition)
    stays = redrawn(partition, labels, rule.n_clusters, rule.max_flow)
    told = partition[rows] * rule.n_clusters + clusters
    stays &= ~torch.isin(partition * rule.n_clusters + labels, told)
    labels = torch.where(stays, partition, labels)
    labels[rows] = clusters
    return labels


def redrawn(before: Tensor, after: Tensor, n_clusters: int, most: float) -> Tensor:
    """Which images go from one cluster to another along with more than a share of the smaller of the two: -> (N,) bool.

    `before` and `after` (N,) are clusters. Few of many are corrections, and one always is. Many move a border. A share
    of 1 asks nothing.
    """
    flow = before * n_clusters + after
    pairs, place, counts = torch.unique(flow, return_inverse=True, return_counts=True)
    sizes = torch.bincount(before, minlength=n_clusters)
    smaller = torch.minimum(sizes[pairs // n_clusters], sizes[pairs % n_clusters])
    is_border: Tensor = (pairs // n_clusters != pairs % n_clusters) & (counts > (most * smaller).clamp(min=1))
    return is_border[place] & (most < 1)
