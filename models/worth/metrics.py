"""Scores of a clustering, with targets and without. Computed outside `fit`, from its assignments."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score, silhouette_score
from sklearn.metrics.cluster import contingency_matrix

SILHOUETTE_SAMPLE = 2000


def acc(targets: ArrayLike, clusters: ArrayLike) -> float:
    """Share of images right under the best one-to-one map of clusters to targets, over all rows at once: (N,), (N,)."""
    table = contingency_matrix(targets, clusters)
    rows, columns = linear_sum_assignment(table, maximize=True)
    return float(table[rows, columns].sum() / table.sum())


def nmi(targets: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information over the mean of the entropies (scikit-learn's default): (N,), (N,)."""
    return float(normalized_mutual_info_score(targets, clusters, average_method="arithmetic"))


def nmi_max(targets: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information over the larger entropy (dual autoencoder, eq. 22): (N,), (N,)."""
    return float(normalized_mutual_info_score(targets, clusters, average_method="max"))


def ari(targets: ArrayLike, clusters: ArrayLike) -> float:
    """Adjusted Rand index: (N,), (N,)."""
    return float(adjusted_rand_score(targets, clusters))


def uniformity(sizes: ArrayLike) -> float:
    """-sum p ln p / ln K of the cluster sizes (K,): 1 where all are equal (precise feature, eq. 9)."""
    counts = np.asarray(sizes, dtype=np.float64)
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum() / np.log(len(counts)))


def silhouette(embedding: NDArray[np.float32], clusters: NDArray[np.integer], seed: int = 0) -> float | None:
    """Mean silhouette of a sample of (N, D), (N,); None where only one cluster has images."""
    chosen = np.random.default_rng(seed).permutation(len(clusters))[:SILHOUETTE_SAMPLE]
    n_found = len(np.unique(clusters[chosen]))
    if not 1 < n_found < len(chosen):
        return None
    return float(silhouette_score(embedding[chosen], clusters[chosen]))


def with_targets(targets: NDArray[np.integer], clusters: NDArray[np.integer]) -> dict[str, float]:
    """All scores against targets (N,), rows without one (-1) left out; empty where none is left."""
    known = targets >= 0
    if not known.any():
        return {}
    pair = (targets[known], clusters[known])
    return {"acc": acc(*pair), "nmi": nmi(*pair), "nmi_max": nmi_max(*pair), "ari": ari(*pair)}
