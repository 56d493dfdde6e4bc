"""k-means (Lloyd, 1982) by scikit-learn, on pixels or vectors.

Symbols: x flattened inputs (N, D) in 0...1 for images, mu cluster centers (K, D), sigma^2 the mean
squared distance of an input to its center.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans as SklearnKMeans

from models.base import Clusterer, Network, Run, StepState
from models.classical.features import FeatureNetwork, learn_features
from models.classical.kmeans.spec import KMeansConfig
from models.parts.heads import NearestCenter
from models.parts.threads import reproducible_threads


class KMeans(Clusterer):
    """Centers that minimise the squared distance; fast, and the line every other method must clear."""

    name = "kmeans"
    config: KMeansConfig

    def build(self) -> Network:
        """See `FeatureNetwork`."""
        return FeatureNetwork(self.spec, self.config, lambda n: NearestCenter(self.config.n_clusters, n))

    def _fit(self, x: NDArray[np.uint8] | NDArray[np.float32], run: Run) -> None:
        flat = learn_features(self, x, run)
        best = None
        for start in range(self.config.n_init):
            run.on_step(StepState("cluster", 0.55 + 0.4 * start / self.config.n_init, step=start))
            estimator = self._one_start(flat, run.seed + start)
            if best is None or estimator.inertia_ < best.inertia_:
                best = estimator
        assert best is not None
        self.network.head.take(torch.from_numpy(best.cluster_centers_), best.inertia_ / len(flat))
        sizes = np.bincount(best.labels_, minlength=self.config.n_clusters).tolist()
        run.on_step(StepState("cluster", 0.95, losses={"inertia": float(best.inertia_)}, cluster_sizes=sizes))

    def _one_start(self, flat: NDArray[np.float32], seed: int) -> SklearnKMeans:
        config = self.config
        with reproducible_threads():
            return SklearnKMeans(
                config.n_clusters, n_init=1, max_iter=config.max_iter, tol=config.tol, random_state=seed % 2**32
            ).fit(flat)
