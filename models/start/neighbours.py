"""The steps of the neighbour-graph start, each a pure function of its arguments and a seed, one thread each.

Neighbours, layout and mixture come from PyNNDescent, UMAP and scikit-learn; a mixture of several layouts at once is
ours. Torch-free, so that a process which only runs these steps starts fast.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

EXACT_UNTIL = 12_000  # rows; below it a search over all pairs is faster than building an index
MAX_EM_STEPS = 100
EM_TOLERANCE = 1e-5  # nats an image; views that disagree settle slowly
REG_COVAR = 1e-6  # scikit-learn's, for an embedding whose clusters have a spread of about 1

Embedding = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Neighbours:
    """The k nearest neighbours of every row, itself first: indexes (N, k), Euclidean distances (N, k)."""

    index: NDArray[np.int64]
    distance: NDArray[np.float32]


@dataclass(frozen=True)
class Mixture:
    """A partition as a mixture sees it: mean log-likelihood, labels (N,), responsibilities of the own cluster (N,)."""

    log_likelihood: float
    labels: Labels
    confidence: NDArray[np.float32]


def search(features: Path, rows: NDArray[np.int64] | None, n_neighbours: int, seed: int) -> Neighbours:
    """Nearest neighbours among the rows (None: all) of a saved float32 array (N, D)."""
    x = np.load(features, mmap_mode="r")
    x = np.ascontiguousarray(x if rows is None else x[rows])
    with threadpool_limits(1):
        if len(x) <= EXACT_UNTIL:
            distance, index = NearestNeighbors(n_neighbors=n_neighbours, algorithm="brute").fit(x).kneighbors(x)
            return _itself_first(Neighbours(index.astype(np.int64), distance.astype(np.float32)))
        n_trees, n_iters = min(64, 5 + round(len(x) ** 0.5 / 20)), max(5, round(np.log2(len(x))))
        found = (
            _nndescent()
            .NNDescent(
                x,
                n_neighbors=n_neighbours,
                random_state=np.random.RandomState(seed),
                n_trees=n_trees,
                n_iters=n_iters,
                max_candidates=60,
                n_jobs=1,
            )
            .neighbor_graph
        )
    return _itself_first(Neighbours(found[0].astype(np.int64), found[1].astype(np.float32)))


def embed(features: Path, rows: NDArray[np.int64] | None, near: Neighbours, n_components: int, seed: int) -> Embedding:
    """UMAP's layout of a neighbour graph, `min_dist` 0 and one thread, so that a seed gives one layout: -> (N, D)."""
    x = np.load(features, mmap_mode="r")
    x = x if rows is None else x[rows]
    n_components = max(1, min(n_components, len(x) - 2))
    with warnings.catch_warnings(), threadpool_limits(1):
        # Nothing to act on: missing extras, a graph in several pieces or too small for a spectral start.
        warnings.simplefilter("ignore")
        layout = _umap().UMAP(
            n_neighbors=near.index.shape[1],
            n_components=n_components,
            min_dist=0.0,
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(near.index, near.distance, None),
        )
        found: Embedding = layout.fit_transform(np.ascontiguousarray(x)).astype(np.float32)
    return found


def mixture(z: Embedding, n_clusters: int, seed: int) -> Mixture:
    """A full-covariance Gaussian mixture from one k-means start: (N, D) -> its partition."""
    model = GaussianMixture(n_clusters, max_iter=MAX_EM_STEPS, reg_covar=REG_COVAR, random_state=seed)
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")  # a start that has not converged is judged by its likelihood like any other
        try:
            model.fit(z.astype(np.float64))
        except ValueError:
            # A covariance collapsed: there are hardly more rows than dimensions.
            labels = KMeans(n_clusters, n_init=1, random_state=seed).fit_predict(z)
            return Mixture(-np.inf, labels.astype(np.int64), np.ones(len(z), np.float32))
        p = model.predict_proba(z.astype(np.float64))
    return Mixture(float(model.lower_bound_), p.argmax(axis=1), p.max(axis=1).astype(np.float32))


def refine(layouts: Sequence[Embedding], labels: Labels, n_clusters: int) -> Mixture:
    """The mixture of several layouts (N, D) of the same rows that expectation-maximisation reaches from labels (N,).

    Within a cluster layouts are independent: p(z) = sum_k pi_k prod_v N(z_v; mu_kv, Sigma_kv), so one layout gives an
    ordinary mixture. Where a cluster is empty, or becomes so, the labels come back as they are, with a likelihood of
    minus infinity.
    """
    views = [z.astype(np.float64) for z in layouts]
    weight = (labels == np.arange(n_clusters)[:, None]).astype(np.float64)  # (K, N)
    likelihood = -np.inf
    with threadpool_limits(1):
        for _ in range(MAX_EM_STEPS):
            size = weight.sum(axis=1)
            if size.min() < 1:
                break
            before, density = likelihood, np.repeat(np.log(size / len(labels))[:, None], len(labels), axis=1)
            for z in views:
                for own, of_cluster in zip(weight, density, strict=True):
                    of_cluster += _log_gaussian(z, own)
            highest = density.max(axis=0)
            weight = np.exp(np.subtract(density, highest, out=density), out=density)  # in place: N * K may fill memory
            total = weight.sum(axis=0)
            weight /= total
            likelihood = float((highest + np.log(total)).mean())
            if likelihood - before < EM_TOLERANCE:
                break
    found = weight.argmax(axis=0)
    if np.bincount(found, minlength=n_clusters).min() == 0:
        return Mixture(-np.inf, labels, np.ones(len(labels), np.float32))
    return Mixture(likelihood, found, weight.max(axis=0).astype(np.float32))


def modularity(near: Neighbours, labels: Labels) -> float:
    """Newman's modularity of a partition (N,) on the symmetric neighbour graph: 1 - 1/K at best, 0 for chance."""
    n, k = near.index.shape
    ends = (np.repeat(np.arange(n), k - 1), near.index[:, 1:].ravel())
    graph = scipy.sparse.csr_matrix((np.ones(n * (k - 1)), ends), shape=(n, n))
    graph = graph.maximum(graph.T)
    member = scipy.sparse.csr_matrix((np.ones(n), (np.arange(n), labels)), shape=(n, labels.max() + 1))
    between = (member.T @ graph @ member).toarray()
    total = between.sum()
    return float((np.diag(between) / total - (between.sum(axis=1) / total) ** 2).sum())


@cache
def _nndescent() -> Any:
    """The library, compiled steps kept on disk where they can be: 9 s of compiling in each process are left of 22."""
    import pynndescent

    for step in steps_kept():
        step.enable_caching()
    return pynndescent


def steps_kept() -> list[Any]:
    """Steps of the approximate search that are compiled once, not in each process."""
    from pynndescent import kernels, utils

    return [
        kernels.generate_graph_update_array_batched,
        utils.apply_sorted_graph_update_array,
        utils.build_candidates_owner,
        utils.deheap_sort,
        utils.sort_updates_by_block,
    ]


@cache
def _umap() -> Any:
    """The library, its compiled steps kept on disk: anew in each process they take longer than a small layout."""
    import umap
    from umap import layouts, umap_

    for step in (
        umap_.smooth_knn_dist,
        umap_.compute_membership_strengths,
        layouts._nb_optimize_layout_euclidean_single_epoch,  # of one thread; the cache would not tell it from the other
    ):
        step.enable_caching()
    return umap


def _log_gaussian(z: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-density (N,) of rows (N, D) under the Gaussian that they make with these weights (N,)."""
    total = weight.sum()
    away = z - weight @ z / total
    covariance = (away * weight[:, None]).T @ away / total + REG_COVAR * np.eye(z.shape[1])
    root = np.linalg.cholesky(covariance)
    distance = np.square(solve_triangular(root, away.T, lower=True, check_finite=False)).sum(axis=0)
    found: NDArray[np.float64] = -0.5 * (distance + z.shape[1] * math.log(2 * math.pi)) - np.log(np.diag(root)).sum()
    return found


def _itself_first(near: Neighbours) -> Neighbours:
    """Every row its own first neighbour, also where copies of it are just as near."""
    rows = np.arange(len(near.index))
    at = np.where((found := near.index == rows[:, None]).any(axis=1), found.argmax(axis=1), near.index.shape[1] - 1)
    index, distance = np.where(near.index < 0, rows[:, None], near.index), near.distance.copy()  # -1: none was found
    index[rows, at], distance[rows, at] = index[:, 0], distance[:, 0]
    index[:, 0], distance[:, 0] = rows, 0
    return Neighbours(index, distance)
