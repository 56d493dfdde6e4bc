"""k-means on embeddings, as several methods begin or end with it."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.parts.threads import reproducible_threads


def k_means(z: Tensor, n_clusters: int, start: torch.Generator | Tensor, n_init: int = 10) -> Tensor:
    """Clusters of embeddings by scikit-learn: (N, D) -> (N,).

    `start` is a generator to draw `n_init` starts from, or centers (K, D) to go on from. Where fewer than K embeddings
    differ, clusters stay empty.
    """
    from sklearn.cluster import KMeans  # slow to import; many fits do without it
    from sklearn.exceptions import ConvergenceWarning

    points = z.detach().float().cpu().numpy()
    if isinstance(start, Tensor):
        estimator = KMeans(n_clusters, init=start.detach().float().cpu().numpy(), n_init=1)
    else:
        estimator = KMeans(n_clusters, n_init=n_init, random_state=int(start.initial_seed() % 2**32))
    with reproducible_threads(), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels: NDArray[np.int64] = estimator.fit(points).labels_.astype(np.int64)
    return torch.from_numpy(labels).to(z.device)
