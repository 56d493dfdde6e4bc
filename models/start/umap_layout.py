"""Layouts by umap-learn, each in a process of its own. Torch-free, so that the process starts fast.

On the CPU large sets are laid out by it: from our own layouts Fashion-MNIST's partition is worse (docs/methods.md).
"""

import warnings
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits


def embed(
    x: NDArray[np.float32], index: NDArray[np.int64], distance: NDArray[np.float32], n_components: int, seed: int
) -> NDArray[np.float32]:
    """A layout of rows (N, D) with neighbours (N, k), by one thread, so that a seed gives one layout: -> (N, d)."""
    with warnings.catch_warnings(), threadpool_limits(1):
        # Nothing to act on: missing extras, a graph in several pieces.
        warnings.simplefilter("ignore")
        layout = _umap().UMAP(
            n_neighbors=index.shape[1],
            n_components=n_components,
            min_dist=0.0,
            random_state=seed,
            n_jobs=1,
            precomputed_knn=(index, distance, None),
        )
        z: NDArray[np.float32] = layout.fit_transform(x).astype(np.float32)
    return z


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
