"""What a user knows of the clusters beforehand: targets of some images, or the sizes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def match_known(labels: NDArray[np.int64], known: Mapping[int, int], n_clusters: int) -> dict[int, int]:
    """The cluster of each image with a known target, by the best one-to-one map of targets to clusters.

    `labels` (N,) are the clusters of a start, `known` maps image index to target; -> image index to cluster.
    """
    if not known:
        return {}
    from scipy.optimize import linear_sum_assignment  # slow to import; many fits do without it

    rows = np.fromiter(known, np.int64)
    kinds, target = np.unique(np.fromiter(known.values(), np.int64), return_inverse=True)
    counts = np.zeros((len(kinds), n_clusters), np.int64)
    np.add.at(counts, (target, labels[rows]), 1)
    to_cluster = linear_sum_assignment(counts, maximize=True)[1]
    return dict(zip(rows.tolist(), to_cluster[target].tolist(), strict=True))


def match_prior(labels: NDArray[np.int64], prior: NDArray[np.float64]) -> NDArray[np.int64]:
    """Clusters renumbered so that the largest has the number of the prior's largest entry, and so on: (N,) -> (N,)."""
    sizes = np.bincount(labels, minlength=len(prior))
    number = np.empty(len(prior), np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.argsort(-prior, kind="stable")
    return number[labels]
