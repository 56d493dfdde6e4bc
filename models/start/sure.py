"""Which images a partition is sure of."""

import torch
from torch import Tensor


def sure_rows(labels: Tensor, confidence: Tensor, least: float) -> Tensor:
    """Rows of at least that confidence, and of every cluster its surer half: (N,), (N,) -> (N,) bool.

    So every cluster has some, however unsure one is of it.
    """
    order = confidence.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]  # by cluster, the surest first
    sizes = torch.bincount(labels)
    own = labels[order]
    place = torch.arange(len(labels), device=labels.device) - (sizes.cumsum(0) - sizes)[own]
    is_sure = confidence >= least
    is_sure[order] |= 2 * place < sizes[own]
    return is_sure
